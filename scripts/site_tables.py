"""Tables of data/results as pages of the site: how each was made, its means, every row.

NAME.csv, NAME.json ──results_text──► Markdown with tables in HTML, which site.js sorts
"""

import csv
import html
import json
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = "data/results"
MOST_ROWS = 1300  # of a table that a page shows; longer ones are there to download


def table_page(path: Path) -> str:
    return f"tables/{path.relative_to(ROOT / RESULTS).with_suffix('').as_posix()}.md"


def table(head: list[str], rows: list[list[str]]) -> str:
    """HTML of a table; site.js makes it sort."""
    lines = ["<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows]
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "\n".join(lines)
    return (
        f'<table class="table">\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'
    )


def figure(value: dict | str | float) -> str:
    """A mean with its interval, to four digits."""
    if not isinstance(value, dict):
        return str(value)
    number = value.get("mean", value.get("value"))
    low_high = ", ".join(f"{end:.4g}" for end in value.get("interval") or ())
    return "" if number is None else f"{number:.4g}" + (f" [{low_high}]" if low_high else "")


def results_text(path: Path) -> str:
    """A page of one table: how it was made, means if it has them, its rows."""
    with path.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    about = {}
    if path.with_suffix(".json").is_file():
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    name = path.relative_to(ROOT / RESULTS).with_suffix("").as_posix()
    page = table_page(path)
    file = os.path.relpath(path, (ROOT / page).parent)
    text = [f"# {name}", f"{len(rows):,} rows: {{download}}`{path.name} <{file}>`."]
    if "command" in about:
        machine = about.get("machine") or about.get("device", "")
        text.append(f"Made by `{about['command']}` on {machine}, {about.get('date', '')}.")
    if about.get("results"):
        names = list(dict.fromkeys(name for row in about["results"] for name in row))
        means = [[figure(row.get(name, "")) for name in names] for row in about["results"]]
        text += ["## Means, with 95 % intervals", table(names, means)]
    if len(rows) > MOST_ROWS:
        text.append("Too many rows for a page: download the file.")
        return "\n\n".join(text) + "\n"
    alike = [i for i, _ in enumerate(head) if len({row[i] for row in rows}) == 1 and len(rows) > 1]
    text.append("## Every row")
    if alike:
        text.append("In all rows: " + ", ".join(f"{head[i]} `{rows[0][i]}`" for i in alike) + ".")
    shown = [i for i, _ in enumerate(head) if i not in alike]
    text.append(table([head[i] for i in shown], [[row[i] for i in shown] for row in rows]))
    return "\n\n".join(text) + "\n"
