"""notebooks/glossary.md: a term is explained where it says, and used nowhere before."""

import re
from functools import cache

import nbformat
import pytest

from tests.course.conftest import FOLDED, ROOT

ROW = re.compile(r"^\| ([^|]+) \| \[(\d+)\]\((\d\d)_\w+\.ipynb\) \| ([^|]+) \|$", re.M)
GLOSSARY = (ROOT / "notebooks" / "glossary.md").read_text(encoding="utf-8")
TERMS = [(term, int(number)) for term, number, _, _ in ROW.findall(GLOSSARY)]
# what a term is called in the middle of a sentence, where that is not itself
FORMS = {
    "bits per pixel": "bits per pixel|bpp",
    "prior": r"\*?priors?\*?",
    "range coder": "range cod",
}
FORMS |= {"arithmetic coding": "arithmetic cod", "collapse": "collapse"}


@cache
def prose(number: int) -> list[str]:
    """Paragraphs of a notebook: no drawings, links, formulas, references."""
    (path,) = (ROOT / "notebooks").glob(f"{number:02d}_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.split(r"^## References", text, flags=re.M)[0]
    for left_out in (r"```.*?```", r"\$[^$]*\$", r"`[^`]*`", FOLDED):
        text = re.sub(left_out, "", text, flags=re.S)
    text = re.sub(r"^.*\[Contents\].*$", "", text, flags=re.M)
    return re.sub(r"\[[^\]]*\]\([^)]*\)", "", text).splitlines()


def uses(term: str, number: int) -> list[str]:
    pattern = FORMS.get(term, re.escape(term))
    flags = 0 if term[:2].isupper() else re.IGNORECASE
    return [line for line in prose(number) if re.search(rf"(?<!\w){pattern}", line, flags)]


def test_rows_are_whole_and_in_order():
    rows = [line for line in GLOSSARY.splitlines() if line.startswith("| ")]
    assert len(TERMS) == len(rows) - 1 and len(dict(TERMS)) == len(TERMS)  # but for the heading
    assert all(int(number) == int(file) for _, number, file, _ in ROW.findall(GLOSSARY))
    numbers = [number for _, number in TERMS]
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(("term", "number"), TERMS, ids=[term for term, _ in TERMS])
def test_a_term_is_used_after_it_is_explained(term, number):
    assert uses(term, number), f"notebook {number} does not explain {term!r}"
    course = sorted(int(p.name[:2]) for p in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    for earlier in course:
        if 0 < earlier < number:
            ahead = [
                u for u in uses(term, earlier) if not re.search(rf"notebooks? .*\b{number}\b", u)
            ]
            assert not ahead, f"notebook {earlier} uses {term!r}, explained in {number}: {ahead[0]}"
