"""The paper's eight rates; every bits-per-pixel figure of the indices is computed here.

    image (H, W) ──/ stride──► grid (h, w) ──× log2 K──► bits ──► index bytes
                    ceil                       ──/ (H·W)──► bits per pixel

Paper: PerCo, Table 2 as PerCo (SD) quotes it (grid and codebook sizes; one model per rate).
Differs from the paper: a rate is a stride, not a grid at 512x512, so it serves any image size; and
the rate 0.0507 has K = 8192, where PerCo (SD)'s configuration has 8196 (13 bits are surely meant).

Taught in notebook 00.
"""

import math
from dataclasses import dataclass
from numbers import Real


def uniform_code_bytes(count: int, codebook_size: int) -> int:
    """Bytes of ``count`` indices below ``codebook_size`` = K: ceil(count * log2(K) / 8), exactly.

    Integers only: they can take K**count different values, and the largest of these decides.
    """
    if codebook_size & (codebook_size - 1) == 0:  # a power of two: whole bits for each index
        bits = count * (codebook_size.bit_length() - 1)
    else:
        bits = (codebook_size**count - 1).bit_length()
    return (bits + 7) // 8


@dataclass(frozen=True)
class RatePoint:
    """One operating point: how finely the image is gridded, and how many codes an index can name.

    ``stride`` is in image pixels per index; ``codebook_size`` is K. Raises ``ValueError`` if
    either makes no sense.
    """

    name: str  # as the paper prints it: bits per pixel, rounded or cut to four places
    stride: int  # image pixels from one index to the next, in both directions
    codebook_size: int  # K, the entries an index can name

    def __post_init__(self):
        if self.stride < 1 or self.codebook_size < 2:
            raise ValueError(
                f"got stride {self.stride} and codebook_size {self.codebook_size}; expected at "
                "least 1 and 2: take a rate from RATES, or raise them"
            )

    def is_called(self, name: str | float) -> bool:
        """Whether ``name`` is this rate's, or its number."""
        if isinstance(name, Real):
            return abs(float(self.name) - name) < 1e-6
        return self.name == name

    @property
    def bits_per_index(self) -> float:
        """Bits of one index under a uniform code, log2 K."""
        return math.log2(self.codebook_size)

    @property
    def bits_per_pixel(self) -> float:
        """Nominal rate of the indices alone (no caption, no header), log2 K / stride²."""
        return self.bits_per_index / self.stride**2

    def grid_shape(self, height: int, width: int) -> tuple[int, int]:
        """Size (h, w) of the index grid of an image of (height, width) pixels, rounded up.

        Raises ``ValueError`` for a side below 1.
        """
        if height < 1 or width < 1:
            raise ValueError(
                f"got an image of {width}x{height} pixels, expected at least 1x1: "
                "pass height and width in pixels"
            )
        return -(-height // self.stride), -(-width // self.stride)

    def index_bytes(self, height: int, width: int) -> int:
        """Bytes that the indices of an image of (height, width) pixels take, rounded up."""
        h, w = self.grid_shape(height, width)
        return uniform_code_bytes(h * w, self.codebook_size)


# A rate's position here is its id inside a .perco file: append only (16 fit), never sort or remove.
RATES: tuple[RatePoint, ...] = (
    RatePoint("0.0019", stride=64, codebook_size=256),
    RatePoint("0.0024", stride=64, codebook_size=1024),
    RatePoint("0.0059", stride=32, codebook_size=64),
    RatePoint("0.0098", stride=32, codebook_size=1024),
    RatePoint("0.0313", stride=16, codebook_size=256),
    RatePoint("0.0507", stride=16, codebook_size=8192),  # 8196 in PerCo (SD)
    RatePoint("0.0937", stride=8, codebook_size=64),
    RatePoint("0.1250", stride=8, codebook_size=256),
)


def get_rate(name: str | float) -> RatePoint:
    """Rate called ``name``, such as ``"0.0019"``, or the number; ValueError lists the names."""
    for rate in RATES:
        if rate.is_called(name):
            return rate
    names = ", ".join(rate.name for rate in RATES)
    raise ValueError(f"got rate {name!r:.60}, expected one of {names}: pass the name as a string")
