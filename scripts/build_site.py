"""The site: static pages of the course, the docs, the tables and the code, in build/site/html.

    notebooks, *.md, data/results, docstrings ──write_source──► build/site/source ──sphinx──► html

Run by `make site`. Nothing is executed: notebooks are shown as they are stored.
Pages keep their places, so that links between them hold; a link to any other file of the
repository leads to where it lives. `--photos N` paints N photos of the gallery, 0 = all.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import nbformat
from course import blank, repository
from site_tables import RESULTS, ROOT, results_text, table_page

BUILD = ROOT / "build" / "site"
SOURCE, HTML = BUILD / "source", BUILD / "html"
MATHJAX = "mathjax-tex-svg.js"  # one file, fonts included; of MathJax 3.2.2
MATHJAX_SHA256 = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"
BLANK = "notebooks/blank/README.md"
SECTIONS = {  # of the contents, with their pages in order; missing ones are left out
    "The course": (
        "notebooks/[0-9]*.ipynb",
        BLANK,
        "notebooks/glossary.md",
        "docs/teaching.md",
    ),
    "See and try": ("gallery.md", "docs/recipes.md", "docs/app.md", "docs/full_scale.md"),
    "The evidence": (
        "docs/claims.md",
        "docs/questions.md",
        "docs/bench.md",
        "tables/index.md",
        "perco_lite/weights/README.md",
        "data/README.md",
    ),
    "The code": ("api/core.md", "api/coding.md"),
    "The project": ("CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md"),
}
HIDDEN = f"{RESULTS}/README.md"  # below tables/index.md


def notebook_titles() -> dict[str, tuple[str, str]]:
    """Number of each notebook: its page, its title."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
        found[path.stem[:2]] = path.stem, "".join(first["source"]).split("\n")[0].lstrip("# ")
    return found


@cache
def pages() -> dict[str, tuple[str, ...]]:
    """Pages of each section, as paths from the root; every one stands in one section."""
    taken: set[str] = {HIDDEN, "README.md"}
    sections = {}
    for name, patterns in SECTIONS.items():
        found = []
        for pattern in patterns:
            made = pattern.startswith(("gallery", "tables/", "api/"))
            paths = [ROOT / pattern] if made else sorted(ROOT.glob(pattern))
            found += [p.relative_to(ROOT).as_posix() for p in paths]
        sections[name] = tuple(page for page in dict.fromkeys(found) if page not in taken)
        taken |= set(sections[name])
    return sections


def every_page() -> set[str]:
    return {HIDDEN, "README.md", *sum(pages().values(), ())}


def link(target: str, page: str) -> str:
    """Where a link of a page leads to on the site: a page, a table, or the repository's file."""
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return target.replace(f"#{anchor}", f"#{anchor.lower()}") if not path else target
    place = os.path.normpath((Path(page).parent / path).as_posix())
    anchor = f"#{anchor.lower()}" if anchor else ""
    if (ROOT / place / "README.md").is_file() and f"{place}/README.md" in every_page():
        place = f"{place}/README.md"
    if place in every_page():
        place = "index.md" if place == "README.md" else place
    elif place.startswith(f"{RESULTS}/") and place.endswith(".csv"):
        place = table_page(ROOT / place)
    elif (ROOT / place).exists() and not re.search(r"\.(png|svg|jpe?g)$", place):
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        return f"{repository()}/{kind}/main/{place}"
    return os.path.relpath(place, Path(page).parent) + anchor


def on_site(text: str, page: str) -> str:
    """Markdown with its links as ``link`` has them; what stands in code stays."""
    pieces = re.split(r"(^```.*?^```|`[^`\n]+`)", text, flags=re.S | re.M)
    for number in range(0, len(pieces), 2):
        piece = re.sub(r"\[!\[([^\]]*)\]\([^)]*\)\]", r"[\1]", pieces[number])  # badges: as text
        pieces[number] = re.sub(
            r"\]\(([^)\s]+)\)", lambda match: f"]({link(match[1], page)})", piece
        )
    # a link's own text may hold code: `[`x`](y)` was cut in two
    return re.sub(r"(?<=`)\]\(([^)\s:]+)\)", lambda m: f"]({link(m[1], page)})", "".join(pieces))


def with_notebook(content: dict, page: str) -> dict:
    """A notebook for the site: links, texts for its pictures, solutions folded."""
    heading, solutions = "", False
    content["metadata"]["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            found = re.findall(r"^#+ (.*)", source, re.M)
            heading = found[-1] if found else heading
            solutions = solutions or any("Solutions" in one for one in found)
            cell["source"] = on_site(source, page)
            continue
        if solutions:
            cell["metadata"].setdefault("tags", []).append("hide-cell")
        if any("image/" in kind for o in cell["outputs"] for kind in o.get("data", {})):
            made = f"Picture made by the code above, in “{re.sub('[*`$]', '', heading)}”"
            text = cell["metadata"].get("alt", made)
            cell["metadata"]["mystnb"] = {"image": {"alt": text}}
        for output in cell["outputs"]:
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    return content


def write(path: str, text: str) -> None:
    (SOURCE / path).parent.mkdir(parents=True, exist_ok=True)
    (SOURCE / path).write_text(text, encoding="utf-8")


def contents(names: Iterable[str], caption: str = "", page: str = "index.md") -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    lines = [os.path.relpath(name, Path(page).parent) for name in names]
    return "\n".join(["", "```{toctree}", *options, "", *lines, "```", ""])


def write_blank() -> str:
    """The notebooks without solutions, and the list from which a page offers them."""
    lines = ["", "Or take one from here:", ""]
    for name, title in notebook_titles().values():
        made = blank(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4))
        write(f"notebooks/blank/{name}.ipynb", nbformat.writes(made))
        lines.append(f"- {{download}}`{title} <{name}.ipynb>`")
    return "\n".join(lines)


def write_pages() -> None:
    for page in every_page():
        if not (ROOT / page).is_file():
            continue  # written below
        text = (ROOT / page).read_text(encoding="utf-8")
        if page.endswith(".ipynb"):
            write(page, json.dumps(with_notebook(json.loads(text), page)))
            continue
        for picture in re.findall(r"\]\(([^):]+\.(?:png|svg|jpg))\)", text):
            target = SOURCE / Path(page).parent / picture
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / Path(page).parent / picture, target)
        text = on_site(text, page)
        if page == BLANK:
            text += write_blank()
        if page == "README.md":
            text += "".join(contents(names, title) for title, names in pages().items() if names)
            page = "index.md"
        write(page, text)


# --- tables, gallery, docstrings, formulas ---


def write_tables() -> None:
    paths = sorted((ROOT / RESULTS).rglob("*.csv"))
    for path in paths:
        target = SOURCE / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        write(table_page(path), results_text(path))
    listed = "\n".join(
        f"- [{table_page(p)[7:-3]}]({os.path.relpath(table_page(p), 'tables')})" for p in paths
    )
    names = [HIDDEN, *map(table_page, paths)]
    write(
        "tables/index.md",
        "# Tables that sort\n\nEvery figure of notebooks and pages is in one of these tables, and "
        f"[data/results](../{HIDDEN}) has the command that made each. The heading of a column "
        f"sorts by it.\n\n{listed}\n{contents(names, page='tables/index.md')}",
    )


def write_gallery(photos: int) -> None:
    from gallery import gallery_text, pictures

    folder, rows = pictures(BUILD / "gallery", photos)
    for row in rows:  # beside the page, for its addresses are those of the page
        names = [row["original"]]
        for one in row["files"].values():
            names += [one["picture"], one["avif"], one["perco"]]
        for name in names:
            HTML.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, HTML / name)
    text = (
        "# Gallery\n\nPhotos of scikit-image, at every rate of the bundled weights. A click on the "
        "bytes is the file itself: `perco decompress` paints the same picture from it. AVIF has no "
        "more bytes than ours, on fewer pixels where it must.\n\n"
    )
    write("gallery.md", text + "\n".join(map(gallery_text, rows)))


def write_api() -> None:
    house = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## The house")[2]
    listed = re.findall(r"^  (?:(\w+)\.py)(?:, (\w+)\.py)? ", house, re.M)  # as data flows
    core = [name for names in listed for name in names if name]
    core += sorted({p.stem for p in (ROOT / "perco_lite").glob("[a-z]*.py")} - set(core))
    coding = [f"coding.{p.stem}" for p in sorted((ROOT / "perco_lite/coding").glob("[a-z]*.py"))]
    titles = {
        "core": "The core: what the notebooks teach",
        "coding": "Coding: what a `.perco` file is made of",
    }
    names = {"core": core, "coding": coding}
    for room, modules in names.items():
        for name in modules:
            write(
                f"api/{name}.md",
                f"# perco_lite.{name}\n\n```{{eval-rst}}\n.. automodule:: perco_lite.{name}\n```\n",
            )
        listed = "\n".join(f"- [perco_lite.{name}]({name}.md)" for name in modules)
        pages = contents((f"api/{n}.md" for n in modules), page=f"api/{room}.md")
        write(f"api/{room}.md", f"# {titles[room]}\n\n{listed}\n{pages}")


def write_vendor() -> None:
    """MathJax, whole, from the package that carries it: formulas need no network."""
    files = importlib.metadata.files("sphinx-mathjax-offline") or ()
    (file,) = (one for one in files if one.as_posix().endswith("mathjax/tex-svg.js"))
    data = file.locate().read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != MATHJAX_SHA256:
        raise SystemExit(f"{file} has SHA-256 {found}, expected {MATHJAX_SHA256}: another release")
    (SOURCE / "_vendor").mkdir(parents=True, exist_ok=True)
    (SOURCE / "_vendor" / MATHJAX).write_bytes(data)


def main(photos: int = 0, jobs: str = "auto") -> None:
    for folder in (SOURCE, HTML):  # no page outlives its source
        shutil.rmtree(folder, ignore_errors=True)
    write_pages()
    write_tables()
    write_gallery(photos)
    write_api()
    write_vendor()
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", jobs]
    command += ["-c", str(ROOT / "docs" / "site"), "-d", str(BUILD / "doctrees")]
    subprocess.run([*command, str(SOURCE), str(HTML)], check=True)
    print(f"{HTML / 'index.html'}: open it in a browser")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photos", type=int, default=0, help="of the gallery, at most; 0 = all")
    parser.add_argument("--jobs", default="auto", help="processes of Sphinx")
    arguments = parser.parse_args()
    main(arguments.photos, arguments.jobs)
