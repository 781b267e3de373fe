"""Classical codecs at sizes that they cannot reach with all of a photo's pixels: on fewer pixels.

    image (PIL RGB, H×W) ──resize──► h×w ──encode_near──► bytes ≤ target_bytes
                                                              └──decode, resize──► image (H×W)

At PerCo's rates JPEG, WebP and AVIF have no file as small as ours at the photo's own size. A person
who had to send so few bytes would shrink the photo first, so that is what ours is shown beside.

Paper: nothing on this; its Figure 4 has other codecs at the rates that they reach.
Differs from the paper: every picture beside ours has our bytes, or says that there is none.
"""

from dataclasses import dataclass, replace

from PIL import Image

from perco_lite.evaluation.codecs.classical import BaselineResult, encode_near
from perco_lite.metrics import psnr

STEP = 2**-0.5  # each size has half the pixels of the one before
SMALLEST = 8  # pixels of the long side


@dataclass(frozen=True)
class Shrunk:
    """A file near a number of bytes; ``size``: width and height of what it holds."""

    result: BaselineResult  # its image: enlarged to the original's size
    size: tuple[int, int]


def encode_shrunk(image: Image.Image, codec: str, target_bytes: int) -> Shrunk:
    """The best file of at most ``target_bytes``: of all sizes that fit, the one of highest PSNR.

    ``image`` is RGB. Where no size fits, the smallest file of all, and ``result.reached`` is False.
    Raises as ``encode_near``.
    """
    best, best_score, least = None, float("-inf"), None
    for size in sizes(image.size):
        small = image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)
        found = encode_near(small, codec, target_bytes)
        enlarged = found.image.resize(image.size, Image.Resampling.BICUBIC)
        found = Shrunk(replace(found, image=enlarged), size)
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
