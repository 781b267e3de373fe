"""Figures in a page, between marks: what the scripts of this folder put into README and model card.

<!-- NAME -->
… written by a script …
<!-- end -->
"""

import re
from pathlib import Path

from perco_lite.files import write_whole


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
