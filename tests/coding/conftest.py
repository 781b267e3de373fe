"""What the tests of coding/ share: files and priors made to order."""

import numpy as np
from hypothesis import settings

from perco_lite.coding.bitstream import PercoFile
from perco_lite.coding.entropy_coding import caption_table_id, pack_text
from perco_lite.coding.index_prior import BANDS, NEIGHBOURS, IndexPrior, prior_table_id
from perco_lite.coding.range_coder import RangeEncoder
from perco_lite.rates import get_rate

fixed = settings(derandomize=True, deadline=None)
KODAK_CAPTION = "A red door in front of a brick building."


def crc16(data):
    """CRC-16/CCITT bit by bit: polynomial x^16 + x^12 + x^5 + 1, ones first, inverted."""
    register = 0xFFFF
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1 ^ (0x1021 if register & 0x8000 else 0)) & 0xFFFF
    return (register ^ 0xFFFF).to_bytes(2, "big")


def sealed(body):
    """A body with the checksum that makes it pass for whole."""
    flags = body[1] if body[0] == 0xB2 and len(body) > 1 else 0
    ids = (caption_table_id() if flags & 8 else 0) + 2 * (prior_table_id() if flags & 4 else 0)
    crc = int.from_bytes(crc16(bytes(body)), "big") ^ ids % 0xFFFF
    return bytes(body) + crc.to_bytes(2, "big")


def make(name="0.0019", width=768, height=512, caption=KODAK_CAPTION, model_id=0xBEEF, seed=0):
    rate = get_rate(name)
    shape = rate.grid_shape(height, width)
    indices = np.random.default_rng(seed).integers(0, rate.codebook_size, shape)
    return PercoFile(rate, width, height, caption, indices, model_id)


def expected_ledger(file, version=2):
    """Bytes of each part by the format's own table; indices uniform, as without a prior."""
    method, caption = pack_text(file.caption, with_table=version == 2)
    spelled = version == 1 or sorted((file.width, file.height)) not in ([512, 512], [512, 768])
    sides = sum(1 + (side > 128) + (side > 128**2) for side in (file.width, file.height))
    h, w = (-(-side // file.rate.stride) for side in (file.height, file.width))
    return {
        "header": 2 + 2 + spelled * sides + 2,  # magic and rate, model, sizes, checksum
        "caption": len(caption) + (version == 2 and method != 3),
        "indices": -(-h * w * (file.rate.codebook_size - 1).bit_length() // 8),
    }


def assert_same(a, b):
    assert (a.rate, a.width, a.height) == (b.rate, b.width, b.height)
    assert (a.caption, a.model_id) == (b.caption, b.model_id)
    assert a.indices.dtype == np.int64 and np.array_equal(a.indices, b.indices)


def make_prior(size=5, width=3, seed=0, scale=300):
    numbers = np.random.default_rng(seed)

    def draw(*shape):
        return numbers.integers(-scale, scale + 1, shape)

    return IndexPrior(
        draw(len(NEIGHBOURS), size + 1, width),
        draw(BANDS, width),
        draw(width, width),
        draw(width),
        draw(width, size),
        draw(size),
    )


def encode(prior: IndexPrior, grid: np.ndarray) -> bytes:
    coder = RangeEncoder()
    prior.encode(coder, grid)
    return coder.finish()


class Formula:
    """Numbers by a rule, no library: top bits of x → (1103515245 x + 12345) mod 2**31."""

    def __init__(self, start: int):
        self.state = start

    def draw(self, limit: int, *shape: int) -> np.ndarray:
        """Whole numbers from 0 to limit - 1."""
        numbers = []
        for _ in range(int(np.prod(shape))):
            self.state = (1103515245 * self.state + 12345) % 2**31
            numbers.append((self.state >> 12) % limit)
        return np.array(numbers, dtype=np.int64).reshape(shape)


def formula_prior(size: int, width: int) -> IndexPrior:
    """Weights from -1 to 1, in 1/256, biases of the codes to ±4."""
    formula = Formula(7)

    def signed(*shape):
        return formula.draw(513, *shape) - 256

    return IndexPrior(
        tables=signed(len(NEIGHBOURS), size + 1, width),
        bands=signed(BANDS, width),
        hidden=signed(width, width),
        hidden_bias=signed(width),
        out=signed(width, size),
        out_bias=4 * signed(size),
    )
