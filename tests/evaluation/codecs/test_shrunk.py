"""Other formats at our bytes: they fit, they are of a sensible size, and no better one was left."""

from pathlib import Path

import pytest
from PIL import Image

from conftest import make_photo
from perco_lite.evaluation.codecs import shrunk
from perco_lite.evaluation.codecs.classical import available, encode_near
from perco_lite.evaluation.codecs.ours import Decoding
from perco_lite.evaluation.codecs.shrunk import SMALLEST, encode_shrunk, sizes
from perco_lite.evaluation.datasets import Photo
from perco_lite.evaluation.evaluate import build_methods
from perco_lite.metrics import Unavailable, psnr

needs = {
    codec: pytest.mark.skipif(not available()[codec], reason=f"this Pillow has no {codec}")
    for codec in ("webp", "jpeg", "avif")
}


def test_sizes_halve_the_pixels():
    found = sizes((768, 512))
    assert found[0] == (768, 512) and max(found[-1]) >= SMALLEST
    for (w, h), (smaller_w, smaller_h) in zip(found, found[1:], strict=False):
        assert 0.4 < smaller_w * smaller_h / (w * h) < 0.6
    assert sizes((5, 3)) == [(5, 3)] and sizes((400, 2))[-1][1] == 1


@pytest.mark.parametrize("codec", [pytest.param(c, marks=m) for c, m in needs.items()])
def test_a_photo_is_shrunk_where_it_must_be(codec):
    photo = make_photo(320, 240, cells=(40, 60))
    least = len(encode_near(photo, codec, 1).data)
    found = encode_shrunk(photo, codec, least - 100)
    assert found.result.reached and len(found.result.data) <= least - 100
    assert found.size < photo.size and found.result.image.size == photo.size


@needs["webp"]
def test_with_bytes_enough_nothing_is_shrunk():
    photo = make_photo(160, 120, cells=(40, 60))
    found = encode_shrunk(photo, "webp", 50_000)
    assert found.size == photo.size
    assert found.result.data == encode_near(photo, "webp", 50_000).data


@needs["webp"]
def test_the_size_is_the_one_of_highest_psnr():
    photo, target = make_photo(320, 240, cells=(40, 60)), 1500
    found = encode_shrunk(photo, "webp", target)
    scores = {}
    for size in sizes(photo.size):
        one = encode_near(photo.resize(size, Image.Resampling.LANCZOS), "webp", target)
        if one.reached:
            scores[size] = psnr(photo, one.image.resize(photo.size, Image.Resampling.LANCZOS))
    assert len(scores) > 3 and found.size == max(scores, key=scores.get)
    assert psnr(photo, found.result.image) == max(scores.values())


@needs["jpeg"]
def test_where_nothing_fits_the_smallest_comes_back():
    found = encode_shrunk(make_photo(64, 64), "jpeg", 50)
    assert not found.result.reached and len(found.result.data) < 400


@needs["webp"]
def test_it_is_a_codec_of_an_evaluation(monkeypatch):
    """At the bytes of each rate, none of which webp reaches unshrunk; each encode made once."""
    (method,), missing = build_methods(
        ["webp-shrunk"], None, ("0.0098", "0.1250"), (0.5,), Decoding()
    )
    assert method.points == ("0.0098", "0.1250") and not missing, "nothing to shrink on a ladder"
    made, encode = [], shrunk.classical._ENCODERS["webp"]
    monkeypatch.setitem(
        shrunk.classical._ENCODERS,
        "webp",
        lambda image, quality: made.append((image.size, quality)) or encode(image, quality),
    )
    image = make_photo(320, 240, cells=(40, 60))
    photo = Photo("a.png", Path("a.png"), "a photo of something")
    few, many = method.run([(photo, image, ["0.0098", "0.1250"])])
    assert len(made) == len(set(made))
    for attempt in (few, many):
        assert attempt.error is None and attempt.codec == "webp-shrunk" and attempt.reached
        assert len(attempt.data) <= attempt.target_bytes and attempt.image.size == image.size
        assert 0 < attempt.encode_seconds < 5 and 0 < attempt.decode_seconds < 5
    assert few.quality < many.quality < 1, "the share of the side that is sent"
    assert psnr(image, few.image) < psnr(image, many.image)
    found = encode_shrunk(image, "webp", few.target_bytes)
    assert found.result.data == few.data and found.size[0] == round(few.quality * 320)


def test_what_is_not_here_is_named(monkeypatch):
    monkeypatch.setattr(shrunk.external, "_find", lambda names: None)
    with pytest.raises(Unavailable, match="jpegxl: no cjxl on PATH"):
        shrunk.check_available("jpegxl-shrunk")
