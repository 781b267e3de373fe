"""What is shown: HTML whole in itself, true to the file, and safe with any text."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo, pixels
from perco_lite.app import panels
from perco_lite.coding.bitstream import unpack


def embedded(text):
    """Pictures inside HTML, in order."""
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(one))) for one in found]


@pytest.fixture(scope="module")
def file(tiny_codec):
    return unpack(tiny_codec.compress(make_photo(130, 70), "a red barn", "0.0098"))


def test_nothing_is_fetched(file):
    photo = make_photo()
    everything = [
        panels.result(panels.slider(photo, photo, "a", "b"), b"file"),
        panels.details(file, [("bytes", "1")]),
        panels.hexadecimal(b"abc"),
    ]
    for text in everything:
        assert "<script" not in text and "http" not in text
        assert all(a.startswith(("data:", "#")) for a in re.findall(r'(?:src|href)="([^"]*)', text))


def test_texts_are_escaped():
    bad = '<img src=x onerror="alert(1)">'
    photo = make_photo()
    for text in (
        panels.sentence(bad),
        panels.progress(bad, 1, 2),
        panels.picture(photo, bad, bad),
        panels.table([(bad, bad)]),
        panels.download(b"", bad, bad),
        panels.slider(photo, photo, bad, bad),
    ):
        assert bad not in text and "onerror=" + chr(34) not in text
        assert html.escape(bad) in text


def test_the_slider_holds_both_pictures():
    original, painted = make_photo(seed=1), make_photo(seed=2)
    below, above = embedded(panels.slider(original, painted, "original", "painted"))
    assert np.array_equal(pixels(below), pixels(painted)), "as it was painted, to the pixel"
    assert np.abs(pixels(above) - pixels(original)).mean() < 3


def test_a_link_holds_the_file():
    link = panels.download(b"\0perco", "photo.perco", "save")
    assert 'download="photo.perco"' in link
    assert base64.b64decode(re.search(r"base64,([^\"]+)", link)[1]) == b"\0perco"


def test_the_bar_is_as_long_as_the_bytes():
    bar = panels.byte_bar({"header": 6, "caption": 0, "indices": 1200})
    assert re.findall(r"flex:(\d+) 0 0", bar) == ["6", "1200"]
    assert "caption 0" in bar and "indices 1,200" in bar and "<b>1,206 bytes</b>" in bar


def test_the_map_tells_every_index(file):
    text = panels.index_map(file)
    (cells,) = embedded(text)
    h, w = file.indices.shape
    assert cells.size == (w, h)
    told = json.loads(html.unescape(re.search(r'data-told="([^"]*)"', text)[1]))
    assert told["codes"] == file.indices.ravel().tolist()
    assert told["bits"] == [10.0] * (h * w), "1,024 codes, no prior"
    colours = panels.code_colours(1024)
    assert np.array_equal(pixels(cells), colours[file.indices])
    assert len(np.unique(colours, axis=0)) > 1000


def test_bits_under_the_prior_add_up_to_the_file():
    from perco_lite.loading import load_codec

    try:
        codec = load_codec()
    except FileNotFoundError:
        pytest.skip("no bundled weights")
    file = unpack(codec.compress(make_photo(512, 512), "", rounds=0))
    if not file.header.prior_coded:
        pytest.skip("this file has no prior")
    bits = panels._bits_of_indices(file).sum()
    assert bits == pytest.approx(file.bits()["indices"]["model"])
    assert abs(bits / 8 - file.ledger["indices"]) < 2


def test_a_heat_map_by_hand():
    values = np.array([[0, 32, 64, 1000]])
    assert pixels(panels.heat_map(values, 64)).tolist() == [
        [[0, 0, 0], [255, 128, 0], [255, 255, 255], [255, 255, 255]]
    ]


def test_hexadecimal():
    text = panels.hexadecimal(bytes(range(18)), marked=[17])
    assert "<span>0000</span>  00 01" in text and "<span>0010</span>  10 <mark>11</mark>" in text
    long = panels.hexadecimal(bytes(6000), marked=[4000])
    starts = re.findall(r"<span>(\w+)</span>|(…)", long)
    assert [a or b for a, b in starts] == "0000 0010 … 0f90 0fa0 0fb0 …".split()
    assert long.count("<mark>") == 1
