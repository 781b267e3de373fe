"""quiz: three questions a notebook, a form for those with a kernel, text for all others."""

import json
import re
import sys

import pytest

from perco_lite.course import quiz
from perco_lite.course.questions import LETTERS, _all_questions
from tests.course.conftest import ROOT


@pytest.mark.parametrize("notebook", _all_questions())
def test_three_good_questions(notebook):
    questions = quiz(notebook).questions
    assert len(questions) == 3
    for question in questions:
        assert 2 <= len(question.options) <= len(LETTERS)
        assert len(set(question.options)) == len(question.options)
        assert 0 <= question.right < len(question.options)
        assert question.text.endswith("?") and question.why.endswith(".")
    (path,) = (ROOT / "notebooks").glob(f"{notebook}_*.ipynb")
    assert f'quiz(\\"{notebook}\\")' in path.read_text(encoding="utf-8")


def test_the_right_letter_is_not_always_the_same():
    rights = [q.right for questions in _all_questions().values() for q in questions]
    assert max(map(rights.count, set(rights))) <= 0.75 * len(rights)


def test_a_page_without_a_kernel_has_it_all():
    one = quiz("07")
    page, question = one._repr_html_(), one.questions[0]
    assert question.text in page and page.count("<details>") == 3
    folded = re.findall(r"<details>.*?</details>", page)
    assert question.why in folded[0] and question.why not in page.replace(folded[0], "")
    assert question.options[2] in repr(one) and question.why not in repr(one)


def test_the_form_answers():
    one = quiz("07")
    form = one.form()
    asked, choice, verdict = form.children[:3]
    assert one.questions[0].text in asked.value and choice.index is None
    choice.value = LETTERS[(one.questions[0].right + 1) % len(one.questions[0].options)]
    assert verdict.value == "No. Try another."
    choice.value = LETTERS[one.questions[0].right]
    assert verdict.value.startswith("Right. ")
    assert "application/vnd.jupyter.widget-view+json" in one._repr_mimebundle_()


def test_without_widgets_it_is_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    bundle = quiz("12")._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}


def test_another_notebook_is_refused():
    with pytest.raises(ValueError, match="got notebook '99', expected one with a quiz: .*07"):
        quiz("99")


def test_the_file_is_laid_out_for_readers():
    text = (ROOT / "perco_lite/course/quizzes.json").read_text(encoding="utf-8")
    assert all(len(line) <= 260 for line in text.splitlines()) and json.loads(text)
