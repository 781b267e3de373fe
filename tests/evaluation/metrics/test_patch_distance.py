"""Our own realism measure: zero for equal sets; rises with blur, JPEG and noise; is not FID."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from perco_lite.data import skimage_photos
from perco_lite.evaluation.metrics import patch_distance
from perco_lite.evaluation.metrics.patch_distance import patch_features, patch_frechet_distance
from perco_lite.metrics import Unavailable


@pytest.fixture(scope="module")
def photos():
    """Three crops with fur, a face and a coffee table: 48 patches."""
    crops = {"chelsea.png": (100, 20), "astronaut.png": (96, 0), "coffee.png": (150, 50)}
    found = {sample.name: sample.image for sample in skimage_photos()}
    boxes = {name: (x, y, x + 256, y + 256) for name, (x, y) in crops.items()}
    return [found[name].crop(box) for name, box in boxes.items()]


@pytest.fixture(scope="module")
def features(photos):
    return [patch_features(photo) for photo in photos]


def blurred(photo, radius):
    return photo.filter(ImageFilter.GaussianBlur(radius))


def jpeg(photo, quality):
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def noisy(photo, deviation):
    array = np.asarray(photo, float)
    array = array + np.random.default_rng(0).normal(0, deviation, array.shape)
    return Image.fromarray(array.round().clip(0, 255).astype(np.uint8))


def distances(features, photos, change, strengths):
    return [
        patch_frechet_distance(features, (change(photo, s) for photo in photos)).value
        for s in strengths
    ]


def test_equal_sets_are_at_zero(photos, features):
    score = patch_frechet_distance(photos, features)  # photos, or what was made of them
    assert score.value == pytest.approx(0, abs=1e-6)
    assert score.interval == pytest.approx((0, 0), abs=1e-6)


@pytest.mark.parametrize(
    "change, strengths",
    [(blurred, (0.5, 1, 2, 4)), (jpeg, (90, 40, 15, 5)), (noisy, (2, 6, 12, 25))],
)
def test_rises_with_the_strength_of_a_defect(photos, features, change, strengths, monkeypatch):
    monkeypatch.setattr(patch_distance, "SMALL_SET", 0)  # no interval: faster
    values = [0.001, *distances(features, photos, change, strengths)]
    assert all(more > 1.3 * less for less, more in zip(values, values[1:], strict=False)), values


@pytest.mark.parametrize("radius", [0.7, 1.5])
def test_blur_costs_more_than_noise_of_the_same_psnr(photos, features, radius):
    soft = [blurred(photo, radius) for photo in photos]
    grainy = []
    for photo, other in zip(photos, soft, strict=True):
        error = np.asarray(photo, float) - np.asarray(other, float)
        grainy.append(noisy(photo, error.std()))
    blur, noise = (patch_frechet_distance(features, those).value for those in (soft, grainy))
    assert blur > 1.5 * noise > 0


def test_interval_holds_the_figure_and_says_how_many(photos, features):
    score = patch_frechet_distance(features, [blurred(photo, 1) for photo in photos])
    low, high = score.interval
    assert low < score.value < high
    assert "3 originals (48 patches)" in score.protocol
    assert "not FID" in score.protocol and "sha256" in score.protocol
    assert patch_frechet_distance(features[:1], features[1:2]).interval is None


def test_many_photos_are_streamed_and_have_no_interval(monkeypatch):
    monkeypatch.setattr(patch_distance, "SMALL_SET", 2)
    rows = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0))
    score = patch_frechet_distance(iter(rows), iter(rows), encoder=torch.nn.Identity())
    assert score.interval is None and score.value == pytest.approx(0, abs=1e-9)


def test_features_by_hand():
    """With activations that are the pixels: means, and log of deviations, of each patch."""
    array = np.random.default_rng(0).integers(0, 256, (70, 130, 3), np.uint8)
    pool = torch.nn.PixelUnshuffle(4)
    rows = patch_features(Image.fromarray(array), pool)
    assert rows.shape == (2, 2 * 48)
    second = (
        array[:64, 64:128, 0].astype(float)[1::4, 2::4] / 127.5 - 1
    )  # of red, line 1, column 2: channel 6
    assert rows[1, 6] == pytest.approx(second.mean(), abs=1e-5)
    assert rows[1, 48 + 6] == pytest.approx(np.log(second.std(ddof=1) + 0.1), abs=1e-5)


def test_strips_and_edges_leave_no_trace():
    """A patch looks the same in a large photo; and next to the frame, if what is there is."""
    tile = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    tall = patch_features(Image.fromarray(np.tile(tile, (17, 3, 1)))).reshape(17, 3, -1)
    assert torch.allclose(tall[3, 1], tall[12, 1], atol=1e-4)
    flat = patch_features(Image.new("RGB", (640, 640), (90, 120, 30)))
    assert torch.allclose(flat, flat[:1].expand_as(flat), atol=1e-4)


def test_errors_say_what_to_do(features, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="mode L, expected RGB; use data.to_rgb"):
        patch_features(Image.new("L", (64, 64)))
    with pytest.raises(ValueError, match="63x64, expected at least 64x64"):
        patch_features(Image.new("RGB", (63, 64)))
    with pytest.raises(ValueError, match="got 0 .*at least 2"):
        patch_frechet_distance(features, [])
    monkeypatch.setattr(patch_distance, "_WEIGHTS", tmp_path)
    patch_distance.load_patch_encoder.cache_clear()
    try:
        score = patch_frechet_distance(features, features)
        assert score.value is None and str(tmp_path) in score.protocol
        with pytest.raises(Unavailable, match="reinstall"):
            patch_features(Image.new("RGB", (64, 64)))
    finally:
        patch_distance.load_patch_encoder.cache_clear()
