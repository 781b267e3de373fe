"""Three questions a notebook: a form where a kernel runs, text everywhere else.

    quizzes.json ──quiz("07")──► Quiz ──► ipywidgets: choose, and read why
                                     └──► HTML and plain text: the answers are folded away

Paper: nothing on this.
"""

import html
import json
from functools import cache
from importlib import resources
from typing import NamedTuple

LETTERS = "abcdef"


class Question(NamedTuple):
    """``right`` counts the ``options`` from 0; ``why`` is shown with every answer."""

    text: str
    options: list[str]
    right: int
    why: str


@cache
def _all_questions() -> dict[str, list[Question]]:
    text = resources.files("perco_lite.course").joinpath("quizzes.json").read_text("utf-8")
    return {number: [Question(*q) for q in found] for number, found in json.loads(text).items()}


def quiz(notebook: str) -> "Quiz":
    """The questions of a notebook, "07"; ``ValueError`` where it has none."""
    questions = _all_questions()
    if notebook not in questions:
        known = ", ".join(sorted(questions))
        raise ValueError(f"got notebook {notebook!r}, expected one with a quiz: {known}")
    return Quiz(notebook, questions[notebook])


class Quiz:
    """Questions with the ways to show them; ``answer`` is what the form calls."""

    def __init__(self, notebook: str, questions: list[Question]):
        self.notebook, self.questions = notebook, questions

    def answer(self, number: int, letter: str) -> str:
        """What is said when somebody chooses a letter for question ``number``, from 1."""
        question = self.questions[number - 1]
        right = LETTERS.index(letter) == question.right
        return f"Right. {question.why}" if right else "No. Try another."

    def __repr__(self) -> str:
        lines = []
        for number, question in enumerate(self.questions, 1):
            lines.append(f"{number}. {question.text}")
            lines += [f"   {a}) {o}" for a, o in zip(LETTERS, question.options, strict=False)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = []
        for number, question in enumerate(self.questions, 1):
            options = "".join(f"<li>{html.escape(option)}</li>" for option in question.options)
            answer = f"{LETTERS[question.right]}) {html.escape(question.why)}"
            parts.append(
                f"<p><b>{number}.</b> {html.escape(question.text)}</p>"
                f'<ol type="a">{options}</ol>'
                f"<details><summary>Answer {number}</summary><p>{answer}</p></details>"
            )
        return "".join(parts)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """The form for a live notebook, where ipywidgets is installed; text for all others."""
        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        try:
            form = self.form()
        except ImportError:  # no widgets here: the text says it all
            return bundle
        # loads the codec: seconds that only a live notebook spends
        from perco_lite.widgets import live_view

        return live_view(form) | bundle

    def form(self):
        """The questions as ipywidgets: a choice, and under it what is said about it."""
        import ipywidgets

        rows = []
        for number, question in enumerate(self.questions, 1):
            options = [(f"{a}) {o}", a) for a, o in zip(LETTERS, question.options, strict=False)]
            wide = {"width": "max-content"}
            choice = ipywidgets.RadioButtons(options=options, index=None, layout=wide)
            verdict = ipywidgets.HTML()

            def say(change, number=number, verdict=verdict):
                verdict.value = html.escape(self.answer(number, change["new"]))

            choice.observe(say, names="value")
            asked = ipywidgets.HTML(f"<b>{number}.</b> {html.escape(question.text)}")
            rows += [asked, choice, verdict]
        return ipywidgets.VBox(rows)
