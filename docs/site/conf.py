"""Sphinx's settings for the site; `make site` (scripts/build_site.py) writes the pages it reads.

Docstrings of this house are plain text with indented data flows; ``as_rest`` makes them pages.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from build_site import MATHJAX, SOURCE, notebook_titles, repository  # noqa: E402

import perco_lite  # noqa: E402

project, author = "perco_lite", "The perco_lite contributors"
copyright = "the perco_lite contributors, Apache-2.0"
release = version = perco_lite.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
exclude_patterns = ["_build", "notebooks/blank/*.ipynb"]

nb_execution_mode = "off"  # as stored
nb_merge_streams = True
nb_ipywidgets_js = {}  # nothing from another host
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # quiz cells begin with a heading of the third level
mathjax_path = MATHJAX
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
default_role = "code"

html_theme = "sphinx_book_theme"
html_title = "perco_lite"
html_static_path = [str(Path(__file__).parent / "static"), str(SOURCE / "_vendor")]
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"}), ("gallery.js", {"defer": "defer"})]
html_show_sourcelink = False
html_show_search_summary = False  # it would fetch the pages, which a file:// address cannot
html_copy_source = True  # the download button
html_context = {"default_mode": "auto"}
html_theme_options = {
    "repository_url": repository(),
    "repository_branch": "main",
    "path_to_docs": "",
    "navbar_persistent": [],  # the contents have the search field
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": True,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

TITLES = notebook_titles()


def as_rest(app, what, name, obj, options, lines: list[str]) -> None:
    """Indented blocks and lists as they stand, stars as stars, and a link to the notebook."""
    text = "\n".join(lines).strip("\n").replace("*", r"\*").replace("|", r"\|")
    text = re.sub(r"(?<!`)(``.*?``)", lambda m: m[0].replace("\\", ""), text, flags=re.S)
    text = re.sub(r"(?<!`)(`[^`]+`)(?!`)", lambda m: f"`{m[0].replace(chr(92), '')}`", text)
    text = re.sub(r"(``[^`]+``)([\w(]?)", lambda m: rf"{m[1]}\ {m[2]}" if m[2] else m[1], text)
    text = re.sub(r"^(Paper|Differs from the paper): ", r"\n**\1:** ", text, flags=re.M)
    blocks = []
    for block in re.split(r"\n{2,}", text):
        head, *rest = block.split("\n")
        drawn = re.search("[─►▼│└┬]", block) or block.startswith("  ")
        if drawn:  # a data flow, a table of values
            inside = "\n".join(f"    {line}" for line in block.replace("\\", "").split("\n"))
            blocks.append(f".. code-block:: text\n\n{inside}")
        elif re.fullmatch(r"[A-Z]\w+:", head):  # Args:, Raises:
            items = re.split(r"\n(?=    \S)", "\n" + "\n".join(rest))
            items = [" ".join(item.split()) for item in items if item.strip()]
            blocks.append(f"**{head[:-1]}**\n\n" + "\n".join(f"- {item}" for item in items))
        else:
            blocks.append(block)
    text = "\n\n".join(blocks)
    lines[:] = re.sub(r"^Taught in notebooks? .*$", _links, text, flags=re.M).split("\n")


def _links(match: re.Match) -> str:
    def link(number: re.Match) -> str:
        page, title = TITLES[number[0]]
        return f":doc:`{title} </notebooks/{page}>`"

    return re.sub(r"\d\d", link, match[0])


def setup(app) -> None:
    app.connect("autodoc-process-docstring", as_rest)
