"""Stored results: curves say what was measured, and what was not is an error, not a zero.

The published figures parse, say where they come from, and hold those the paper is known by.
"""

import importlib.metadata
import json
from types import SimpleNamespace

import matplotlib
import pytest

from perco_lite.evaluation.metrics.intervals import bootstrap_interval
from perco_lite.evaluation.results import (
    CurvePoint,
    PublishedPoint,
    data_folder,
    load_results,
    published_points,
)
from perco_lite.evaluation.scoring import PHOTO_METRICS
from perco_lite.plotting import draw_curve, draw_published

matplotlib.use("agg")

HEADER = "photo,codec,rate,bytes,psnr\n"
ROWS = "a.png,perco,0.0019,100,20\nb.png,perco,0.0019,120,22\na.png,jpeg,0.0019,900,\n"


def about(codec, rate, bpp=None, **figures):
    size = {} if bpp is None else {"bpp": {"mean": bpp, "interval": [bpp, bpp]}}
    return {"codec": codec, "rate": rate, "photos": 2, **size, **figures}


@pytest.fixture
def folder(tmp_path):
    """A table of three rows, with its summary."""
    psnr = {"mean": 21, "interval": [20, 22]}
    summary = {
        "made_by": "perco evaluate",
        "finished": True,
        "command": "perco evaluate kodak -o k.csv",
        "results": [
            about("perco", "0.0098", 0.01, psnr={"mean": 30}, kid={"missing": "lost"}),
            about("perco", "0.0019", 0.002, psnr=psnr, kid={"value": 50.0}),
            about("autoencoder", "", psnr=psnr),
            about("jpeg", "0.0019", 0.2, psnr=psnr, reached=0),
            about("jpeg", "0.0098", 0.2, psnr=psnr, reached=0),
        ],
    }
    (tmp_path / "k.csv").write_text(HEADER + ROWS)
    (tmp_path / "k.json").write_text(json.dumps(summary))
    return tmp_path


def test_a_curve_is_in_order_of_rate_and_of_what_was_measured(folder):
    results = load_results("k", folder)
    assert results.curve("perco", "psnr") == [
        CurvePoint("0.0019", 0.002, 21, 20, 22, None),
        CurvePoint("0.0098", 0.01, 30, 30, 30, None),
    ]

    (point,) = results.curve("perco", "kid")
    assert (point.value, point.low, point.high) == (50, 50, 50)
    with pytest.raises(ValueError, match="no fid of 'perco'; it was made by: perco evaluate"):
        results.curve("perco", "fid")

    (point,) = results.curve("jpeg", "psnr")  # the same file again is one
    assert (point.rate, point.reached) == ("0.0019", 0)


def test_values_leave_out_empty_cells(folder):
    results = load_results("k", folder)
    assert results.values("perco", "0.0019", "psnr") == {"a.png": 20, "b.png": 22}
    assert results.values("jpeg", "0.0019", "psnr") == {}
    for wrong in (("perco", "7", "psnr"), ("perco", "0.0019", "beauty")):
        with pytest.raises(ValueError, match="k has no"):
            results.values(*wrong)


def test_what_is_not_there_or_not_ours(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="README.md has the command"):
        load_results("nothing", folder)
    (folder / "k.json").write_text('{"made_by": "perco evaluate", "finished": false}')
    with pytest.raises(ValueError, match="did not finish; run its command again"):
        load_results("k", folder)
    (folder / "k.json").write_text('["no summary"]')
    with pytest.raises(ValueError, match="not from perco evaluate"):
        load_results("k", folder)


def test_a_package_without_its_repository_says_where_the_data_is(tmp_path, monkeypatch):
    assert (data_folder() / "results").is_dir()
    monkeypatch.setattr("perco_lite.evaluation.results._BESIDE", tmp_path / "none")
    monkeypatch.setattr("importlib.metadata.files", lambda name: None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="git clone"):
        data_folder()
    (tmp_path / "repository" / "data" / "results").mkdir(parents=True)
    assert data_folder().resolve() == tmp_path / "repository" / "data"


def test_an_installed_package_brings_the_tables(tmp_path, monkeypatch):
    folder = tmp_path / "share" / "perco_lite" / "data"
    (folder / "results").mkdir(parents=True)
    (folder / "reference_points.csv").write_bytes(
        (data_folder() / "reference_points.csv").read_bytes()
    )
    kept = importlib.metadata.PackagePath("share/perco_lite/data/captions.json")
    kept.dist = SimpleNamespace(locate_file=lambda path: tmp_path / path)
    monkeypatch.setattr("importlib.metadata.files", lambda name: [kept])
    monkeypatch.setattr("perco_lite.evaluation.results._BESIDE", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    assert data_folder() == folder and published_points("kodak")


STORED = [  # not those of other commands
    path.stem
    for path in sorted((data_folder() / "results").glob("*.json"))
    if '"made_by": "perco evaluate"' in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", STORED)
def test_stored_tables_and_summaries_agree(name):
    results = load_results(name)
    assert results.rows and not results.summary["skipped"]
    readme = (data_folder() / "results" / "README.md").read_text(encoding="utf-8")
    assert f"`{name}.csv`" in readme and results.command in readme
    assert results.command.startswith("perco evaluate "), "no path of one machine"
    for found in results.summary["results"]:
        for column in ("bytes", *(name for name in PHOTO_METRICS if name in results.rows[0])):
            values = results.values(found["codec"], found["rate"], column)
            if not values:
                continue
            mean = sum(values.values()) / len(values)
            assert found[column]["mean"] == pytest.approx(mean, rel=1e-5)
            if len(values) > 1:
                low, high = bootstrap_interval(values.values())
                assert found[column]["interval"] == pytest.approx([low, high], rel=1e-5)


def test_points_by_rate_need_no_bytes(folder):
    results = load_results("k", folder)
    assert results.rates("perco") and results.rates("nobody") == []
    for point in results.curve("perco", "psnr"):
        assert results.at("perco", point.rate, "psnr") == point
    assert results.at("autoencoder", "0.0019", "psnr").bpp is None, "the same at every rate"
    with pytest.raises(ValueError, match="k has no psnr of 'perco' at '7'"):
        results.at("perco", "7", "psnr")


@pytest.fixture
def axes():
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_ours_and_published_cannot_be_mistaken(axes, folder):
    results = load_results("k", folder)
    draw_curve(axes, "perco", results.curve("perco", "psnr"))
    draw_curve(axes, "autoencoder", results.curve("autoencoder", "psnr"))
    ours = [line for line in axes.get_lines() if line.get_linestyle() == "-"]
    assert ours and ours[0].get_xydata().tolist() == [[0.002, 21], [0.01, 30]]
    before = set(axes.get_lines())
    methods = ("PerCo (SD)", "nobody", "VTM")
    points = published_points("kodak", "PSNR")
    draw_published(axes, points, methods)
    theirs = [line for line in axes.get_lines() if line not in before]
    assert [line.get_label() for line in theirs] == [f"{m} (published)" for m in methods]
    assert len(theirs[2].get_xdata()) == sum(p.method == "VTM" for p in points) > 3
    for line in theirs:
        assert line.get_linestyle() == "--" and line.get_markerfacecolor() == "none"
        assert line.get_color() != ours[0].get_color()
    assert len({line.get_marker() for line in theirs}) == 3


def test_an_interval_beside_its_figure_can_be_drawn(axes):
    shifted = SimpleNamespace(bpp=0.1, value=5.0, low=5.1, high=6.0)
    draw_curve(axes, "unknown codec", [shifted])
    assert axes.get_legend_handles_labels()[1] == ["unknown codec"]


# --- figures that others published ---


def test_each_row_has_its_columns_a_source_and_a_likely_value():
    points = published_points()
    keys = [point[:4] + point[5:6] for point in points]
    assert len(points) > 300 and len(keys) == len(set(keys)), "no row is there twice"
    ranges = {"PSNR": (10, 50), "MS-SSIM": (0, 1), "LPIPS": (0, 1), "FID": (0, 300)}
    ranges["DISTS"] = (0, 1)
    ranges["KID"] = (-0.001, 0.3)  # unbiased: slightly below zero at best
    for point in points:
        assert all(text.strip() for text in (point.method, point.dataset, point.metric))
        assert point.source.startswith("github:"), point
        assert point.confidence.startswith(("read in", "digitised", "eyeballed")), point
        assert point.bpp is None or 0 < point.bpp < 1
        low, high = ranges[point.metric.split(" (")[0]]
        assert low <= point.value <= high, point
        assert point.photos in ("coco30k", "kodak", "clic2020")


def test_methods_of_our_figures_are_there():
    for photos, methods in {
        "coco30k": ["PerCo (official)", "PerCo (SD", "SD v2.1 auto-encoder"],
        "kodak": ["PerCo (SD)", "MS-ILLM", "HiFiC", "DiffEIC", "StableCodec", "BPG", "VTM"]
        + ["AEIC-ME", "AEIC-SE", "CoD (pixel)", "CoD (latent)", "RDEIC-2", "RDEIC-5"],
        "clic2020": ["PerCo (SD)", "MS-ILLM", "HiFiC", "DiffEIC", "StableCodec", "BPG", "VTM"]
        + ["AEIC-ME", "AEIC-SE", "RDEIC-2", "RDEIC-5"],
    }.items():
        names = {point.method for point in published_points(photos)}
        for method in methods:
            assert any(name.startswith(method) for name in names), (photos, method)


def test_the_papers_own_figures():
    """As reference/paper.md has them: FID 5.48 at 0.0042 bits per pixel, 1.02 at 0.1271."""
    official = [p for p in published_points("coco30k", "FID") if p.method == "PerCo (official)"]
    assert len(official) == 7
    assert official[0].bpp == pytest.approx(0.0042, abs=3e-4)
    assert official[0].value == pytest.approx(5.48, abs=0.02)
    assert official[-1].bpp == pytest.approx(0.1271, abs=3e-4)
    assert official[-1].value == pytest.approx(1.02, abs=0.02)
    bound = [p for p in published_points("coco30k", "LPIPS") if p.bpp is None]
    assert [p.value for p in bound] == [pytest.approx(0.065, abs=0.002)]

    # and of the field at the end of 2026, as reference/peers.md has them
    kodak = {(p.method, p.metric, p.bpp): p.value for p in published_points("kodak")}
    assert kodak["AEIC-SE", "LPIPS", 0.0041] == pytest.approx(0.342, abs=1e-3)
    assert kodak["CoD (latent)", "FID (CoD protocol)", 0.0039] == 45.7
    rdeic = [v for (m, metric, b), v in kodak.items() if (m, metric) == ("RDEIC-5", "LPIPS")]
    assert len(rdeic) == 5 and min(rdeic) < 0.203 < max(rdeic) + 1e-3

    found = {point.metric for point in published_points("clic2020", "FID")}
    assert "FID (256 patches)" in found and all(name.startswith("FID") for name in found)


def test_points_that_are_not_there_or_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="'div2k', expected one of coco30k, kodak, clic2020"):
        published_points("div2k")
    with pytest.raises(FileNotFoundError, match="git clone"):
        published_points(path=tmp_path / "none.csv")
    header = ",".join(PublishedPoint._fields)
    for text in ("a,b\n1,2\n", f"{header}\nX,Kodak,PSNR,0.1,good,s,c\n", f"{header}\nX,Kodak\n"):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match="expected the columns method, dataset"):
            published_points(path=tmp_path / "bad.csv")
