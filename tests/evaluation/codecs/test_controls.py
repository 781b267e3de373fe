"""Pictures known to be wrong: each is wrong in its own way, and the same each time."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo
from perco_lite import data
from perco_lite.data import skimage_paths
from perco_lite.evaluation.codecs import controls
from perco_lite.evaluation.codecs.controls import CONTROLS, OTHER_TEXTURE, build_control
from perco_lite.evaluation.codecs.ours import PercoFiles
from perco_lite.evaluation.datasets import Photo
from perco_lite.metrics import Unavailable, psnr

PHOTO = Photo("b.png", Path("somewhere/b.png"))


@pytest.fixture
def image() -> Image.Image:
    return make_photo(200, 150, cells=(40, 60))


@pytest.fixture(autouse=True)
def no_other_photos(monkeypatch, tmp_path):
    """But scikit-image's."""
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    controls._numbers.cache_clear()


def test_blur_is_gaussian_and_keeps_what_is_flat(image):
    dot = np.full((41, 41, 3), 100.0)
    dot[20, 20] = 250
    blurred = np.asarray(controls.blur(Image.fromarray(dot.astype(np.uint8)), 2), float)
    distance = np.hypot(*np.mgrid[-20:21, -20:21])
    expected = 100 + 150 * np.exp(-(distance**2) / 8) / (8 * np.pi)
    assert np.abs(blurred - expected[..., None]).max() < 0.6
    assert psnr(image, controls.blur(image, 1)) > psnr(image, controls.blur(image, 2)) + 1
    flat = Image.new("RGB", (30, 20), (9, 90, 200))
    assert controls.blur(flat, 2) == flat and np.abs(controls.high_pass(flat)).max() < 1e-9


def test_tiles_are_the_photos_own_in_another_order(image):
    shuffled = np.asarray(controls.shuffle_tiles(image, 3))
    pixels = np.asarray(image)

    def tiles(pixels):
        return [pixels[y : y + 64, x : x + 64].tobytes() for y in (0, 64) for x in (0, 64, 128)]

    assert sorted(tiles(shuffled)) == sorted(tiles(pixels)) and tiles(shuffled) != tiles(pixels)
    assert np.array_equal(shuffled[128:], pixels[128:]), "what fills no tile stays"
    assert np.array_equal(shuffled[:, 192:], pixels[:, 192:])


def test_another_photo_is_a_real_one_of_another_set(image, tmp_path):
    (tmp_path / "kodak").mkdir()
    for number in range(3):
        make_photo(120, 80, seed=number).save(tmp_path / "kodak" / f"{number}.png")
    of_kodak = [Photo(f"{n}.png", tmp_path / "kodak" / f"{n}.png") for n in range(3)]
    others = [controls.other_photo(photo, (60, 50)) for photo in of_kodak]
    assert len({other.tobytes() for other in others}) == 3, "neighbours get neighbours"
    assert all(other.size == (60, 50) for other in others)
    first = Image.open(skimage_paths()[0]).convert("RGB")
    square = controls.other_photo(of_kodak[0], first.size)
    assert square.tobytes() == first.tobytes(), "of the set itself, shuffled, none would be wrong"
    kodak = {Image.open(p.path).tobytes() for p in of_kodak}
    assert controls.other_photo(PHOTO, (120, 80)).tobytes() in kodak


@pytest.mark.parametrize("name", CONTROLS)
def test_each_is_a_method_and_the_same_twice(name, image, tiny_codec):
    files = PercoFiles(tiny_codec)
    control = build_control(name, files, ("0.0019",))
    points = ("0.0019",) if name == OTHER_TEXTURE else ("",)
    assert (control.name, control.points) == (name, points)
    first, again = (next(control.run([(PHOTO, image, list(points))])) for _ in range(2))
    assert first.error is None and first.image.size == image.size
    assert first.image == again.image and first.image != image


def test_texture_is_anothers_over_the_regression(image, tiny_codec):
    files = PercoFiles(tiny_codec)
    (made,) = build_control(OTHER_TEXTURE, files, ("0.0019",)).run([(PHOTO, image, ["0.0019"])])
    estimate = tiny_codec.estimate(files.get(PHOTO, image, "0.0019").file)
    texture = controls.high_pass(controls.other_photo(PHOTO, image.size))
    pixels = np.asarray(estimate, float) + texture
    assert np.abs(np.asarray(made.image) - pixels.clip(0, 255)).max() <= 0.5 + 1e-9
    with pytest.raises(Unavailable, match="no weights: another's texture"):
        build_control(OTHER_TEXTURE, None, ("0.0019",))


def test_with_no_other_set_it_is_not_measured():
    folder = skimage_paths()[0].parent
    for name in (controls.OTHER_PHOTO, OTHER_TEXTURE):
        with pytest.raises(Unavailable, match="no photos but those of"):
            build_control(name, None, ("0.0019",), folder)
    assert build_control(controls.OTHER_PHOTO, None, (), folder.parent).name == controls.OTHER_PHOTO
    assert build_control(controls.TILES, None, (), folder).name == controls.TILES
