"""What the scripts that fill pages share: places between marks, tables, files."""

import csv
import json
import re
from pathlib import Path

from perco_lite.files import write_whole

ROOT = Path(__file__).parents[1]


def fill(page: Path, name: str, block: str) -> None:
    """Put a text between a page's marks; raises ``SystemExit`` unless they are there once."""
    mark = f"<!-- {name} -->"
    text, count = re.subn(
        rf"({re.escape(mark)}\n).*?\n?<!-- end -->",
        lambda match: f"{match[1]}{block}\n<!-- end -->",
        page.read_text(encoding="utf-8"),
        flags=re.S,
    )
    if count != 1:
        raise SystemExit(f"{page} has {count} places for the figures, expected one place: {mark}")
    write_whole(page, text.encode())


def read_json(path: str | Path) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def table(head: list[str], rows: list[list]) -> str:
    """Markdown of a table."""
    lines = [f"| {' | '.join(map(str, line))} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])
