"""The course checks itself: ``check`` an exercise's answer, ask the three questions of a notebook.

check("07.1", 1.25) ──► True or False, and a line that says what is off
quiz("07") ──► a form in a live notebook, text on every other page
"""

from perco_lite.course import coding_rules, picture_rules  # noqa: F401  they register
from perco_lite.course.questions import quiz
from perco_lite.course.rules import check

__all__ = ["check", "quiz"]
