"""The built site, and a browser to look at it; what is missing is skipped by name."""

import shutil
from pathlib import Path

import pytest

HTML = Path(__file__).parents[2] / "build" / "site" / "html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# none of these, or it looks up its maker's hosts at every start
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")


@pytest.fixture(scope="session")
def html() -> Path:
    if not (HTML / "index.html").is_file():
        pytest.skip("the site is not built; make site")
    return HTML


@pytest.fixture(scope="session")
def browser():
    driver = pytest.importorskip("playwright.sync_api", reason="needs the extra site")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on this machine; Debian: apt install chromium")
    with driver.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=[*QUIET])
        yield chromium
        chromium.close()
