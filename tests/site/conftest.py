"""The built site; where it is missing, its tests are skipped by name."""

from pathlib import Path

import pytest

HTML = Path(__file__).parents[2] / "build" / "site" / "html"


@pytest.fixture(scope="session")
def html() -> Path:
    if not (HTML / "index.html").is_file():
        pytest.skip("the site is not built; make site")
    return HTML
