"""Grey levels of a pattern: right for one that was put there, 0 for photos and what they become."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from perco_lite.data import skimage_photos
from perco_lite.evaluation.datasets import open_dataset
from perco_lite.evaluation.metrics.pattern import WINDOW, pattern, wave_power
from perco_lite.evaluation.scoring import SetScorer


@pytest.fixture(scope="module")
def photos():
    return [sample.image for sample in skimage_photos()]


def woven(photo, amplitude, down=0.42, across=0.29):
    y, x = np.mgrid[: photo.height, : photo.width]
    wave = amplitude * np.cos(2 * np.pi * (down * y + across * x))
    shown = np.asarray(photo, float) + wave[..., None]
    return Image.fromarray(shown.round().clip(0, 255).astype(np.uint8))


def test_a_weave_has_its_own_strength(photos):
    originals = [wave_power(photo) for photo in photos]
    for amplitude in (4, 8):
        found = pattern(originals, [wave_power(woven(photo, amplitude)) for photo in photos])
        assert found.value == pytest.approx(amplitude / np.sqrt(2), rel=0.15)
        assert found.interval[0] < found.value < found.interval[1] + 1e-6
        assert "waves over 3 times the median" in found.protocol


def test_photos_and_blurred_ones_have_none(photos):
    originals = [wave_power(photo) for photo in photos]
    blurred = [wave_power(photo.filter(ImageFilter.GaussianBlur(2))) for photo in photos]
    assert pattern(originals, originals).value == 0
    assert pattern(originals, blurred).value < 0.1


def test_a_pattern_of_the_original_is_no_fault(photos):
    weave = [wave_power(woven(photo, 8)) for photo in photos]
    assert pattern(weave, weave).value == 0


def test_small_photos_count_no_windows_and_too_few_are_refused(photos):
    small = wave_power(photos[0].resize((WINDOW, WINDOW - 1)))
    assert small.shape == (1 + WINDOW**2,) and not small.any()
    one = wave_power(photos[0].crop((0, 0, 2 * WINDOW, WINDOW)))
    assert one[0] == 3
    with pytest.raises(ValueError, match="pattern: got 3 windows of 128 pixels, expected 24; add"):
        pattern([one], [one])


def test_an_evaluation_knows_it(photos, tmp_path):
    for number, photo in enumerate(photos[:3]):
        photo.save(tmp_path / f"{number}.png")
    dataset = open_dataset(str(tmp_path))
    scorer = SetScorer(("pattern",), dataset, tmp_path)
    assert scorer.names == ("pattern",)
    read = lambda name: Image.open(tmp_path / name).convert("RGB")  # noqa: E731
    names = [photo.name for photo in dataset.photos]
    found = scorer.score(names, read, lambda name: woven(read(name), 6))["pattern"]
    assert found.value == pytest.approx(6 / np.sqrt(2), rel=0.2)
