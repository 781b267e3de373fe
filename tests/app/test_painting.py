"""Painters: the codec's own pictures, with progress, for two at once, until one leaves."""

import threading
import time

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo, pixels
from perco_lite.app.painting import AT_ONCE, Painter, Progress, spread
from perco_lite.coding.bitstream import unpack

STEPS = 4


@pytest.fixture(scope="module")
def file(tiny_codec):
    return unpack(tiny_codec.compress(make_photo(), "a red barn"))


def test_the_pictures_are_the_codecs_own(painter, tiny_codec, file):
    *told, painted = painter.paint(file, STEPS, 3.0, [5, 6])
    assert told == [Progress(done, STEPS) for done in range(STEPS + 1)]
    for seed, picture in zip((5, 6), painted, strict=True):
        own = tiny_codec.decompress(file, STEPS, 3.0, seed=seed)
        assert np.abs(pixels(own) - pixels(picture)).max() <= 1
    assert painter.compress(make_photo(), "a red barn", "0.0019") == tiny_codec.compress(
        make_photo(), "a red barn"
    )


def test_two_at_once_do_not_mix(painter, tiny_codec):
    files = [unpack(tiny_codec.compress(make_photo(seed=s), "a")) for s in range(4)]
    alone = [tiny_codec.decompress(file, STEPS, seed=7) for file in files]
    painted, told = {}, {}

    def visit(number):
        *told[number], painted[number] = painter.paint(files[number], STEPS, None, [7])

    visitors = [threading.Thread(target=visit, args=[number]) for number in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    for number in range(4):
        assert np.abs(pixels(painted[number][0]) - pixels(alone[number])).max() <= 1
        assert told[number] == [Progress(done, STEPS) for done in range(STEPS + 1)]


def test_who_leaves_is_left(tiny_codec, file):
    painter = Painter(tiny_codec)
    painting = painter.paint(file, 1000, None, [0])
    assert next(painting) == Progress(0, 1000)
    painting.close()
    started = time.monotonic()
    for _ in range(AT_ONCE):  # every painter is free again
        *_, painted = painter.paint(file, 1, None, [0])
    assert time.monotonic() - started < 5


def test_what_cannot_be_painted_is_said_before_any_step(tiny_codec, file):
    few = Painter(tiny_codec, max_pixels=1000)
    with pytest.raises(ValueError, match="over the limit of 0.0"):
        next(few.paint(file, 1, None, [0]))


def test_unheard_words_are_said(painter):
    assert painter.unheard("a red barn") == ""
    assert "hears the first" in painter.unheard("barn " * 200)


def test_spread_by_hand():
    black, white = Image.new("RGB", (2, 1)), Image.new("RGB", (2, 1), "white")
    white.putpixel((0, 0), (0, 0, 0))
    far = spread([black, white])
    assert far.shape == (1, 2) and far.tolist() == [[0, 127.5]]
    assert spread([white, white]).max() == 0
    with pytest.raises(ValueError, match="expected 2 or more"):
        spread([black])
