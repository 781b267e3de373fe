"""What the tests of the course share: where the repository lies, and its pyproject.toml."""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
# hints and new words, which are no prose of the page; answers are folded as well, and are
FOLDED = r"<details>(?!<summary>Answer).*?</details>"
