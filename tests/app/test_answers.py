"""Answers to visitors, without a page: photos to files, files to pictures, damage, rivals."""

import base64
import re

import numpy as np
import pytest

from conftest import make_photo, pixels
from perco_lite.app.answers import Answers, check_options, decode_file, encode_file
from perco_lite.app.damage import MAX_FLIPS, flip_bits, what_follows
from perco_lite.app.rivals import draw_rivals
from perco_lite.coding.bitstream import unpack
from perco_lite.evaluation.codecs.classical import smallest
from tests.app.test_intake import encoded
from tests.app.test_panels import embedded

CAPTION = "a red barn beside a pond"


def last(parts):
    """All that the page shows in the end."""
    page = {}
    for changed in parts:
        page |= changed
    return page


@pytest.fixture(scope="module")
def photo():
    return make_photo(200, 130)


@pytest.fixture(scope="module")
def page(answers, photo):
    return last(answers.compress(encoded(photo), CAPTION, "0.0313", 2, 0, 3))


def test_a_photo_becomes_a_file_and_a_picture(page, photo, tiny_codec):
    data = decode_file(page["file"])
    assert data == tiny_codec.compress(photo, CAPTION, "0.0313")
    painted = embedded(page["result"])[0]
    assert np.abs(pixels(painted) - pixels(tiny_codec.decompress(data, 2, seed=3))).max() <= 1
    saved = re.search(r'download="photo.perco" href="data:[^,]+,([^"]+)"', page["result"])[1]
    assert base64.b64decode(saved) == data
    assert f"<b>0.0313: {len(data):,} bytes</b>" in page["rates"] and page["status"] == ""
    for name in ("PSNR", "LPIPS", "bits per pixel", "seconds", "caption"):
        assert name in page["details"]


def test_progress_comes_before_the_picture(answers, photo):
    seen = list(answers.compress(encoded(photo), CAPTION, "0.0019", 3, 0, 0))
    kinds = [next(iter(parts)) for parts in seen]
    assert seen[0]["status"] and kinds.index("result") > 4
    steps = [re.search(r'value="(\d)" max="3"', parts.get("status", "")) for parts in seen]
    assert [found[1] for found in steps if found] == ["0", "1", "2", "3"]


def test_the_file_is_painted_from_itself_alone(page, painter, tiny_codec):
    """By other answers, as in another process: the same picture."""
    opened = Answers(painter).take_file(decode_file(page["file"]))
    assert "200×130, rate 0.0313" in opened["about_file"] and CAPTION in opened["about_file"]
    shown = last(Answers(painter).paint(opened["file"], 2, 0, 3))
    again, before = embedded(shown["result"])[0], embedded(page["result"])[0]
    assert np.abs(pixels(again) - pixels(before)).max() <= 1
    assert "PSNR" not in shown["details"], "the original is not there"


def test_taking_a_photo_forgets_the_last_one(answers, photo):
    taken = answers.take_photo(encoded(make_photo(1000, 1000)))
    assert taken["photo"].size == (627, 627) and "shrunk from 1,000×1,000" in taken["about"]
    assert taken["caption"] == taken["file"] == taken["result"] == ""
    written = Answers(answers.painter, lambda image: f"{image.width} wide")
    assert written.take_photo(encoded(photo))["caption"] == "200 wide"


def test_a_photo_taken_away_is_gone(answers):
    gone = answers.take_photo(None)
    assert gone["file"] == gone["result"] == gone["caption"] == gone["about"] == ""
    assert "photo" not in gone, "a picture may be on its way from the clipboard"


def test_several_seeds_and_where_they_differ(answers, page):
    shown = last(answers.seeds(page["file"], 1, 0, 5, 3))["seeds"]
    assert len(embedded(shown)) == 4 and "seed 7" in shown and "standard deviation" in shown
    for count in (1, 7):
        with pytest.raises(ValueError, match="expected 2 to 6"):
            next(answers.seeds(page["file"], 1, 0, 5, count))


def test_flipped_bits_by_hand():
    damaged, places = flip_bits(bytes(4), 3, 1)
    assert sum(byte.bit_count() for byte in damaged) == len(places) == 3
    for place in places:
        assert damaged[place // 8] & 0x80 >> place % 8
    assert flip_bits(bytes(4), 3, 1) == (damaged, places) != flip_bits(bytes(4), 3, 2)
    assert flip_bits(b"\1", 8, 0)[0] == b"\xfe"
    for count in (0, 33, MAX_FLIPS + 1):
        with pytest.raises(ValueError, match="bits to flip"):
            flip_bits(bytes(4), count, 0)


def test_damage_is_told(answers, page, painter):
    data = decode_file(page["file"])
    assert what_follows(data, painter.model_id) == ""
    for seed in range(30):
        shown = answers.damage(page["file"], 1, seed)["damage"]
        assert "A decoder says: " in shown and "perco-error" in shown and "<mark>" in shown
    saved = base64.b64decode(re.search(r'href="data:[^,]+,([^"]+)"', shown)[1])
    assert len(saved) == len(data) and saved != data


def test_rivals_are_their_own_files():
    photo = make_photo(96, 64, cells=(9, 13))
    *_, shown = draw_rivals(photo, 150)
    webp = re.search(r"WebP in (\d+) bytes, shrunk to (\d+)×(\d+): [\d.]+ dB", shown)
    assert webp and int(webp[1]) <= 150
    least = smallest(photo, "avif")
    assert re.search(r"AVIF in 150 bytes: none; \d+×\d+ pixels take it \d+", shown)
    assert f"AVIF at its smallest, {len(least.data):,} bytes" in shown
    sizes = [image.size for image in embedded(shown)]
    assert sizes == [(96, 64), (int(webp[2]), int(webp[3])), (96, 64)]


def test_rivals_of_a_photo(answers, page, photo):
    *_, shown = answers.rivals(encoded(photo), page["file"])
    assert shown["rivals"].count("<figcaption>") == 4
    assert list(answers.rivals(None, page["file"])) == [{"rivals": ""}], "there is no photo"


def test_costs_before_and_after(answers):
    before = answers.rate_bytes((768, 512), "", {})
    assert "0.0019: at most 102" in before and "<b>" not in before
    assert "<b>0.0019: 68 bytes</b>" in answers.rate_bytes((768, 512), "", {"0.0019": 68})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((101, 1, 0), "got steps 101, expected 0 to 100"),
        ((None, 1, 0), "got steps None"),
        ((20, float("nan"), 0), "got guidance nan"),
        ((20, 21, 0), "got guidance 21, expected 0 to 20"),
        ((20, 1, -1), "got seed -1"),
        ((20, 1, "7"), "got seed '7'"),
    ],
)
def test_options_that_cannot_be_painted_with(options, message):
    with pytest.raises(ValueError, match=message):
        check_options(*options)


def test_options_that_can():
    assert check_options(0, 0, 2**53 - 1) == (None, None, 2**53 - 1)
    assert check_options(20.0, 1, 3.0) == (20, 1.0, 3)


def test_what_is_missing_is_said(answers, photo):
    with pytest.raises(ValueError, match="there is no photo yet"):
        next(answers.compress(None, "", "0.0019", 1, 1, 0))
    with pytest.raises(ValueError, match="there is no file yet"):
        next(answers.paint("", 1, 1, 0))
    with pytest.raises(ValueError, match="lost its file"):
        next(answers.paint("%%%", 1, 1, 0))
    with pytest.raises(ValueError, match="there is no file yet"):
        answers.damage("", 1, 0)
    with pytest.raises(ValueError, match="10,001 letters"):
        next(answers.compress(encoded(photo), "x" * 10_001, "0.0019", 1, 1, 0))


def test_any_caption_is_taken(answers, photo):
    page = last(
        answers.compress(encoded(photo), "красный сарай у пруда 池のほとり", "0.0019", 1, 0, 0)
    )
    assert unpack(decode_file(page["file"])).caption == "красный сарай у пруда 池のほとり"
    page = last(answers.compress(encoded(photo), "barn " * 2000, "0.0019", 1, 0, 0))
    assert "hears the first" in page["status"] and page["result"]


def test_a_photo_of_too_many_pixels_is_not_begun(painter, photo, monkeypatch):
    monkeypatch.setattr(painter, "max_pixels", 10_000)
    with pytest.raises(ValueError, match="200×130, at most 0.0 megapixels are painted here"):
        next(Answers(painter).compress(encoded(photo), "", "0.0019", 1, 1, 0))


def test_text_holds_a_file():
    assert decode_file(encode_file(b"\0\xff")) == b"\0\xff"
