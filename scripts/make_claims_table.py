"""Write the claims and verdicts of `perco claims` into the README, and who made which table.

python scripts/make_claims_table.py [data/results/claims]   README.md, and the folder's README.md
"""

import csv
import json
import sys
from collections import Counter
from pathlib import Path

from marked import fill

from perco_lite.claims.claim import Judgement
from perco_lite.claims.claim_list import CLAIMS
from perco_lite.claims.table import NOT_MEASURED, judge, markdown
from perco_lite.claims.verdicts import VERDICTS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
RESULTS = ROOT / "data" / "results" / "claims"


def text(judgements: list[Judgement]) -> str:
    """Markdown: how many of each verdict, and the table without where and why."""
    counts = Counter(one.verdict for one in judgements)
    said = [f"{counts[name]} *{name}*" for name in (*VERDICTS, NOT_MEASURED) if counts[name]]
    head = (
        f"{len(judgements)} claims: {', '.join(said)}. Intervals are over photos; where each claim "
        "was read, its command and its limits are in [10_claims](notebooks/10_claims.ipynb)."
    )
    return f"{head}\n\n{markdown(judgements)}"


def files(folder: Path) -> str:
    """Markdown: file, command, device and date of each table, from the JSON beside it."""
    lines = ["| file | rows | command | CPU seconds | photos | date |", "|---" * 6 + "|"]
    devices = set()
    for path in sorted(folder.glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        table = path.with_suffix(".csv")
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        photos = len({row["photo"] for row in rows} - {""})
        names = [f"`{one.name}`" for one in (table, folder / f"{path.stem}_sets.csv")]
        names = names[: 1 + (folder / f"{path.stem}_sets.csv").exists()]
        made = f"`{about['command']}`"
        facts = (len(rows), made, about["cpu_seconds"], photos, about["date"])
        lines.append(f"| {', '.join(names)} | " + " | ".join(map(str, facts)) + " |")
        versions = ", ".join(f"{name} {value}" for name, value in about["versions"].items())
        devices.add(f"{about['device']}; weights {about['model_id']}; {versions}")
    return (
        "# data/results/claims\n\nWhat `perco claims` measured, for the table of claims in "
        "`notebooks/10_claims.ipynb`. `NAME.csv` has a row a photo and setting, `NAME_sets.csv` a "
        "row a draw of the photos (0: all of them) and setting, `NAME.json` the command, settings, "
        "device and versions. `PERCO_LITE_DATA` was a folder as `data/README.md` describes.\n\n"
        + "\n".join(lines)
        + "\n\n"
        + "\n\n".join(sorted(devices))
        + ".\n"
    )


def main(folder: Path, page: Path = PAGE) -> None:
    (folder / "README.md").write_text(files(folder), encoding="utf-8")
    fill(page, "perco claims", text(judge(folder, CLAIMS)))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else RESULTS)
