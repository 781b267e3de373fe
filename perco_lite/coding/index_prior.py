"""How likely each code is in a grid, given the codes before it: a small network in whole numbers.

    codes to the left and above, row ──tables──► sum (D,) ──► hidden layer ──► logits (K,), log2
    logits ──table of 2**(-i/32)──► sizes (K,), each ≥ 1 ──► range coder

Weights are 16-bit integers in 1/256, sums are 64-bit, and the exponential is a table of integers
made by integer square roots: there is no float, so nothing to round differently elsewhere.

Paper: PerCo codes indices uniformly, log2 K bits each, and names an entropy model as a way to gain.
Differs from the paper: this one. It costs bits only where it saves them; see ``bitstream``.

Taught in notebook 06.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from math import isqrt

import numpy as np

from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder
from perco_lite.coding.tables import arrays_id, read_table

# (rows up, columns to the left; negative: to the right) of the codes that are looked at
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))
BANDS = 8  # how far down a code is, in eighths of the grid: sky is above
WEIGHT_BITS = 8  # weights are in 1/256
_STEP_BITS = 5  # logits are in 1/32 of log2
_ONE_BITS = 18  # the likeliest code has size 2**18
MAX_PRIOR_INDICES = 8192  # of a grid coded with a prior, which takes some 30 µs for each
MAX_CODEBOOK_SIZE = 8192  # so that the sizes of all codes fit the range coder's total
_MARGIN = 2  # neighbours reach this far


@dataclass(frozen=True, eq=False)  # no ==: arrays do not compare to one truth value
class IndexPrior:
    """Weights for one rate, all int64 and of 16 bits in size; D numbers inside, K codes.

    A grid is read row by row; outside of it stands the code K.
    """

    tables: np.ndarray  # (6, K + 1, D): what each neighbour's code adds
    bands: np.ndarray  # (8, D): what the height in the picture adds
    hidden: np.ndarray  # (D, D)
    hidden_bias: np.ndarray  # (D,)
    out: np.ndarray  # (D, K)
    out_bias: np.ndarray  # (K,)

    def __post_init__(self):
        size, width = self.codebook_size, self.out.shape[0]
        if not 2 <= size <= MAX_CODEBOOK_SIZE:
            raise ValueError(f"got {size} codes, expected 2 to {MAX_CODEBOOK_SIZE}: no prior then")
        shapes = {
            "tables": (len(NEIGHBOURS), size + 1, width),
            "bands": (BANDS, width),
            "hidden": (width, width),
            "hidden_bias": (width,),
            "out": (width, size),
            "out_bias": (size,),
        }
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values.shape != shape or values.dtype != np.int64 or abs(values).max() > 0x7FFF:
                raise ValueError(
                    f"got {name} of shape {values.shape} and type {values.dtype}, expected "
                    f"{shape}, int64 within 16 bits: quantize the weights, or train them again"
                )

    @property
    def codebook_size(self) -> int:
        """K, the number of codes."""
        return self.out.shape[-1]

    def walk(self, indices: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """(start, size, total) of each index of a grid (h, w), row by row: the coder's view.

        Raises ``ValueError`` for anything but a grid of integers below K.
        """
        indices = np.asarray(indices)
        bad = indices.ndim != 2 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer)
        if bad or indices.min() < 0 or indices.max() >= self.codebook_size:
            raise ValueError(
                f"got indices {indices.shape} of {indices.dtype}, expected a grid (h, w) of 0 to "
                f"{self.codebook_size - 1}: pass the grid of the rate this prior was trained for"
            )
        padded = _padded(indices, self.codebook_size)
        places = np.arange(indices.shape[1])
        for y, row in enumerate(indices):
            inside = self._from_above(padded, y)
            for left, table in self._beside:
                inside = inside + table[_row(padded, y, 0, left)]
            sizes = self._sizes(inside)
            ends = np.cumsum(sizes, axis=1)
            end, size = ends[places, row], sizes[places, row]
            # Python's integers: the coder's do not fit 64 bits
            yield from zip((end - size).tolist(), size.tolist(), ends[:, -1].tolist(), strict=True)

    def encode(self, coder: RangeEncoder, indices: np.ndarray) -> None:
        """Code a grid (h, w) into ``coder``; its shape is not coded."""
        for share in self.walk(indices):
            coder.encode(*share)

    def decode(
        self, decoder: RangeDecoder, shape: tuple[int, int], again: RangeEncoder | None = None
    ) -> np.ndarray:
        """Grid of ``shape`` (h, w), int64, that ``encode`` coded; ``again`` as in ``read``.

        Raises ``ValueError`` for bytes that no encoder makes.
        """
        height, width = shape
        padded = _padded(np.full(shape, self.codebook_size), self.codebook_size)
        beside = self._beside
        for y in range(height):
            above = self._from_above(padded, y)  # once a row: only the codes beside are new
            row = [self.codebook_size] * _MARGIN
            for x in range(width):
                inside = above[x]
                for left, table in beside:
                    inside = inside + table[row[x + _MARGIN - left]]
                row.append(decoder.read(self._sizes(inside).cumsum(), again))
            padded[y + _MARGIN, _MARGIN:-_MARGIN] = row[_MARGIN:]
        return padded[_MARGIN:, _MARGIN:-_MARGIN].copy()

    @property
    def _beside(self) -> list[tuple[int, np.ndarray]]:
        """(columns to the left, table) of the neighbours in the same row."""
        places = zip(NEIGHBOURS, self.tables, strict=True)
        return [(left, table) for (up, left), table in places if not up]

    def _from_above(self, padded: np.ndarray, y: int) -> np.ndarray:
        """What the height and the codes in earlier rows add at each place of row y, (w, D)."""
        inside = self.bands[BANDS * y // (len(padded) - _MARGIN)]
        for (up, left), table in zip(NEIGHBOURS, self.tables, strict=True):
            if up:
                inside = inside + table[_row(padded, y, up, left)]
        return inside

    def _sizes(self, inside: np.ndarray) -> np.ndarray:
        """Sizes (…, K) of all codes' shares from what was added up inside, (…, D)."""
        inside = np.maximum(inside, 0)
        more = (inside @ self.hidden >> WEIGHT_BITS) + self.hidden_bias
        inside = inside + np.maximum(more, 0)
        # inside @ self.out; for whole numbers einsum is the faster of the two
        logits = np.einsum("...d,dk->...k", inside, self.out) + (self.out_bias << WEIGHT_BITS)
        logits >>= 2 * WEIGHT_BITS - _STEP_BITS
        below = logits.max(axis=-1, keepdims=True) - logits
        return _powers().take(below, mode="clip") + 1

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The weights as named arrays of 16 bits; ``from_arrays`` reads them."""
        return {
            prefix + f.name: getattr(self, f.name).astype("<i2", order="C") for f in fields(self)
        }

    @classmethod
    def from_arrays(cls, arrays, prefix: str) -> "IndexPrior":
        """Inverse of ``arrays``; raises ``KeyError`` where one is missing."""
        stored = {f.name: arrays[prefix + f.name] for f in fields(cls)}
        # row by row in memory, whatever the file has: einsum is faster so
        return cls(**{name: values.astype(np.int64, order="C") for name, values in stored.items()})


@dataclass(frozen=True, eq=False)
class PriorSet:
    """The priors of one codec's weights, and 16 bits that name them by their content."""

    model_id: int  # of the weights whose codes they were trained on
    priors: dict[str, IndexPrior]  # by the name of a rate
    table_id: int

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "PriorSet":
        """Read what ``training.index_prior`` wrote; raises ``KeyError`` or ``ValueError``."""
        names = sorted({name.split("/")[0] for name in arrays if "/" in name})
        priors = {name: IndexPrior.from_arrays(arrays, f"{name}/") for name in names}
        return cls(int(arrays["model_id"][0]), priors, arrays_id(arrays, 1 << 16))


@cache
def bundled() -> PriorSet | None:
    """The priors of the package, read once; None where it has none. They belong to its weights.

    Raises ``ValueError`` for a damaged file.
    """
    return read_table("index_prior.npz", PriorSet.from_arrays)


def find_prior(model_id: int, rate: str, count: int = 0) -> IndexPrior | None:
    """The bundled prior for these weights and this rate, or None.

    None for a grid of a ``count`` of more than ``MAX_PRIOR_INDICES``, too: it is coded uniformly.
    """
    found = bundled() if count <= MAX_PRIOR_INDICES else None
    return found.priors.get(rate) if found and found.model_id == model_id else None


def prior_table_id() -> int:
    """16 bits that name the bundled priors; 0 where there are none."""
    found = bundled()
    return found.table_id if found else 0


def grid_contexts(indices: np.ndarray, codebook_size: int) -> np.ndarray:
    """Codes (h·w, 7) around each place of a grid (h, w): the six neighbours and the band."""
    padded, (height, width) = _padded(indices, codebook_size), indices.shape
    bands = np.repeat(BANDS * np.arange(height) // height, width)
    near = [[_row(padded, y, *place) for y in range(height)] for place in NEIGHBOURS]
    return np.stack([*(np.concatenate(rows) for rows in near), bands], axis=1)


def _padded(indices: np.ndarray, outside: int) -> np.ndarray:
    margins = ((_MARGIN, 0), (_MARGIN, _MARGIN))
    return np.pad(indices.astype(np.int64), margins, constant_values=outside)


def _row(padded: np.ndarray, y: int, up: int, left: int) -> np.ndarray:
    """Codes (w,) that stand so far up and to the left of each place of row y."""
    start, width = _MARGIN - left, padded.shape[1] - 2 * _MARGIN
    return padded[y + _MARGIN - up, start : start + width]


@cache
def _powers() -> np.ndarray:
    """floor(2**(18 - i/32)) for i = 0, 1, …, down to 0, exactly: 32nd roots by square roots."""
    powers = []
    for i in range((_ONE_BITS << _STEP_BITS) + 1):
        root = 1 << ((_ONE_BITS << _STEP_BITS) - i)
        for _ in range(_STEP_BITS):  # floors of square roots nest
            root = isqrt(root)
        powers.append(root)
    return np.array([*powers, 0], dtype=np.int64)
