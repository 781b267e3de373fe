"""Keep the tables of `perco evaluate` in data/results/, and list them in its README.

python scripts/keep_results.py out/kodak.csv …

The pictures stay where they are. The command is kept as typed, without the folder of the program.
"""

import json
import re
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "data" / "results"
MARKS = "<!-- perco evaluate -->", "<!-- end -->"


def keep(table: Path, results: Path) -> None:
    """Copy a finished table and its summary; ``ValueError`` for one that is not."""
    summary = table.with_suffix(".json")
    about = json.loads(summary.read_text(encoding="utf-8"))
    if not about["finished"] or about["skipped"]:
        raise ValueError(f"{table} is not whole; run its command again")
    words = shlex.split(about["command"])
    about["command"] = shlex.join([Path(words[0]).name, *words[1:]])
    made = datetime.fromtimestamp(summary.stat().st_mtime, timezone.utc)
    about["date"] = made.date().isoformat()
    results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(about, indent=1, ensure_ascii=False)
    (results / summary.name).write_text(text + "\n", encoding="utf-8")
    (results / table.name).write_bytes(table.read_bytes())


def listing(results: Path) -> str:
    """Markdown: a row for each table that `perco evaluate` made."""
    rows = ["| file | photos | command | device | date |", "|---|---|---|---|---|"]
    for path in sorted(results.glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        if about.get("made_by") != "perco evaluate":
            continue
        photos = f"{about['photos']} of {about['settings']['dataset']}"
        files = f"`{path.stem}.csv`, `{path.name}`"
        cells = files, photos, f"`{about['command']}`", about["machine"], about["date"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main(tables: list[Path]) -> None:
    for table in tables:
        keep(table, RESULTS)
    readme = RESULTS / "README.md"
    text = readme.read_text(encoding="utf-8")
    first, last = map(re.escape, MARKS)
    fresh = f"{MARKS[0]}\n{listing(RESULTS)}\n{MARKS[1]}"
    text, found = re.subn(f"{first}.*{last}", lambda _: fresh, text, flags=re.S)
    if found != 1:
        raise ValueError(f"{readme}: expected the marks {MARKS} once")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])
