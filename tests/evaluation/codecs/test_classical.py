"""Each codec fits its target, says when it cannot, keeps the size and carries no metadata."""

import math

import pytest
from PIL import Image, features

from perco_lite.evaluation.codecs import classical as baselines
from perco_lite.evaluation.codecs.classical import CODECS, encode_near, smallest
from perco_lite.metrics import Unavailable, psnr


@pytest.fixture(params=CODECS)
def codec(request):
    if not baselines.available()[request.param]:
        pytest.skip(f"this Pillow has no {request.param}")
    return request.param


def test_file_is_just_below_the_target_and_more_bytes_look_better(photo, codec):
    for target_bytes in (1200, 2500):
        result = encode_near(photo, codec, target_bytes)
        assert result.reached and 0.85 * target_bytes < len(result.data) <= target_bytes
        assert result.image.size == photo.size and result.image.mode == "RGB"
        assert psnr(photo, result.image) > 22
    few, many = (encode_near(photo, codec, target).image for target in (900, 4000))
    assert psnr(photo, many) > psnr(photo, few) + 1


@pytest.mark.parametrize("codec", baselines._ENCODERS, indirect=True)
def test_next_quality_is_too_large(photo, codec):
    result = encode_near(photo, codec, 2000)
    encode = baselines._ENCODERS[codec]
    assert encode(photo, result.quality) == result.data
    assert len(encode(photo, result.quality + 1)) > 2000


def test_unreachable_target_gives_the_smallest_and_says_so(photo, codec):
    result = encode_near(photo, codec, 30)
    assert not result.reached and result.data == smallest(photo, codec).data
    assert result.image.size == photo.size
    assert len(result.data) < len(encode_near(photo, codec, 2000).data)


def test_a_jpeg2000_that_misses_by_a_byte_is_not_given_up(photo, monkeypatch):
    """OpenJPEG's sizes stand still over many budgets: here over 40, and end one byte above."""
    made = []

    def encode(image, codec, quality_layers, **options):
        budget = 3 * image.width * image.height / quality_layers[0]
        made.append(40 * math.ceil(round(budget, 6) / 40) + 1)
        return bytes(made[-1])

    monkeypatch.setattr(baselines, "_encode", encode)
    data, _ = baselines._search_jpeg2000(photo, "jpeg2000", 2040, {})
    assert made[1] == 2041, "asked for the target itself, it was above"
    assert len(data) == 2001


def test_generous_target_gives_the_best_quality(photo, codec):
    result = encode_near(photo, codec, 10**7)
    assert result.reached and psnr(photo, result.image) > 33
    assert result.quality == {"jpeg": 95, "webp": 100, "avif": 100, "jpeg2000": 1}[codec]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 3)])
def test_tiny_photos(photo, codec, size):
    result = encode_near(photo.resize(size), codec, 2000)
    assert result.reached and result.image.size == size


def test_metadata_and_profile_are_left_out(photo, codec):
    tagged = photo.copy()
    exif = Image.Exif()
    exif[0x010E] = "SECRET" * 20
    tagged.info.update(exif=exif.tobytes(), icc_profile=b"SECRET" * 20, comment=b"SECRET" * 20)
    result = encode_near(tagged, codec, 2500)
    assert b"SECRET" not in result.data
    assert result.data == encode_near(photo, codec, 2500).data  # and twice the same bytes


def test_errors_say_what_to_do(photo, monkeypatch):
    with pytest.raises(ValueError, match="'vtm', expected one of jpeg, webp"):
        encode_near(photo, "vtm", 1000)
    with pytest.raises(ValueError, match="mode L, expected RGB; use data.to_rgb"):
        encode_near(photo.convert("L"), "jpeg", 1000)
    with pytest.raises(ValueError, match="at least 1"):
        encode_near(photo, "jpeg", 0)
    with pytest.raises(ValueError, match="webp cannot encode this 20000×1 photo"):
        encode_near(Image.new("RGB", (20000, 1)), "webp", 1000)
    monkeypatch.setattr(features, "check", lambda feature: feature != "avif")
    assert baselines.available() == {"jpeg": True, "webp": True, "avif": False, "jpeg2000": True}
    with pytest.raises(Unavailable, match="no avif; pip install"):
        encode_near(photo, "avif", 1000)


def test_what_was_tried_is_not_made_again_and_changes_nothing(photo, codec):
    tried = {}
    targets = (1200, 2500, 30, 1200)
    shared = [encode_near(photo, codec, target, tried) for target in targets]
    made = dict(tried)
    assert all(tried[r.quality][0] == r.data and tried[r.quality][1] > 0 for r in shared)
    for result, target in zip(shared, targets, strict=True):
        alone = encode_near(photo, codec, target)
        assert (result.data, result.quality) == (alone.data, alone.quality)
        assert result.decode_seconds > 0
    encode_near(photo, codec, 2500, tried)
    assert tried == made
