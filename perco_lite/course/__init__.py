"""The course checks itself: ``check`` an exercise's answer, ask the three questions of a notebook.

check("07.1", 1.25) ──► True or False, and a line that says what is off
quiz("07") ──► a form in a live notebook, text on every other page
"""

from perco_lite.course import (  # noqa: F401  they register
    coding_rules,
    evidence_rules,
    picture_rules,
)
from perco_lite.course.questions import quiz
from perco_lite.course.rules import check

__all__ = ["check", "quiz"]
