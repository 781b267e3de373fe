"""Write the claims and verdicts of `perco claims` into the README, in short.

python docs/make_claims_table.py [data/results/claims]
"""

import re
import sys
from collections import Counter
from pathlib import Path

from perco_lite.claim_table import NOT_MEASURED, Judgement, judge, markdown
from perco_lite.claim_verdicts import VERDICTS

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


def main(folder: Path, page: Path = PAGE) -> None:
    block = text(judge(folder))
    found, count = re.subn(
        r"(<!-- perco claims -->\n).*?(\n?<!-- end -->)",
        lambda match: f"{match[1]}{block}\n<!-- end -->",
        page.read_text(encoding="utf-8"),
        flags=re.S,
    )
    if count != 1:
        sys.exit(f"{page} has {count} places for the table, expected one: <!-- perco claims -->")
    page.write_text(found, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]) if len(sys.argv) == 2 else RESULTS)
