"""Upkeep of the notebooks.

course.py address NOTEBOOK…   write the repository's address (pyproject.toml) into them
course.py links NOTEBOOK…     write the links to the notebook before, the contents, the next
course.py words NOTEBOOK…     write what the glossary says of their new words into their summaries
course.py blank NOTEBOOK…     write exercise versions without solutions to blank/
course.py tidy NOTEBOOK…      shorten stored error outputs to the cell and the message; join what a
                              cell printed; fold the solutions' code; write what a cell's metadata
                              say of its figure ("alt") where screen readers look
"""

import re
import sys
from pathlib import Path

import nbformat

from perco_lite.files import write_whole

ROOT = Path(__file__).parents[1]
NEW_WORDS = "New words, in other words"


def repository() -> str:
    """Address of the repository: the one place where a fork changes it."""
    return re.search(r'^Repository = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]


def with_address(source: str) -> str:
    """The text with the badge, the install line and the clone line of this repository."""
    place = repository().removeprefix("https://github.com/")
    source = re.sub(
        r"(colab\.research\.google\.com/github/)[^/]+/[^/]+(/blob/)", rf"\g<1>{place}\2", source
    )
    source = re.sub(r"git\+https://[^\"\s]+", f"git+{repository()}", source)
    return re.sub(r"(git clone [^\n]*?)https://[^\"\s]+", rf"\g<1>{repository()}", source)


def title(path: Path) -> str:
    """The heading of a notebook, with its number: "3 · Vector quantization"."""
    first = nbformat.read(path, as_version=4).cells[0].source
    return first.partition("\n")[0].removeprefix("# ")


def with_links(notebook: nbformat.NotebookNode, path: Path) -> nbformat.NotebookNode:
    """The notebook with a line of links under its badge, and the next one's title at its end.

    The course is what lies beside ``path``, in the order of the numbers.
    """
    course = sorted(path.parent.glob("[0-9]*.ipynb"))
    at, words = course.index(path), {}
    for name, neighbour in (("Previous", course[:at][-1:]), ("Next", course[at + 1 :][:1])):
        words[name] = "".join(f"[{title(other)}]({other.name})" for other in neighbour)
    contents = "[Contents](00_start_here.ipynb#The-map-of-the-course)"
    line = [f"*Previous:* {words['Previous']}"] * bool(words["Previous"]) + [contents]
    line = " · ".join(line + [f"*Next:* {words['Next']}"] * bool(words["Next"]))
    first = notebook.cells[0]
    kept = re.sub(r"\n\n.*\[Contents\]\(.*", "", first.source)
    first.source = re.sub(r"^\[!\[Open in Colab.*$", rf"\g<0>\n\n{line}", kept, flags=re.M)
    for cell in notebook.cells:
        if words["Next"]:
            link = f"**Next:** {words['Next']}"
            cell.source = re.sub(r"\*\*Next:\*\* \[[^\]]*\]\([^)]*ipynb\)", link, cell.source)
    return notebook


def new_words(number: int) -> str:
    """What notebooks/glossary.md says of the words that a notebook explains, folded; "" if none."""
    text = (ROOT / "notebooks" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| ([^|]+) \| \[{number}\]\([^)]+\) \| ([^|]+) \|$", text, re.M)
    listed = "\n".join(f"- **{term}**: {words}" for term, words in rows)
    return f"<details><summary>{NEW_WORDS}</summary>\n\n{listed}\n\n</details>" if rows else ""


def with_words(notebook: nbformat.NotebookNode, number: int) -> nbformat.NotebookNode:
    """The notebook with its new words at the end of its summary, before what is next."""
    old = rf"\n\n<details><summary>{NEW_WORDS}</summary>.*?</details>"
    summary = re.compile(r"(^## Summary\n.*?)(?=\n+\*\*Next:\*\*|\n+## |\Z)", re.M | re.S)
    words = new_words(number)
    found = [cell for cell in notebook.cells if re.search(summary, cell.source)]
    if len(found) != 1 or found[0].cell_type != "markdown":
        raise ValueError(f"notebook {number} has {len(found)} summaries, expected one")
    source = re.sub(old, "", found[0].source, flags=re.S)
    found[0].source = summary.sub(lambda m: f"{m[1]}\n\n{words}" if words else m[1], source)
    return notebook


def blank(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without outputs, and without what follows the heading "Solutions"."""
    kept = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            # from blank/, what is beside the notebooks is one folder up; Colab has none of these
            cell.source = re.sub(r"\]\((?=\.\./|glossary\.md)", "](../", cell.source)
            cell.source = cell.source.replace("](blank/)", "](./)")
            cell.source = re.sub(r"^\[!\[Open in Colab\].*\n", "", cell.source, flags=re.M)
            # the heading may stand in the middle of a cell, behind the exercises
            before, *solutions = re.split(r"^#+ .*Solutions", cell.source, maxsplit=1, flags=re.M)
            if solutions:
                cell.source = before.strip()
                kept += [cell] * bool(cell.source)
                return nbformat.v4.new_notebook(cells=kept, metadata=notebook.metadata)
        else:
            cell.outputs, cell.execution_count = [], None
        kept.append(cell)
    raise ValueError('no heading "Solutions" found, expected one before the solutions')


def short_errors(notebook: nbformat.NotebookNode) -> None:
    """Keep of each stored traceback its header, the notebook's own lines and the message.

    What lies between are the package's lines, under a path of the machine that ran the notebook.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and len(output.traceback) > 4:
                output.traceback = [*output.traceback[:3], output.traceback[-1]]


def join_streams(notebook: nbformat.NotebookNode) -> None:
    """Make one output of what a cell printed in one go: a slow machine sends it in pieces."""
    for cell in notebook.cells:
        kept: list[nbformat.NotebookNode] = []
        for output in cell.get("outputs", []):
            last = kept[-1] if kept else {}
            if output.output_type == "stream" and output.name == last.get("name"):
                last["text"] += output.text
            else:
                kept.append(output)
        if cell.cell_type == "code":
            cell.outputs = kept


def fold_solutions(notebook: nbformat.NotebookNode) -> None:
    """Fold the code below the heading Solutions: in Jupyter by one mark, in Colab by another."""
    below = False
    for cell in notebook.cells:
        below = below or bool(re.search("^## Solutions", cell.source, re.M))
        if below and cell.cell_type == "code":
            cell.metadata.setdefault("jupyter", {})["source_hidden"] = True
            cell.metadata["cellView"] = "form"


def describe_figures(notebook: nbformat.NotebookNode) -> None:
    """Give every stored picture its cell's ``alt`` text, where IPython's own would be."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind in output.get("data", {}):
                if kind.startswith("image/") and "alt" in cell.metadata:
                    output.metadata[kind] = {"alt": cell.metadata.alt}


def main(action: str, paths: list[Path]) -> None:
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if action == "blank":
            path, notebook = path.parent / "blank" / path.name, blank(notebook)
        elif action == "tidy":
            short_errors(notebook)
            join_streams(notebook)
            fold_solutions(notebook)
            describe_figures(notebook)
        elif action == "links":
            with_links(notebook, path)
        elif action == "words":
            with_words(notebook, int(path.name[:2]))
        else:
            for cell in notebook.cells:
                cell.source = with_address(cell.source)
        write_whole(path, f"{nbformat.writes(notebook)}\n".encode())


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("address", "links", "words", "blank", "tidy"):
        sys.exit(__doc__)
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
