"""Upkeep of the notebooks.

python docs/course.py address NOTEBOOK…   write the repository's address (pyproject.toml) into them
python docs/course.py blank NOTEBOOK…     write exercise versions without solutions to blank/
"""

import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]


def repository() -> str:
    """Address of the repository: the one place where a fork changes it."""
    return re.search(r'^Repository = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]


def with_address(source: str) -> str:
    """The text with the badge and the install line of this repository."""
    place = repository().removeprefix("https://github.com/")
    source = re.sub(
        r"(colab\.research\.google\.com/github/)[^/]+/[^/]+(/blob/)", rf"\g<1>{place}\2", source
    )
    return re.sub(r"git\+https://[^\"\s]+", f"git+{repository()}", source)


def blank(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without outputs, and without what follows the heading "Solutions"."""
    kept = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.match(r"#+ .*Solutions", cell.source):
            break
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        kept.append(cell)
    if len(kept) == len(notebook.cells):
        raise ValueError('no heading "Solutions" found, expected one before the solutions')
    return nbformat.v4.new_notebook(cells=kept, metadata=notebook.metadata)


def main(action: str, paths: list[Path]) -> None:
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if action == "blank":
            target = path.parent / "blank" / path.name
            target.parent.mkdir(exist_ok=True)
            nbformat.write(blank(notebook), target)
        else:
            for cell in notebook.cells:
                cell.source = with_address(cell.source)
            nbformat.write(notebook, path)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("address", "blank"):
        sys.exit(__doc__)
    main(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
