"""What a visitor hands in: a photo or a file, within limits, or one sentence of why not.

bytes of a photo ──read_photo──► Photo: RGB, shrunk to 768×512 pixels' worth unless asked not to
bytes of a file ──read_file──► the same bytes, known to be a `.perco` file of these weights
"""

import io
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from PIL import Image

from perco_lite.coding.bitstream import BitstreamError, UnpackedFile, unpack
from perco_lite.data import Sample, skimage_photos
from perco_lite.files import explain
from perco_lite.pixels import FORMATS, PhotoError, decode_photo

MAX_BYTES = 20 * 2**20  # of an upload
MAX_PIXELS = 40_000_000  # of a photo, before it is shrunk
USUAL_PIXELS = 768 * 512  # a Kodak photo: what the weights were measured on
MAX_CAPTION = 10_000  # letters


@dataclass(frozen=True)
class Photo:
    """A photo to be compressed: RGB, and (width, height) of what was handed in."""

    image: Image.Image
    original_size: tuple[int, int]

    def __str__(self) -> str:
        size, before = self.image.size, self.original_size
        shrunk = f", shrunk from {before[0]:,}×{before[1]:,}" if size != before else ""
        return f"{size[0]:,}×{size[1]:,} pixels{shrunk}"


def read_photo(data: bytes, full_size: bool = False) -> Photo:
    """Decode a photo of any kind that ``decode_photo`` reads, of at most ``USUAL_PIXELS``.

    ``full_size``: leave it as large as it is. Raises ``PhotoError``, before any pixel is decoded
    where bytes or pixels are too many.
    """
    if len(data) > MAX_BYTES:
        raise PhotoError(
            f"the photo has {len(data) / 2**20:.1f} MB, at most {MAX_BYTES >> 20} are taken; "
            "save it smaller, as JPEG"
        )
    if not data:
        raise PhotoError("the photo is empty (0 bytes); choose it again")
    size = 0, 0
    with suppress(Exception):  # what Pillow cannot open, decode_photo explains
        size = Image.open(io.BytesIO(data), formats=FORMATS).size
    _check_pixels(size)
    image = decode_photo(io.BytesIO(data), "the photo")
    _check_pixels(image.size)  # a TIFF's first page, or a HEIC, may not have told
    return Photo(image if full_size else shrink(image), image.size)


def shrink(image: Image.Image, pixels: int = USUAL_PIXELS) -> Image.Image:
    """The photo with at most so many pixels, sides in proportion; never enlarged."""
    width, height = image.size
    factor = (pixels / (width * height)) ** 0.5
    if factor >= 1:
        return image
    # rounded down, so that a strip one pixel high stays below the limit too
    width = max(1, min(int(width * factor), pixels))
    height = max(1, min(int(height * factor), pixels // width))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def read_file(data: bytes, model_id: int) -> UnpackedFile:
    """Parse a `.perco` file of these weights; ``BitstreamError`` says what else it is."""
    if not data:
        raise BitstreamError("the file is empty (0 bytes); choose it again")
    return unpack(data, model_id)


def check_caption(caption: str) -> str:
    """The caption on one line; ``ValueError`` for one of over ``MAX_CAPTION`` letters."""
    if len(caption) > MAX_CAPTION:
        raise ValueError(
            f"the caption has {len(caption):,} letters, at most {MAX_CAPTION:,} are taken; a "
            "sentence of ten words does most"
        )
    return " ".join(caption.split())


def find_captioner() -> Callable[[Image.Image], str] | None:
    """What writes a photo's caption offline; None, with a warning of why, where it is not there."""
    try:
        from perco_lite.captioning import Captioner

        return Captioner.from_pretrained()
    except (ImportError, OSError, ValueError) as error:
        warnings.warn(f"captions are typed: no captioner ({explain(error)})", stacklevel=2)
        return None


def samples() -> list[Sample]:
    """The photos inside scikit-image, which are free to show, with this project's captions."""
    return skimage_photos()


def _check_pixels(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise PhotoError(
            f"the photo is {size[0]:,}×{size[1]:,}, over {MAX_PIXELS // 10**6} megapixels; make it "
            "smaller first"
        )
