"""What readers rely on in every notebook and nbval cannot see: template, sizes, install cell."""

import ast
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

from tests.course.conftest import FOLDED

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from course import (  # noqa: E402
    blank,
    describe_figures,
    join_streams,
    repository,
    short_errors,
    title,
    with_address,
    with_links,
    with_words,
)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
HEADINGS = ["You will", "Set-up", "By hand", "The module", "See it", "What it costs"]
HEADINGS += ["Where it breaks", "Differs from the paper", "Summary", "Exercises", "References"]
HEADINGS += ["Solutions"]
TAGS = {"nbval-skip", "nbval-check-output", "raises-exception", "kodak", "parameters"}
CELLS, CODE_LINES, LONGEST_CELL, WORDS, KILOBYTES = (40, 70), 250, 30, (1000, 2000), 600

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def cells(path, kind):
    return [cell for cell in read(path).cells if cell.cell_type == kind]


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


@each_notebook
def test_title_badge_question_and_place(path):
    first = read(path).cells[0].source
    assert re.match(rf"# {int(path.stem[:2])} · \S", first), "the title, numbered"
    assert f"/blob/main/notebooks/{path.name}" in first, "the badge must open this notebook"
    assert "?" in first and "you are here" in first, "one question, and the place in the pipeline"


@each_notebook
def test_headings_of_the_template_in_order(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    found = [re.search(rf"^## (?:\d+ · )?{heading}", text, re.M) for heading in HEADINGS]
    missing = [h for h, match in zip(HEADINGS, found, strict=True) if not match]
    assert not missing, f"headings missing: {missing}"
    places = [match.start() for match in found]
    assert places == sorted(places), "the headings are not in the template's order"


@each_notebook
def test_orientation(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown")[:4])
    for word in ("**You need**", "**Runs in**", "**Paper**"):
        assert word in text, word
    assert text.count("\n- ") >= 3, "three bullets: what you will do"


@each_notebook
def test_sizes(path):
    notebook = read(path)
    assert CELLS[0] <= len(notebook.cells) <= CELLS[1]
    lengths = [len(cell.source.splitlines()) for cell in cells(path, "code")]
    assert max(lengths) <= LONGEST_CELL and sum(lengths) <= CODE_LINES
    prose = " ".join(cell.source for cell in cells(path, "markdown"))
    prose = re.sub(r"^.*\[Contents\]\(.*$", "", prose, flags=re.M)  # links are no prose
    prose = re.sub(FOLDED, "", prose, flags=re.S)
    prose = re.sub(r"<details><summary>Answer</summary>|</details>", "", prose)
    assert WORDS[0] <= len(prose.split()) <= WORDS[1], len(prose.split())
    assert path.stat().st_size <= 1024 * KILOBYTES, "shrink the stored figures"


@each_notebook
def test_outputs_are_of_one_full_run(path):
    counts = []
    for number, cell in enumerate(read(path).cells):
        if cell.cell_type != "code":
            continue
        assert tags(cell) <= TAGS, f"cell {number}: unknown tags {tags(cell) - TAGS}"
        errors = [output for output in cell.outputs if output.output_type == "error"]
        assert not errors or "raises-exception" in tags(cell), f"cell {number} failed"
        if "raises-exception" in tags(cell):
            # the tag alone accepts any error; this pins its name and message
            assert "nbval-check-output" in tags(cell), f"cell {number}"
        counts.append(cell.execution_count)
    assert counts == list(range(1, len(counts) + 1)), "run all cells in order: make notebooks"


@each_notebook
def test_readers_see_no_short_run(path):
    """One cell of settings, as they are meant; conftest.py puts in what tests run with."""
    assert "SMOKE" not in path.read_text(encoding="utf-8")
    settings = [cell.source for cell in cells(path, "code") if "parameters" in tags(cell)]
    assert len(settings) == 1, "one cell is tagged parameters"
    runs = json.loads((ROOT / "tests/course/settings.json").read_text(encoding="utf-8"))[path.stem]
    assert set(runs) == {"short", "knobs"}
    for names in (name for run in runs.values() for name in run):
        for name in names.split(", "):
            assert re.search(rf"^(\w+(, | = ))*{name}\b.* = ", settings[0], re.M), name


@each_notebook
def test_figures_are_told_to_who_cannot_see_them(path):
    """Each stored picture has the ``alt`` text of its cell, where IPython's own ``alt`` puts it."""
    for number, cell in enumerate(cells(path, "code")):
        for output in cell.outputs:
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    alt = output.metadata.get(kind, {}).get("alt", "")
                    assert len(alt) > 20 and alt == cell.metadata.alt, f"code cell {number}: {alt}"


@each_notebook
def test_solutions_are_folded(path):
    """Code and words under the heading Solutions; blank versions have none of it."""
    every = read(path).cells
    start = next(i for i, cell in enumerate(every) if re.search("^## Solutions", cell.source, re.M))
    code = [cell for cell in every[start:] if cell.cell_type == "code"]
    assert code and all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in code)
    assert all(cell.metadata.get("cellView") == "form" for cell in code), "Colab's way to fold"
    words = "\n".join(cell.source for cell in every[start:] if cell.cell_type == "markdown")
    words = re.sub(
        r"<details><summary>Answer</summary>\n\n.*?\n\n</details>", "", words, flags=re.S
    )
    for line in words.partition("## Solutions")[2].splitlines():
        assert len(re.sub(r"^\*\*[123].*?\*\*", "", line).split()) <= 6, line
    exercises = "".join(cell.source for cell in every[:start] if cell.cell_type == "markdown")
    assert exercises.count("<summary>Hint") == exercises.count("<summary>Second hint") == 3


@each_notebook
def test_stored_answers_are_right(path):
    """In CI's short runs a few solutions may be wrong; in the stored full run none is."""
    asked = {}
    for cell in cells(path, "code"):
        printed = "".join(output.get("text", "") for output in cell.outputs)
        for number in re.findall(r"""\bcheck\(["'](\d\d\.\d)["']""", cell.source):
            asked[number] = asked.get(number, False) or f"{number} is right." in printed
    assert asked == {f"{path.stem[:2]}.{k}": True for k in (1, 2, 3)}


@each_notebook
def test_new_words_are_said_in_other_words(path):
    assert with_words(read(path), int(path.stem[:2])) == read(path), "make notebooks writes them"


@each_notebook
def test_no_photo_of_others_is_stored(path):
    for number, cell in enumerate(cells(path, "code")):
        if "kodak" in tags(cell) or re.search("kodak_photos|coco", cell.source):
            pictures = [o for o in cell.outputs if any("image/" in k for k in o.get("data", {}))]
            allowed = "savefig" not in cell.source and "plt." in cell.source
            assert not pictures or allowed, f"code cell {number} stores photos; clear its output"


@each_notebook
def test_shell_and_pip_are_guarded_and_skipped(path):
    for number, cell in enumerate(cells(path, "code")):
        if re.search(r"^\s*(!|%pip|%conda)", cell.source, re.M):
            # a failing `!command` or `%pip` raises nothing, so a test would never notice
            assert "nbval-skip" in tags(cell), f"code cell {number}"
            assert re.search(r'^if "google.colab" in sys.modules:', cell.source, re.M)


@each_notebook
def test_no_error_is_swallowed(path):
    """A handler that takes everything, or does nothing, would hide a broken cell."""
    for number, cell in enumerate(cells(path, "code")):
        source = re.sub(r"^(\s*)[!%].*$", r"\1pass", cell.source, flags=re.M)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                assert caught not in ("everything", "Exception", "BaseException"), f"cell {number}"
                idle = all(isinstance(line, (ast.Pass, ast.Continue)) for line in node.body)
                assert not idle, f"code cell {number} catches {caught} and says nothing"


@each_notebook
def test_a_failed_assert_says_what_it_was_about(path):
    for number, cell in enumerate(cells(path, "code")):
        source = re.sub(r"^(\s*)[!%].*$", r"\1pass", cell.source, flags=re.M)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assert):  # check says what is off
                test = ast.unparse(node.test)
                assert node.msg or test.startswith("check("), f"code cell {number}: {test}"


@each_notebook
def test_the_address_is_that_of_pyproject(path):
    for cell in read(path).cells:
        assert with_address(cell.source) == cell.source, "make notebooks writes it"


@each_notebook
def test_links_lead_to_the_neighbours(path):
    notebook = with_links(read(path), path)
    assert notebook == read(path), "make notebooks writes the links"
    last = path == NOTEBOOKS[-1]
    text = "".join(cell.source for cell in notebook.cells)
    assert "[Contents](" in text and (last or "**Next:**" in text), "at both ends"


@each_notebook
def test_the_contents_name_it(path):
    """README's table and the map in notebook 0, which shows the title as well."""
    assert f"](notebooks/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")
    start = "".join(cell.source for cell in cells(NOTEBOOKS[0], "markdown"))
    assert path == NOTEBOOKS[0] or f"[{title(path)}]({path.name})" in start


@each_notebook
def test_install_cell_as_on_colab(path, monkeypatch, tmp_path):
    """Runs the install cell with a stand-in for Colab and for pip: it installs us and no torch."""
    (cell,) = [c for c in cells(path, "code") if "%pip" in c.source]
    source = re.sub(r"%pip (.*)", r"run_pip('''\1''')", cell.source)
    called = []
    exec(source, {"run_pip": called.append})  # not on Colab: nothing happens
    assert not called
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(source, {"run_pip": called.append})
    (arguments,) = called
    assert f"git+{repository()}" in arguments and "torch" not in arguments.lower()
    assert "notebooks" not in arguments, "no such extra: Colab has its own ipykernel, and pins it"
    assert "git clone" not in path.read_text(encoding="utf-8"), "the wheel brings the tables"
    assert "-U" not in arguments.split() and "--upgrade" not in arguments


@each_notebook
def test_has_a_blank_version(path):
    cells = blank(read(path)).cells
    assert cells and "Exercises" in "".join(cell.source for cell in cells[-6:])
    assert not any(re.search("^## Solutions", cell.source, re.M) for cell in cells)


def test_a_fork_changes_one_line():
    badge = "https://colab.research.google.com/github/a/b/blob/main/notebooks/00_start_here.ipynb"
    place = repository().removeprefix("https://github.com/")
    assert with_address(badge) == badge.replace("a/b", place)
    line = '%pip install -q "perco_lite @ git+https://github.com/a/b"'
    assert with_address(line) == line.replace("https://github.com/a/b", repository())
    line = "    !git clone -q --depth 1 https://github.com/a/b repository\n"
    assert with_address(line) == line.replace("https://github.com/a/b", repository())
    other = "read https://github.com/a/b, and clone git@github.com:a/b"
    assert with_address(other) == other  # what is not ours to rewrite


def test_blank_versions_have_no_solutions():
    new = nbformat.v4
    cells = [new.new_code_cell("1 + 1", outputs=[], execution_count=3)]
    cells += [new.new_markdown_cell("## Solutions"), new.new_code_cell("42")]
    (only,) = blank(new.new_notebook(cells=cells)).cells
    assert only.source == "1 + 1" and only.execution_count is None
    in_one_cell = new.new_markdown_cell("## Exercises\n\n1. Try.\n\n## Solutions\n\n**1**")
    (only,) = blank(new.new_notebook(cells=[in_one_cell, new.new_code_cell("42")])).cells
    assert only.source == "## Exercises\n\n1. Try."
    linked = "[a](glossary.md), [b](blank/), [c](../docs/x.md), [d](01_a.ipynb)"
    badge = "# A\n\n[![Open in Colab](x)](y)\n\n"
    cells = [new.new_markdown_cell(f"{badge}{linked}"), new.new_markdown_cell("## Solutions")]
    first = blank(new.new_notebook(cells=cells)).cells[0]
    moved = "[a](../glossary.md), [b](./), [c](../../docs/x.md), [d](01_a.ipynb)"
    assert first.source.split() == f"# A {moved}".split()
    with pytest.raises(ValueError, match="Solutions"):
        blank(new.new_notebook(cells=[new.new_code_cell("1")]))


def test_links_follow_the_files(tmp_path):
    new = nbformat.v4
    badge = "[![Open in Colab](x)](y)"
    for name, heading in (("00_a", "0 · A"), ("01_b", "1 · B"), ("03_c", "3 · C")):
        cells = [new.new_markdown_cell(f"# {heading}\n\n{badge}\n\nWhy?")]
        cells += [new.new_markdown_cell("**Next:** [9 · Old](09_old.ipynb), and more")]
        nbformat.write(new.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    path = tmp_path / "01_b.ipynb"
    once = with_links(read(path), path)
    line = "*Previous:* [0 · A](00_a.ipynb) · [Contents](00_start_here.ipynb#The-map-of-the-course)"
    assert f"{badge}\n\n{line} · *Next:* [3 · C](03_c.ipynb)\n\nWhy?" in once.cells[0].source
    assert once.cells[1].source == "**Next:** [3 · C](03_c.ipynb), and more"
    assert with_links(nbformat.from_dict(once), path) == once, "again: nothing changes"
    last = with_links(read(tmp_path / "03_c.ipynb"), tmp_path / "03_c.ipynb")
    assert "*Next:*" not in last.cells[0].source and "09_old" in last.cells[1].source


def test_new_words_follow_the_glossary():
    new = nbformat.v4
    text = "## Summary\n\n- It is so.\n\n**Next:** [x](y.ipynb)\n\n## Exercises\n\n1. Do."
    once = with_words(new.new_notebook(cells=[new.new_markdown_cell(text)]), 2)
    source = once.cells[0].source
    assert (
        source.startswith("## Summary\n\n- It is so.\n\n<details>") and "- **stride**: " in source
    )
    assert source.endswith("</details>\n\n**Next:** [x](y.ipynb)\n\n## Exercises\n\n1. Do.")
    once.cells[0].source = source.replace("- **stride**: how", "- **stride**: why")
    assert with_words(once, 2).cells[0].source == source, "stale words go"
    with pytest.raises(ValueError, match="0 summaries"):
        with_words(new.new_notebook(cells=[]), 2)


def test_a_figure_gets_its_words():
    new = nbformat.v4
    picture = new.new_output("display_data", {"image/png": "x", "text/plain": "y"})
    cell = new.new_code_cell("plot()", outputs=[picture], metadata={"alt": "A line that rises."})
    notebook = new.new_notebook(cells=[cell, new.new_code_cell("1", outputs=[])])
    describe_figures(notebook)
    assert picture.metadata == {"image/png": {"alt": "A line that rises."}}


def test_what_a_cell_printed_is_one_output():
    new = nbformat.v4
    printed = [new.new_output("stream", name="stdout", text=f"{n}\n") for n in range(3)]
    printed.insert(2, new.new_output("stream", name="stderr", text="!"))
    cell = new.new_code_cell("f()", outputs=printed)
    join_streams(new.new_notebook(cells=[new.new_markdown_cell("x"), cell]))
    assert [output.text for output in cell.outputs] == ["0\n1\n", "!", "2\n"]


def test_stored_errors_are_short():
    new = nbformat.v4
    lines = ["---", "ValueError  Traceback", "Cell In[1], line 2", "File /home/me/x.py"]
    lines += ["ValueError: y"]
    error = new.new_output("error", ename="ValueError", evalue="y", traceback=lines)
    notebook = new.new_notebook(cells=[new.new_code_cell("f()", outputs=[error])])
    short_errors(notebook)
    assert notebook.cells[0].outputs[0].traceback == [*lines[:3], lines[-1]]
    short_errors(notebook)  # again: nothing more to take away
    assert len(notebook.cells[0].outputs[0].traceback) == 4


def test_course_command_explains_itself():
    command = [sys.executable, ROOT / "scripts/course.py"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "blank NOTEBOOK" in result.stderr
