"""The published figures parse, say where they come from, and hold those the paper is known by."""

import math

import pytest

from perco_lite.evaluation.published import PublishedPoint, published_points


@pytest.fixture(scope="module")
def points():
    return published_points()


def test_each_row_has_its_columns_and_a_source(points):
    assert len(points) > 300
    for point in points:
        assert all(text.strip() for text in (point.method, point.dataset, point.metric))
        assert point.source.startswith("github:"), point
        assert point.confidence.startswith(("read in", "digitised", "eyeballed")), point
        assert point.bpp is None or 0 < point.bpp < 1
        assert math.isfinite(point.value)
        assert point.photos in ("coco30k", "kodak", "clic2020")


def test_no_row_is_there_twice(points):
    keys = [point[:4] + point[5:6] for point in points]
    assert len(keys) == len(set(keys))


def test_values_are_in_the_range_of_their_metric(points):
    ranges = {"PSNR": (10, 50), "MS-SSIM": (0, 1), "LPIPS": (0, 1), "FID": (0, 300)}
    ranges["KID"] = (-0.001, 0.3)  # unbiased: slightly below zero at best
    for point in points:
        low, high = ranges[point.metric.split(" (")[0]]
        assert low <= point.value <= high, point


def test_methods_of_our_figures_are_there(points):
    for photos, methods in {
        "coco30k": ["PerCo (official)", "PerCo (SD", "SD v2.1 auto-encoder"],
        "kodak": ["PerCo (SD)", "MS-ILLM", "HiFiC", "DiffEIC", "StableCodec", "BPG", "VTM"],
        "clic2020": ["PerCo (SD)", "MS-ILLM", "HiFiC", "DiffEIC", "StableCodec", "BPG", "VTM"],
    }.items():
        names = {point.method for point in published_points(photos)}
        for method in methods:
            assert any(name.startswith(method) for name in names), (photos, method)


def test_the_papers_own_figures(points):
    """As reference/paper.md has them: FID 5.48 at 0.0042 bits per pixel, 1.02 at 0.1271."""
    official = [p for p in published_points("coco30k", "FID") if p.method == "PerCo (official)"]
    assert len(official) == 7
    assert official[0].bpp == pytest.approx(0.0042, abs=3e-4)
    assert official[0].value == pytest.approx(5.48, abs=0.02)
    assert official[-1].bpp == pytest.approx(0.1271, abs=3e-4)
    assert official[-1].value == pytest.approx(1.02, abs=0.02)
    bound = [p for p in published_points("coco30k", "LPIPS") if p.bpp is None]
    assert [p.value for p in bound] == [pytest.approx(0.065, abs=0.002)]


def test_metric_finds_all_its_protocols():
    found = {point.metric for point in published_points("clic2020", "FID")}
    assert "FID (256 patches)" in found and all(name.startswith("FID") for name in found)


def test_errors_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="'div2k', expected one of coco30k, kodak, clic2020"):
        published_points("div2k")
    with pytest.raises(FileNotFoundError, match="git clone"):
        published_points(path=tmp_path / "none.csv")
    header = ",".join(PublishedPoint._fields)
    for text in ("a,b\n1,2\n", f"{header}\nX,Kodak,PSNR,0.1,good,s,c\n", f"{header}\nX,Kodak\n"):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match="expected the columns method, dataset"):
            published_points(path=tmp_path / "bad.csv")
