"""scripts/build_site.py: links keep their meaning, notebooks their outputs, tables figures."""

import importlib.util

import pytest

pytest.importorskip("nbformat")


@pytest.fixture
def site(load_script):
    return load_script("build_site")


def test_every_page_stands_in_one_section(site):
    pages = sum(site.pages().values(), ())
    assert len(pages) == len(set(pages))
    assert {"docs/claims.md", "gallery.md", "tables/index.md", "CONTRIBUTING.md"} <= set(pages)
    course = site.pages()["The course"]
    assert course[0] == "notebooks/00_start_here.ipynb" and len(course) >= 13


@pytest.mark.parametrize(
    ("target", "page", "expected"),
    [
        ("docs/claims.md", "README.md", "docs/claims.md"),
        ("../notebooks/00_start_here.ipynb", "docs/claims.md", "../notebooks/00_start_here.ipynb"),
        (
            "00_start_here.ipynb#The-map-of-the-course",
            "notebooks/03_vector_quantization.ipynb",
            "00_start_here.ipynb#the-map-of-the-course",
        ),
        ("#Here", "README.md", "#here"),
        ("blank/", "notebooks/00_start_here.ipynb", "blank/README.md"),
        ("../README.md", "docs/claims.md", "../index.md"),
        ("data/results", "README.md", "data/results/README.md"),
        ("../data/results/rates.csv", "docs/bench.md", "../tables/rates.md"),
        ("docs/strip.png", "README.md", "docs/strip.png"),
        ("https://arxiv.org/abs/2310.10325", "README.md", "https://arxiv.org/abs/2310.10325"),
    ],
)
def test_a_link_leads_to_the_page(site, target, page, expected):
    assert site.link(target, page) == expected


def test_a_link_to_other_files_leads_to_the_repository(site):
    address = site.repository()
    assert site.link("../LICENSE", "docs/claims.md") == f"{address}/blob/main/LICENSE"
    assert site.link("tests", "README.md") == f"{address}/tree/main/tests"
    assert site.link("gone.md", "README.md") == "gone.md", "which Sphinx then warns of"


def test_text_is_changed_where_it_links_only(site):
    text = "[a](LICENSE) `[a](LICENSE)` [`b`](LICENSE)\n```\n[a](LICENSE)\n```\n"
    there = f"{site.repository()}/blob/main/LICENSE"
    expected = f"[a]({there}) `[a](LICENSE)` [`b`]({there})\n```\n[a](LICENSE)\n```\n"
    assert site.on_site(text, "README.md") == expected
    assert site.on_site("[![Open](http://badge.svg)](http://x.y/z)", "README.md") == (
        "[Open](http://x.y/z)"
    )


def test_notebooks_keep_outputs_and_gain_texts_for_pictures(site):
    def code(**data):
        output = {"output_type": "execute_result", "data": data, "metadata": {}}
        return {"cell_type": "code", "source": ["x"], "metadata": {}, "outputs": [output]}

    cells = [
        {"cell_type": "markdown", "source": ["## See *it*\n"], "metadata": {}},
        code(**{"image/png": "AA", "text/plain": "x"}),
        code(**{"application/vnd.jupyter.widget-view+json": {}, "text/plain": "knobs"}),
        {"cell_type": "markdown", "source": ["## Solutions"], "metadata": {}},
        code(**{"text/plain": "42"}),
    ]
    made = site.with_notebook({"cells": cells, "metadata": {}}, "notebooks/x.ipynb")["cells"]
    assert made[1]["metadata"]["mystnb"]["image"]["alt"].endswith("in “See it”")
    assert made[1]["outputs"][0]["data"] == {"image/png": "AA", "text/plain": "x"}
    assert made[2]["outputs"][0]["data"] == {"text/plain": "knobs"}
    assert "tags" not in made[1]["metadata"] and made[4]["metadata"]["tags"] == ["hide-cell"]


def test_a_picture_keeps_the_words_that_its_cell_has(site):
    output = {"output_type": "display_data", "data": {"image/png": "AA"}, "metadata": {}}
    cell = {"cell_type": "code", "source": ["x"], "outputs": [output]}
    cell["metadata"] = {"alt": "A line that rises."}
    made = site.with_notebook({"cells": [cell], "metadata": {}}, "notebooks/x.ipynb")["cells"]
    assert made[0]["metadata"]["mystnb"]["image"]["alt"] == "A line that rises."


def test_a_table_has_command_means_and_every_row(load_script, tmp_path, monkeypatch):
    tables = load_script("site_tables")
    folder = tmp_path / tables.RESULTS
    folder.mkdir(parents=True)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    (folder / "a.csv").write_text("photo,seed,psnr\na<b.png,0,20.5\nc.png,0,21\n")
    (folder / "a.json").write_text(
        '{"command": "perco x", "machine": "M", "date": "2026-01-01", "results": '
        '[{"codec": "perco", "psnr": {"mean": 20.75, "interval": [20.5, 21]}}]}'
    )
    text = tables.results_text(folder / "a.csv")
    assert "2 rows: {download}`a.csv <../data/results/a.csv>`." in text
    assert "Made by `perco x` on M, 2026-01-01." in text
    assert "<td>20.75 [20.5, 21]</td>" in text
    assert "<td>a&lt;b.png</td><td>20.5</td>" in text and "In all rows: seed `0`." in text
    monkeypatch.setattr(tables, "MOST_ROWS", 1)
    assert "Too many rows" in tables.results_text(folder / "a.csv")


def test_the_gallery_says_what_avif_cannot(load_script):
    gallery = load_script("gallery")
    one = {"bytes": 90, "perco": "a.perco", "picture": "a.webp", "avif": "b.webp"}
    one |= {"avif_bytes": 310, "avif_size": [9, 6], "reached": False}
    row = {"name": "a", "caption": "a cat", "width": 9, "height": 6, "original": "o.webp"}
    text = gallery.gallery_text(row | {"files": {"0.0019": one}})
    assert text.startswith("## A cat\n") and "AVIF has no file so small; its smallest, 310" in text
    assert 'href=\\"a.perco\\"' in text and "</script>" in text
    near = one | {"avif_bytes": 88, "reached": True}
    text = gallery.gallery_text(row | {"files": {"0.0019": near}})
    assert "AVIF: 88 bytes, sent as 9×6 pixels and enlarged." in text


def test_the_gallery_is_painted_once(load_script, tiny_codec, tmp_path, monkeypatch):
    from conftest import make_photo
    from perco_lite import loading
    from perco_lite.data import Sample
    from perco_lite.evaluation.codecs.classical import available

    if not available()["avif"]:
        pytest.skip("this Pillow has no AVIF")
    gallery = load_script("gallery")
    photos = [Sample(f"{name}.png", make_photo(64, 48), "blobs", "test") for name in "ab"]
    monkeypatch.setattr(gallery, "skimage_photos", lambda: photos)
    monkeypatch.setattr(loading, "load_codec", lambda *settings: tiny_codec)
    folder, rows = gallery.pictures(tmp_path, 1)
    assert [row["name"] for row in rows] == ["a"] and len(rows[0]["files"]) == 4
    for rate, one in rows[0]["files"].items():
        assert len((folder / one["perco"]).read_bytes()) == one["bytes"], rate
        assert one["reached"] == (one["avif_bytes"] <= one["bytes"])
        assert (folder / one["picture"]).is_file() and (folder / one["avif"]).is_file()
    monkeypatch.setattr(loading, "load_codec", lambda *settings: pytest.fail("painted again"))
    assert gallery.pictures(tmp_path, 1) == (folder, rows)


def test_docstrings_become_pages(site):
    """What autodoc shows: flows as they stand, stars and pipes as such, a link to the notebook."""
    spec = importlib.util.spec_from_file_location("site_conf", site.ROOT / "docs/site/conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)

    def rest(text: str) -> str:
        lines = text.split("\n")
        conf.as_rest(None, "module", "name", None, None, lines)
        return "\n".join(lines)

    assert rest("One.\n\n    a ──► b*c\n\nTwo.") == (
        "One.\n\n.. code-block:: text\n\n        a ──► b*c\n\nTwo."
    )
    assert rest("A `*.perco` file of ``Rate``s * 2 | 3") == (
        r"A ``*.perco`` file of ``Rate``\ s \* 2 \| 3"
    )
    assert rest("x\n\nPaper: A.\nDiffers from the paper: b.") == (
        "x\n\n**Paper:** A.\n\n**Differs from the paper:** b."
    )
    assert rest("Args:\n    one: a\n        thing.\n    two: b.") == (
        "**Args**\n\n- one: a thing.\n- two: b."
    )
    page, title = conf.TITLES["03"]
    assert (
        rest("Taught in notebook 03.") == f"Taught in notebook :doc:`{title} </notebooks/{page}>`."
    )
