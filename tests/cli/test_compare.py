"""`perco compare`: every picture of a line has our bytes or less, or there is none."""

import json

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo
from perco_lite import loading
from perco_lite.cli import compare
from perco_lite.cli.compare import draw_comparison

TWO = ("--rate", "0.0019", "--rate", "0.1250", "--steps", 1)


@pytest.fixture
def perco(perco, tiny_codec, monkeypatch):
    monkeypatch.setattr(loading, "load_codec", lambda *settings: tiny_codec)
    monkeypatch.setattr(compare, "caption_writer", lambda: lambda photo: "some blobs")
    return perco


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a.png"
    make_photo(96, 64).save(path)
    return path


def test_the_sheet_has_a_line_a_rate(perco, photo, tmp_path):
    code, out, err = perco("compare", photo, "--caption", "blobs", *TWO)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["0.0019", "0.1250"]
    assert "AVIF has no file so small (its smallest: " in lines[0]
    assert lines[2] == str(tmp_path / "a_compared.png")
    with Image.open(lines[2]) as sheet:
        assert sheet.width > 5 * 300 and sheet.info["Software"] == "perco_lite"


def test_nobody_has_more_bytes_than_ours(perco, photo, tmp_path):
    target = tmp_path / "sheet.png"
    code, out, err = perco("compare", photo, *TWO, "--against", "webp", "-o", target, "--json")
    report = json.loads(out)
    assert (code, err, report["output"]) == (0, "", str(target)) and target.exists()
    names = [one["name"] for one in report["files"]]
    assert names == ["perco_lite", "WebP", "perco_lite", "WebP"]
    assert report["files"][0]["caption"] == "some blobs"
    for ours, other in zip(report["files"][::2], report["files"][1::2], strict=True):
        assert other["target_bytes"] == ours["bytes"]
        assert other["reached"] == (other["bytes"] <= ours["bytes"])
        assert 0 < other["width"] <= 96 and 0 < other["height"] <= 64


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--against", "gif"), "got --against 'gif'; give some of avif, webp"),
        (("--against", " , "), "give some of avif"),
        (("-o", "sheet.jpg"), "name a file that ends in .png"),
        (("--rate", "0.5"), "got rate '0.5', not one of these weights"),
    ],
)
def test_bad_options_are_one_line(perco, photo, options, said):
    code, out, err = perco("compare", photo, *options)
    assert code == 2 and said in err and err.count("\n") == 1
    assert not photo.with_name("a_compared.png").exists()


def test_who_has_no_file_leaves_an_empty_place():
    photo = make_photo(96, 64)
    base = {"name": "X", "bytes": 90, "target_bytes": 90, "width": 96, "height": 64}
    ours = base | {"rate": "0.0019", "reached": True, "image": photo}
    none = base | {"bytes": 300, "reached": False, "image": photo}
    with_picture = np.asarray(draw_comparison(photo, [[ours, ours]]))
    without = np.asarray(draw_comparison(photo, [[ours, none]]))
    place = (slice(60, 200), slice(-300, -60))  # inside the third picture
    assert with_picture[place].std() > 5 and without[place].std() < 2
