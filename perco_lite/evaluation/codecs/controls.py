"""Negative controls: pictures known to be wrong, measured as if a codec had made them.

    photo ──► blurred (σ 1, σ 2) · its 64-pixel tiles shuffled · JPEG at its smallest
    photo ──► another real photo in its place
    perco's file ──► the regression that its bits imply + another photo's high-pass

A measure that prefers one of these to what is better for certain is fooled, which
``evaluation.controls`` finds out. Other photos are of another set: of the same one, shuffled, every
set measure would be at zero.

Paper: nothing of this.
Differs from the paper: it trusts its measures; small sets and new measures need to earn it.
"""

import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage.filters import gaussian

from perco_lite.data import find_data, list_photos, load_photo, skimage_paths
from perco_lite.evaluation.codecs.classical import smallest
from perco_lite.evaluation.codecs.ours import Method, PercoFiles
from perco_lite.evaluation.datasets import Photo
from perco_lite.metrics import Unavailable

BLUR_1, BLUR_2, TILES = "control-blur-1", "control-blur-2", "control-tiles"
OTHER_PHOTO, OTHER_TEXTURE = "control-other-photo", "control-other-texture"
SMALLEST_JPEG = "control-smallest-jpeg"
CONTROLS = (BLUR_1, BLUR_2, TILES, OTHER_PHOTO, OTHER_TEXTURE, SMALLEST_JPEG)
TILE = 64  # pixels
TEXTURE_SIGMA = 4.0  # pixels; what is finer counts as texture


class Control(Method):
    """One control; ``make`` (photo, image, rate) gives what an ``Attempt`` has to say."""

    def __init__(self, name: str, make: Callable[[Photo, Image.Image, str], dict], points=("",)):
        self.name, self.attempt, self.points = name, make, tuple(points)


def build_control(
    name: str, files: PercoFiles | None, rates: tuple[str, ...], folder: Path | None = None
) -> Control:
    """One of CONTROLS; ``Unavailable`` for what needs a regression, of weights without one, and
    where no set is here but that of the photos' own ``folder``."""
    if name in (OTHER_PHOTO, OTHER_TEXTURE) and folder is not None:
        try:
            _others(folder)
        except ValueError as error:
            raise Unavailable(str(error)) from error
    if name != OTHER_TEXTURE:
        return Control(name, _PLAIN[name])
    if files is None:
        raise Unavailable("no weights: another's texture is laid over perco's regression")

    def textured(photo: Photo, image: Image.Image, rate: str) -> dict:
        sent = files.get(photo, image, rate)
        texture = high_pass(other_photo(photo, image.size))
        return {"image": _picture(_floats(files.codec.estimate(sent.file)) + texture)}

    return Control(name, textured, rates)


def blur(image: Image.Image, sigma: float) -> Image.Image:
    """RGB photo, Gaussian blur of ``sigma`` pixels; its edge repeated."""
    return _picture(_blurred(_floats(image), sigma))


def high_pass(image: Image.Image) -> np.ndarray:
    """What a blur of TEXTURE_SIGMA takes away, (H,W,3) float64 around 0."""
    pixels = _floats(image)
    return pixels - _blurred(pixels, TEXTURE_SIGMA)


def shuffle_tiles(image: Image.Image, seed: int) -> Image.Image:
    """The photo's whole tiles of TILE pixels in another order; what fills none stays."""
    pixels = np.array(image)
    down, right = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    inside = pixels[: down * TILE, : right * TILE]
    tiles = inside.reshape(down, TILE, right, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    tiles = np.random.default_rng(seed).permutation(tiles)
    inside[:] = tiles.reshape(down, right, TILE, TILE, 3).swapaxes(1, 2).reshape(inside.shape)
    return Image.fromarray(pixels)


def other_photo(photo: Photo, size: tuple[int, int]) -> Image.Image:
    """A real photo of another set, scaled to cover ``size`` and cut: the same one each time.

    Neighbours in a folder get neighbours of COCO's photos, or of Kodak's, or of scikit-image's:
    of the first of these that is found, and is not the photo's own folder.
    """
    here = photo.path.resolve().parent
    others = _others(here)
    number = _numbers(here).get(photo.name, zlib.crc32(photo.name.encode()))
    return ImageOps.fit(load_photo(others[number % len(others)]), size, Image.Resampling.BICUBIC)


def _others(here: Path) -> list[Path]:
    """Photos of the first set that is not in this folder; ``ValueError`` where there is none."""
    others = next((s for s in _sets() if s[0].resolve().parent != here.resolve()), None)
    if others is None:
        raise ValueError(f"no photos but those of {here}; put Kodak's or COCO's where data/ says")
    return others


def _sets() -> list[list[Path]]:
    folders = [folder for name in ("coco_eval", "kodak") if (folder := find_data(name))]
    return [*map(list_photos, folders), skimage_paths()]


@cache
def _numbers(folder: Path) -> dict[str, int]:
    if not folder.is_dir():
        return {}
    return {path.name: number for number, path in enumerate(sorted(folder.iterdir()))}


def _smallest_jpeg(photo: Photo, image: Image.Image, rate: str) -> dict:
    made = smallest(image, "jpeg")
    return {"image": made.image, "data": made.data, "quality": made.quality}


_PLAIN: dict[str, Callable[[Photo, Image.Image, str], dict]] = {
    BLUR_1: lambda photo, image, rate: {"image": blur(image, 1)},
    BLUR_2: lambda photo, image, rate: {"image": blur(image, 2)},
    TILES: lambda photo, image, rate: {
        "image": shuffle_tiles(image, zlib.crc32(photo.name.encode()))
    },
    OTHER_PHOTO: lambda photo, image, rate: {"image": other_photo(photo, image.size)},
    SMALLEST_JPEG: _smallest_jpeg,
}


def _floats(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64)


def _blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian(pixels, sigma, mode="nearest", channel_axis=-1, preserve_range=True)


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
