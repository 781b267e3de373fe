"""The built site as its readers meet it: every link leads somewhere, pages open, nothing is fetched
from another host, everybody can use it."""

import json
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

PAGES = (
    "index.html",
    "notebooks/03_vector_quantization.html",
    "gallery.html",
    "tables/rates.html",
    "api/codec.html",
)
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SERIOUS = {"serious", "critical"}  # of axe's four grades


class Links(HTMLParser):
    """Addresses that a page refers to, those that it loads, and places in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loads, self.places = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.add(found["href"])
        if tag in ("img", "script", "source", "iframe") and found.get("src"):
            self.loads.add(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.add(found["href"])


@cache
def read(page: Path) -> Links:
    return Links(page.read_text(encoding="utf-8"))


def test_every_link_leads_somewhere(html):
    pages = sorted(set(html.rglob("*.html")) - set(html.glob("_static/*")))
    assert len(pages) > 60
    broken = []
    for page in pages:
        for address in read(page).links | read(page).loads:
            if re.match(r"[a-z]+:|//|#$", address):
                continue
            path, _, place = unquote(address).partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not target.exists():
                broken.append(f"{page.relative_to(html)}: {address}")
            elif place and target.suffix == ".html" and place not in read(target).places:
                broken.append(f"{page.relative_to(html)}: no place {address}")
    assert not broken, broken[:20]


def test_nothing_is_loaded_from_another_host(html):
    for page in set(html.rglob("*.html")) - set(html.glob("_static/*")):
        foreign = [one for one in read(page).loads if re.match(r"(https?:)?//", one)]
        assert not foreign, f"{page.relative_to(html)} loads {foreign}"


def test_notebooks_stand_as_they_are_stored(html):
    text = (html / "notebooks/03_vector_quantization.html").read_text(encoding="utf-8")
    assert text.count("cell_output") > 10 and 'class="math' in text
    assert "colab.research.google.com/github/" in text and "_sources/notebooks/03" in text
    assert 'class="left-prev"' in text and 'class="right-next"' in text
    pictures = re.findall(r'<img alt="([^"]*)" src="\.\./_images/', text)
    assert len(pictures) > 5 and not any("made by the code above" in alt for alt in pictures)


def test_blank_notebooks_are_offered(html):
    page = html / "notebooks/blank/README.html"
    offered = [one for one in read(page).links if one.endswith(".ipynb")]
    assert len(offered) == 17
    for one in offered:
        notebook = json.loads((page.parent / one).read_text(encoding="utf-8"))
        assert not any(cell.get("outputs") for cell in notebook["cells"])


def test_the_code_is_explained(html):
    codec = (html / "api/codec.html").read_text(encoding="utf-8")
    assert "Paint the photo (or photos) back" in codec and "notebooks/00_start_here.html" in codec
    assert (html / "api/coding.range_coder.html").is_file()


@pytest.fixture
def open_page(html, browser):
    """Open a page of the site at a size: what went wrong, asked for, or was complained of."""
    opened = []

    def open_it(name, size="desktop", colours="light"):
        width, height = SIZES[size]
        viewport = {"width": width, "height": height}
        page = browser.new_page(viewport=viewport, color_scheme=colours)
        opened.append(page)
        page.faults = []
        local = ("file:", "data:", "blob:")
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", lambda request: page.faults.append(request.url))
        page.on("request", lambda r: None if r.url.startswith(local) else page.faults.append(r.url))
        name, mark, query = name.partition("?")
        page.goto((html / name).as_uri() + mark + query, wait_until="load")
        return page

    yield open_it
    for page in opened:
        page.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_pages_open_and_fit(open_page, name, size):
    page = open_page(name, size)
    if "notebooks" in name:
        page.wait_for_selector("mjx-container svg", timeout=60_000)
    assert not page.faults
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "scrolls sideways"
    assert page.locator(".bd-article h1").is_visible()


@pytest.mark.parametrize(("size", "colours"), [("desktop", "light"), ("phone", "dark")])
@pytest.mark.parametrize("name", PAGES)
def test_no_serious_fault_of_accessibility(open_page, name, size, colours):
    axe = pytest.importorskip("axe_playwright_python", reason="needs the extra site")
    page = open_page(name, size, colours)
    page.add_script_tag(path=Path(axe.__file__).parent / "axe.min.js")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    faults = [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in SERIOUS
    ]
    assert not faults


def test_tables_sort(open_page):
    page = open_page("tables/rates.html")
    table = page.locator("table").first

    def column(number):
        cells = table.locator(f"tbody tr td:nth-child({number})").all_inner_texts()
        return [float(cell.split(" ")[0]) for cell in cells if cell]

    heads = table.locator("thead th")
    names = [name.strip() for name in heads.all_inner_texts()]
    number = names.index("psnr") + 1
    before = column(number)
    for descending in (False, True):
        heads.nth(number - 1).get_by_role("button").click()
        assert column(number) == sorted(before, reverse=descending) != before
    assert heads.nth(number - 1).get_attribute("aria-sort") == "descending"


def test_the_gallery_compares(open_page):
    page = open_page("gallery.html")
    photo = page.locator(".gallery-photo").first
    ours, above = (photo.locator(".photo-pair img").nth(i) for i in (0, 1))
    assert photo.locator("input[name$=rate]").count() == 4
    first = ours.get_attribute("src")
    photo.locator("input[name$=rate]").first.check()
    assert ours.get_attribute("src") != first and "bytes" in photo.locator(".about").inner_text()
    original = above.get_attribute("src")
    photo.get_by_label("AVIF of the same bytes").check()
    assert above.get_attribute("src") != original
    assert "AVIF" in photo.locator(".about").inner_text()
    assert above.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 100
    photo.locator("input[type=range]").fill("80")
    assert "80%" in photo.locator(".photo-pair").get_attribute("style")
    assert not page.faults


def test_the_search_works_without_a_server(open_page):
    page = open_page("search.html?q=codebook")
    page.wait_for_selector("#search-results li a", timeout=60_000)
    assert page.locator("#search-results li").count() > 3 and not page.faults
