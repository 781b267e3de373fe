"""Classical codecs at sizes that they cannot reach with all of a photo's pixels: on fewer pixels.

    image (PIL RGB, H×W) ──resize──► h×w ──encode_near──► bytes ≤ target_bytes
                                                              └──decode, resize──► image (H×W)

At PerCo's rates JPEG, WebP and AVIF have no file as small as ours at the photo's own size. A person
who had to send so few bytes would shrink the photo first, so that is what ours is shown beside.
Lanczos both ways. The rule: of the sizes that fit, each with half the pixels of the one before, the
one of highest PSNR at the photo's own size. Which size that was need not be sent.

Paper: nothing on this; its Figure 4 has other codecs at the rates that they reach.
Differs from the paper: every picture beside ours has our bytes, or says that there is none.
"""

import time
from dataclasses import dataclass, replace

from PIL import Image

from perco_lite.evaluation.codecs import classical, external
from perco_lite.evaluation.codecs.classical import BaselineResult, Tried
from perco_lite.metrics import psnr

SUFFIX = "-shrunk"
SHRUNK_CODECS = tuple(name + SUFFIX for name in (*classical.CODECS, "jpegxl"))

STEP = 2**-0.5  # each size has half the pixels of the one before
SMALLEST = 8  # pixels of the long side


@dataclass(frozen=True)
class Shrunk:
    """A file near a number of bytes; ``size``: width and height of what it holds."""

    result: BaselineResult  # its image: enlarged to the original's size
    size: tuple[int, int]


def check_available(name: str) -> None:
    """Raise ``Unavailable`` for one of SHRUNK_CODECS whose codec is not on this machine."""
    codec = name.removesuffix(SUFFIX)
    _home(codec).check_available(codec)


def encode_near(
    image: Image.Image, name: str, target_bytes: int, tried: dict | None = None
) -> BaselineResult:
    """``encode_shrunk`` by one of SHRUNK_CODECS, in the form of ``classical.encode_near``.

    ``quality`` is the share of the long side that is sent: 1 = not shrunk. Under it ``tried`` then
    has the file and the seconds of its one encode; under sizes, what was encoded at each.
    """
    tried = {} if tried is None else tried
    found = encode_shrunk(image, name.removesuffix(SUFFIX), target_bytes, tried)
    share = max(found.size) / max(image.size)
    tried[share] = tried[found.size][found.result.quality]
    return replace(found.result, codec=name, quality=share)


def _home(codec: str):
    return external if codec in external.EXTERNAL_CODECS else classical


def encode_shrunk(
    image: Image.Image,
    codec: str,
    target_bytes: int,
    tried: dict[tuple[int, int], Tried] | None = None,
) -> Shrunk:
    """The best file of at most ``target_bytes``: of all sizes that fit, the one of highest PSNR.

    ``image`` is RGB. Where no size fits, the smallest file of all, and ``result.reached`` is False.
    ``tried``: by size, what ``encode_near`` has made of this photo, so that it is made once.
    Raises as ``encode_near``.
    """
    tried = {} if tried is None else tried
    best, best_score, least = None, float("-inf"), None
    for size in sizes(image.size):
        small = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        known = tried.setdefault(size, {})
        found = _home(codec).encode_near(small, codec, target_bytes, known)
        started = time.perf_counter()
        enlarged = found.image.resize(image.size, Image.Resampling.LANCZOS)
        seconds = found.decode_seconds + time.perf_counter() - started
        found = Shrunk(replace(found, image=enlarged, decode_seconds=seconds), size)
        if least is None or len(found.result.data) < len(least.result.data):
            least = found
        score = psnr(image, enlarged) if found.result.reached else float("-inf")
        if score > best_score:
            best, best_score = found, score
    return best or least


def sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """The photo's own size, and smaller ones of about its shape."""
    found, scale = [size], STEP
    while max(size) * scale >= SMALLEST:
        found.append((max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        scale *= STEP
    return found
