"""Print pyproject.toml's requirements, each at the lowest release it allows, for pip's ``-c``.

    python scripts/oldest.py > oldest.txt
    pip install -c oldest.txt -e ".[test]"

What these need in turn comes as new as they allow. ``make test-oldest`` runs the tests on that.
"""

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:  # the environment is still empty
    from pip._vendor import tomli as tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest(requirement: str) -> str:
    """``name>=1.2; marker`` -> ``name==1.2; marker``; ValueError for a requirement of no bound."""
    name, *marker = requirement.split(";")
    if not re.search(r"[>=]=\s*\d", name):
        raise ValueError(f"{requirement!r} names no lowest release; write {name.strip()}>=…")
    return ";".join([name.replace(">=", "==").split(",")[0], *marker])


def main() -> None:
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    for requirement in sorted(set(project["dependencies"]).union(*extras)):
        print(lowest(requirement))


if __name__ == "__main__":
    main()
