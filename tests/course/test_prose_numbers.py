"""Numbers in a notebook's sentences are its outputs', its code's, or marked in said_numbers.json.

    "reaches 24.4 dB" ──► is there an output that rounds to 24.4?  ──► else: is it marked?

So a figure of the weights is printed by a cell beside its sentence, and a sentence that new weights
have made wrong fails here, with the cell's number. Checked is what looks measured: decimals,
percentages, whole numbers before a unit. Marked is what no cell can print: what others published
("cited"), what follows from other numbers or from a definition ("arithmetic"), and what the page
promises about itself, as its running time ("about").
"""

import json
import re

import nbformat
import pytest

from tests.course.conftest import FOLDED, ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
MARKED = json.loads((ROOT / "tests/course/said_numbers.json").read_text(encoding="utf-8"))
KINDS = {"cited", "arithmetic", "about"}
NUMBER = r"\d[\d,]*(?:\.\d+)?"
UNITS = "dB|bytes?|bits?|kB|KB|MB|GB|GiB|MiB|TFLOP|bpp|ms|times|M|grey levels"
UNITS += "|seconds?|minutes?|hours?|days?"
SAID = re.compile(rf"(?<![\w.,^−-])({NUMBER})(\s?%|[ \u00a0](?:{UNITS})\b|)(?![\w])")
LEFT_OUT = (r"```.*?```", r"\$\$.*?\$\$", r"\$[^$\n]*\$", r"`[^`]*`", FOLDED)


def said(text: str) -> list[str]:
    """What looks measured in a cell's sentences: "24.4", "3 %", "153 bytes"."""
    text = re.split(r"^## References", text, flags=re.M)[0]
    for left_out in (*LEFT_OUT, r"\[[^\]]*\]\([^)]*\)", r"https?://\S+", r"\*\*Paper\*\*.*$"):
        text = re.sub(left_out, " ", text, flags=re.S if "`" in left_out else re.S | re.M)
    found = []
    for number, unit in SAID.findall(text):
        if "." in number or unit.strip():
            found.append(f"{number.rstrip(',')} {unit.strip()}".strip())
    return found


def value(text: str) -> float:
    return float(text.replace(",", ""))


def known(notebook) -> list[float]:
    """Every number of the cells' code and outputs."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            texts.append(cell.source)
            for output in cell.outputs:
                if output.output_type == "error":
                    texts.append(output.evalue)
                texts.append(output.get("text", ""))
                texts += [t for k, t in output.get("data", {}).items() if k.startswith("text/")]
    text = "\n".join(t if isinstance(t, str) else "".join(t) for t in texts).replace("_", "")
    return [value(n.rstrip(",")) for n in re.findall(NUMBER, text)]


def is_shown(number: str, shown: list[float]) -> bool:
    """Whether some of ``shown`` rounds to ``number``; a percentage may be shown as a share."""
    digits, _, unit = number.partition(" ")
    half = 0.5000001 * 10.0 ** -len(digits.partition(".")[2])
    wanted = value(digits)
    scales = (1, 100) if unit == "%" else (1,)
    return any(abs(scale * one - wanted) <= half for one in shown for scale in scales)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_number_that_is_said_is_shown_or_marked(path):
    notebook = nbformat.read(path, as_version=4)
    shown, marked = known(notebook), MARKED.get(path.stem, {})
    missing, used = [], set()
    for place, cell in enumerate(notebook.cells):
        for number in said(cell.source) if cell.cell_type == "markdown" else ():
            if number in marked:
                used.add(number)
            elif not is_shown(number, shown):
                missing.append(f"cell {place}: {number}")
    assert not missing, f"said, and neither shown by a cell nor marked: {'; '.join(missing)}"
    assert used == set(marked), f"marked, and no longer said: {sorted(set(marked) - used)}"


def test_marks_say_why():
    assert set(MARKED) <= {path.stem for path in NOTEBOOKS}
    assert all(kind in KINDS for own in MARKED.values() for kind in own.values())


def test_what_looks_measured():
    text = (
        "At 0.0019 it takes 90 bytes, 3 % less (8.6 dB), in 2 steps; $0.5$ and `7.5` are no words."
    )
    assert said(text) == ["0.0019", "90 bytes", "3 %", "8.6 dB"]
    assert said("[a 1.5](b) of 12-bit\n\n## References\n\n2.5") == []


def test_a_shown_number_may_be_longer():
    assert is_shown("24.4 dB", [24.38]) and not is_shown("24.4 dB", [24.46])
    assert is_shown("3 %", [0.031]) and is_shown("3 %", [3.2]) and not is_shown("3", [0.031])
    assert is_shown("1,000 bytes", [1000.0])
