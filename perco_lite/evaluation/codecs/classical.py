"""JPEG, JPEG 2000, WebP and AVIF at, or as near as they get to, a given number of bytes.

    image (PIL RGB, H×W) ──encode, searching the quality──► bytes ≤ target_bytes ──decode──► image
    (photo, image) ──perco's file, or bpp × pixels──► target_bytes ──encode_near──► Attempt

Sizes are whole files with no metadata and no colour profile, at the photo's own width and height.
At PerCo's rates most of these codecs cannot go low enough: the file is then the smallest they can
make, and the result says so (``reached``).

Paper: PerCo, Sec. 4: compares with VTM and BPG among classical codecs, each at its own rates.
Differs from the paper: the codecs every web browser has (BPG and VTM: ``external``), compared photo
by photo at equal bytes. Without weights these are ``uniform_bytes``.
"""

import io
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, features

from perco_lite.coding.bitstream import PercoFile, pack
from perco_lite.evaluation.codecs.ours import Method, PercoFiles
from perco_lite.evaluation.datasets import Photo
from perco_lite.metrics import Unavailable
from perco_lite.rates import get_rate

# Our name of the codec -> Pillow's name of its library.
_PILLOW_FEATURES = {"jpeg": "jpg", "webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000"}
CODECS = tuple(_PILLOW_FEATURES)

_QUALITIES = {"jpeg": (1, 95), "webp": (0, 100), "avif": (0, 100)}  # Pillow's scales
# one thread and no tiles: the same bytes on any number of cores, and the smallest
_AVIF = {"speed": 6, "subsampling": "4:2:0", "autotiling": False, "max_threads": 1}
_JPEG2000_ENCODES = 7  # at most, for one target


# Files made of one photo by one codec: setting -> (file, seconds of that encode).
Tried = dict[float, tuple[bytes, float]]


@dataclass(frozen=True)
class BaselineResult:
    """One photo through one classical codec: the file, what it decodes to, how it was made."""

    codec: str
    data: bytes
    image: Image.Image  # decoded, RGB, the size of the original
    quality: float  # the codec's own scale; JPEG 2000: the compression ratio asked for
    reached: bool  # False: even the smallest file is larger than the target
    decode_seconds: float = math.nan


def available() -> dict[str, bool]:
    """Tell for each codec name whether this installation of Pillow has it."""
    # features.check warns of names it does not know (AVIF came with Pillow 11.3).
    return {
        codec: feature in (*features.modules, *features.codecs) and bool(features.check(feature))
        for codec, feature in _PILLOW_FEATURES.items()
    }


def check_available(codec: str) -> None:
    """Raise ``Unavailable`` for a codec that this installation of Pillow lacks."""
    if not available()[codec]:
        raise Unavailable(f"this Pillow has no {codec}; pip install --upgrade 'pillow>=11.3'")


def encode_near(
    image: Image.Image, codec: str, target_bytes: int, tried: Tried | None = None
) -> BaselineResult:
    """Make the largest file of at most ``target_bytes``, or the smallest if none fits.

    ``image`` is RGB (see ``data.to_rgb``). The quality is searched by bisection, so a file a few
    bytes larger that also fits may be missed where size does not grow with quality. ``tried`` is
    an empty dict to start with, filled with the files that the search makes; given again with the
    same photo, codec and another target, none of them is made twice. The result is the same.
    Raises ``ValueError`` for an unknown codec, another mode, or a photo too large for the codec;
    ``Unavailable`` for a codec this Pillow lacks.
    """
    if codec not in CODECS:
        raise ValueError(f"got codec {codec!r}, expected one of {', '.join(CODECS)}")
    check_available(codec)
    check_photo(image, target_bytes)
    # A fresh image has no EXIF, colour profile or comment for a writer to carry over.
    image = Image.frombytes("RGB", image.size, image.tobytes())
    search = _search_jpeg2000 if codec == "jpeg2000" else _search_quality
    data, quality = search(image, codec, target_bytes, {} if tried is None else tried)
    started = time.perf_counter()
    decoded = Image.open(io.BytesIO(data)).convert("RGB")
    seconds = time.perf_counter() - started
    return BaselineResult(codec, data, decoded, quality, len(data) <= target_bytes, seconds)


def smallest(image: Image.Image, codec: str) -> BaselineResult:
    """Make the smallest file the codec can, at the photo's own size; raises as ``encode_near``."""
    result = encode_near(image, codec, target_bytes=1)  # no file fits one byte
    return replace(result, reached=True)


def check_photo(image: Image.Image, target_bytes: int) -> None:
    """Raise ``ValueError`` for a target that no file has, or a photo that is not RGB."""
    if target_bytes < 1:
        raise ValueError(f"got target_bytes {target_bytes}, expected at least 1")
    if image.mode != "RGB":
        raise ValueError(f"got an image of mode {image.mode}, expected RGB; use data.to_rgb first")


def _encode(image: Image.Image, codec: str, **options) -> bytes:
    stream = io.BytesIO()
    try:
        image.save(stream, format=codec.upper(), **options)
    except (OSError, ValueError, OverflowError) as error:
        width, height = image.size
        raise ValueError(
            f"{codec} cannot encode this {width}×{height} photo ({error}); use a smaller one"
        ) from error
    return stream.getvalue()


def _encode_jpeg(image: Image.Image, quality: int) -> bytes:
    options = {"quality": quality, "optimize": True, "subsampling": "4:2:0"}
    baseline = _encode(image, "jpeg", **options)
    progressive = _encode(image, "jpeg", **options, progressive=True)
    return min(baseline, progressive, key=len)


_ENCODERS: dict[str, Callable[[Image.Image, int], bytes]] = {
    "jpeg": _encode_jpeg,
    "webp": lambda image, quality: _encode(image, "webp", quality=quality, method=6),
    "avif": lambda image, quality: _encode(image, "avif", quality=quality, **_AVIF),
}


def once(tried: Tried, setting: float, encode: Callable[[], bytes]) -> bytes:
    """The file of a setting, made only if it was not."""
    if setting not in tried:
        started = time.perf_counter()
        data = encode()
        tried[setting] = data, time.perf_counter() - started
    return tried[setting][0]


def _search_quality(image: Image.Image, codec: str, target: int, tried: Tried) -> tuple[bytes, int]:
    def encode(quality: int) -> bytes:
        return once(tried, quality, lambda: _ENCODERS[codec](image, quality))

    return search_quality(encode, *_QUALITIES[codec], target)


def search_quality(
    encode: Callable[[int], bytes], low: int, high: int, target_bytes: int
) -> tuple[bytes, int]:
    """Largest file of at most ``target_bytes`` that bisection over low..high finds, its quality.

    ``encode(quality)`` gives larger files for higher ``quality``, more or less. Where not even the
    lowest fits, that one's file.
    """
    high += 1  # past the best quality: counts as not fitting
    best, best_quality = encode(low), low
    # At PerCo's rates the lowest quality is already too large: one encode, no search.
    if len(best) > target_bytes:
        return best, best_quality
    low_bytes, high_bytes = len(best), None
    while high - low > 1:
        middle = (low + high) // 2
        if high_bytes is not None and high_bytes > low_bytes:
            # log(bytes) is nearly a straight line in quality, which saves AVIF half its encodes
            share = math.log(target_bytes / low_bytes) / math.log(high_bytes / low_bytes)
            middle = min(max(low + int(share * (high - low)), low + 1), high - 1)
        data = encode(middle)
        if len(data) > target_bytes:
            high, high_bytes = middle, len(data)
            continue
        low, low_bytes = middle, len(data)
        if len(data) >= len(best):
            best, best_quality = data, middle
    return best, best_quality


def _search_jpeg2000(
    image: Image.Image, codec: str, target_bytes: int, tried: Tried
) -> tuple[bytes, float]:
    """Ask for a compression ratio; the file misses it by some bytes, so correct and ask again."""
    raw_bytes = 3 * image.width * image.height

    def encode(budget: float) -> tuple[bytes, float]:
        ratio = max(raw_bytes / budget, 1.0)
        # a bare codestream without JP2 boxes; OpenJPEG writes a comment, one space is the shortest
        options = {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True}
        options |= {"no_jp2": True, "comment": b" "}
        return once(tried, ratio, lambda: _encode(image, codec, **options)), ratio

    best, best_ratio = encode(1)
    if len(best) > target_bytes:
        return best, best_ratio
    low = high = None  # budgets known to fit, and not to
    budget, stride = float(min(target_bytes, raw_bytes)), 2
    for _ in range(_JPEG2000_ENCODES - 1):
        data, ratio = encode(budget)
        if len(data) <= target_bytes:
            low = budget
            if len(data) >= len(best):
                best, best_ratio = data, ratio
        else:
            high = budget
        if (ratio == 1.0 and low == budget) or len(best) >= 0.995 * target_bytes:
            break
        if low and high:
            budget = (low + high) / 2
        else:  # correct by more than the miss, and ever more: sizes stand still, then jump
            budget = max(budget + stride * (target_bytes - len(data)), 1.0)
            stride *= 4
    return best, best_ratio


class Classical(Method):
    """One codec of this module (or of ``external``), at perco's bytes and on a ladder of bpp."""

    def __init__(
        self,
        name: str,
        rates: Iterable[str],
        ladder: Iterable[float] = (),
        encode_near: Callable[..., BaselineResult] = encode_near,
        files: PercoFiles | None = None,
    ):
        """``files``: of perco, whose bytes are the targets; None: ``uniform_bytes``."""
        self.name, self.encode_near, self.files = name, encode_near, files
        self.ladder = {ladder_name(bpp): bpp for bpp in ladder}
        self.points = (*rates, *self.ladder)
        self._image, self._tried = None, {}

    def attempt(self, photo: Photo, image: Image.Image, rate: str) -> dict:
        if image is not self._image:  # no quality is encoded twice for one photo
            self._image, self._tried = image, {}
        if rate in self.ladder:
            target = max(1, int(self.ladder[rate] * image.width * image.height / 8))
        elif self.files is not None:
            target = len(self.files.get(photo, image, rate).data)
        else:
            target = uniform_bytes(rate, image.width, image.height, photo.caption or "")
        result = self.encode_near(image, self.name, target, self._tried)
        names = ("image", "data", "reached", "quality", "decode_seconds")
        about = {name: getattr(result, name) for name in names}
        return about | {"target_bytes": target, "encode_seconds": self._tried[result.quality][1]}


def ladder_name(bpp: float) -> str:
    """Name of a rung in the table, which no rate of the paper can have."""
    return f"{bpp:g}bpp"


def uniform_bytes(rate: str, width: int, height: int, caption: str) -> int:
    """Size of perco's file with the uniform code for indices, the same for all weights."""
    indices = np.zeros(get_rate(rate).grid_shape(height, width), np.int64)
    return len(pack(PercoFile(get_rate(rate), width, height, caption, indices, model_id=0)))
