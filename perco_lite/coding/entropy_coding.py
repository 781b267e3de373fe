"""Index grids and captions to bytes and back, without loss.

    indices (h, w), each < K ──► one number of h·w digits in base K ──► ceil(h·w·log2 K / 8) bytes
    caption (str) ──► shortest of {UTF-8, deflate, deflate + dictionary} ──► bytes
                      in files of version 2 also a trained table

Paper: PerCo (a uniform code for the indices, Lempel-Ziv for the caption).
Differs from the paper: the paper pays zlib.compress (``zlib_bytes``), which makes a typical caption
longer. We drop zlib's header and checksum, and start from a dictionary of common caption phrases.
A table of English captions (``caption_model``) takes a seventh of the paper's bytes.

Taught in notebooks 04 and 05.
"""

import zlib
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from perco_lite.coding.caption_model import bundled
from perco_lite.rates import uniform_code_bytes

MAX_CAPTION_BYTES = 65_535  # of UTF-8; also what stops a decompression bomb
MAX_CODEBOOK_SIZE = 2**32

# How a caption is stored: ids inside a .perco file, so append only.
UTF8, DEFLATE, DEFLATE_DICTIONARY, TABLE = 0, 1, 2, 3

# ------------------------------------------------------------------------------------- indices


def pack_indices(indices: ArrayLike, codebook_size: int) -> bytes:
    """Code indices of any shape, in row-major order, as one number in base ``codebook_size`` = K.

    The first index is the most significant digit and the number is big-endian, so spare bits come
    first and are zero. Returns exactly ceil(n * log2(K) / 8) bytes. Time is linear in n for K a
    power of two, quadratic otherwise. Raises ``ValueError`` for values outside 0..K-1.
    """
    _check_codebook_size(codebook_size)
    digits = np.asarray(indices).reshape(-1)
    if digits.size == 0:
        return b""
    if not np.issubdtype(digits.dtype, np.integer):
        raise ValueError(f"got indices of type {digits.dtype}, expected integers: cast them first")
    low, high = int(digits.min()), int(digits.max())
    if low < 0 or high >= codebook_size:
        raise ValueError(
            f"got indices from {low} to {high}, expected 0 to {codebook_size - 1}: "
            "pass the codebook_size that made them"
        )
    size = uniform_code_bytes(digits.size, codebook_size)
    width = _whole_bits(codebook_size)
    if width is None:
        number = 0
        for digit in digits.tolist():
            number = number * codebook_size + digit
        return number.to_bytes(size, "big")
    # base 2**width: the digits' own bits, one after the other, are the number
    bits = np.unpackbits(digits.astype(">u4").view(np.uint8).reshape(-1, 4), axis=1)
    bits = bits[:, 32 - width :].reshape(-1)
    spare = np.zeros(8 * size - bits.size, dtype=np.uint8)
    return np.packbits(np.concatenate([spare, bits])).tobytes()


def unpack_indices(data: bytes, count: int, codebook_size: int) -> np.ndarray:
    """Inverse of ``pack_indices``: ``count`` indices, shape (count,), int64.

    Raises ``ValueError`` if ``data`` has another length than such a code, or is no code at all
    (a spare bit set, or a number of K**count or more): each grid has exactly one code.
    """
    _check_codebook_size(codebook_size)
    if count < 0:
        raise ValueError(f"got count {count}, expected 0 or more: pass the number of indices")
    size = uniform_code_bytes(count, codebook_size)
    if len(data) != size:
        raise ValueError(
            f"got {len(data)} bytes for {count} indices below {codebook_size}, expected {size}: "
            "pass the grid and the codebook_size that made them"
        )
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    width = _whole_bits(codebook_size)
    if width is None:
        number, digits = int.from_bytes(data, "big"), np.empty(count, dtype=np.int64)
        for position in reversed(range(count)):
            number, digits[position] = divmod(number, codebook_size)
        out_of_range = number > 0
    else:
        bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
        spare, bits = np.split(bits, [8 * size - count * width])
        out_of_range = bool(spare.any())
        padded = np.zeros((count, 32), dtype=np.uint8)
        padded[:, 32 - width :] = bits.reshape(count, width)
        digits = np.packbits(padded, axis=1).view(">u4").reshape(-1).astype(np.int64)
    if out_of_range:
        raise ValueError(
            f"got a number of {codebook_size}**{count} or more, expected less (spare bits are "
            "zero): the bytes are damaged or were made for another codebook_size"
        )
    return digits


def _check_codebook_size(codebook_size: int) -> None:
    if not 2 <= codebook_size <= MAX_CODEBOOK_SIZE:
        raise ValueError(
            f"got codebook_size {codebook_size}, expected 2 to {MAX_CODEBOOK_SIZE}: "
            "pass the number of codebook entries"
        )


def _whole_bits(codebook_size: int) -> int | None:
    """Bits of one index if K is a power of two, else None."""
    bits = codebook_size.bit_length() - 1
    return bits if codebook_size == 1 << bits else None


# ------------------------------------------------------------------------------------ captions


def pack_text(text: str, with_table: bool = False) -> tuple[int, bytes]:
    """Code a string (at most 65,535 bytes of UTF-8) in the shortest of three ways, or of four.

    Returns ``(method, data)``, where data is never longer than the UTF-8 itself; of two methods
    that tie, the lower. ``with_table``, for files of version 2, adds TABLE: then the others count
    one byte more, for the name they need in such a file, and TABLE wins where it ties.
    Every Python string round-trips, lone surrogates included.
    Deflate's bytes may differ from one build of zlib to the next (zlib-ng searches otherwise), but
    each build reads what any other wrote; TABLE's are the same everywhere. Raises ``ValueError``
    for a longer string.
    """
    if not isinstance(text, str):
        raise ValueError(f"got a caption of type {type(text).__name__}, expected str: decode it")
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_CAPTION_BYTES:
        raise ValueError(
            f"got a caption of {len(raw)} bytes of UTF-8, expected at most {MAX_CAPTION_BYTES}: "
            "shorten it"
        )
    coded = {UTF8: raw, DEFLATE: deflate(raw), DEFLATE_DICTIONARY: deflate(raw, dictionary())}
    if with_table and bundled().holds(text):
        data = bundled().encode(text)
        if len(data) <= len(raw):
            coded[TABLE] = data

    def cost(item: tuple[int, bytes]) -> tuple[int, bool, int]:
        named = item[0] != TABLE  # alike for all where there is no table
        return len(item[1]) + named, named, item[0]

    return min(coded.items(), key=cost)


def unpack_text(method: int, data: bytes) -> str:
    """Inverse of ``pack_text``; raises ``ValueError`` for anything that it cannot have made.

    Time and memory are bounded by ``MAX_CAPTION_BYTES``, whatever the data claims to hold.
    """
    if method not in (UTF8, DEFLATE, DEFLATE_DICTIONARY, TABLE):
        raise ValueError(f"got caption method {method}, expected 0 to 3: the data is damaged")
    if len(data) > MAX_CAPTION_BYTES:
        raise ValueError(
            f"got {len(data)} bytes of caption, expected at most {MAX_CAPTION_BYTES}: "
            "the data is damaged"
        )
    raw = bytes(data)
    if method == TABLE:
        return bundled().decode(raw)
    if method != UTF8:
        raw = _inflate(raw, dictionary() if method == DEFLATE_DICTIONARY else b"")
        if len(data) >= len(raw):  # pack_text would have chosen UTF8: one caption, one method
            raise ValueError(
                f"got {len(data)} bytes deflated for {len(raw)} bytes of caption, expected fewer: "
                "the data is damaged"
            )
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ValueError(f"the caption is not UTF-8 ({error}): the data is damaged") from error


def caption_costs(text: str) -> list[tuple[str, float]]:
    """What each word of a caption coded with TABLE costs in bits; see ``CaptionModel.costs``."""
    return bundled().costs(text)


def caption_table_id() -> int:
    """16 bits that name the table of method TABLE; see ``tables.arrays_id``."""
    return bundled().table_id


def zlib_bytes(text: str) -> int:
    """Bytes of a caption in the paper's accounting: zlib at level 9 of its UTF-8."""
    return len(zlib.compress(text.encode("utf-8", "surrogatepass"), 9))


# Raw deflate (RFC 1951), hence the negative window size: zlib wraps it in 2 bytes of header and 4
# of checksum, which the paper pays; our file has a checksum of its own.
_RAW_WINDOW = -15


def deflate(raw: bytes, behind: bytes = b"") -> bytes:
    """Raw deflate at its strongest; it may point back to what is ``behind`` the first byte."""
    options: dict[str, Any] = {"zdict": behind} if behind else {}
    options |= {"level": 9, "wbits": _RAW_WINDOW, "memLevel": 9}
    deflater = zlib.compressobj(**options)
    return deflater.compress(raw) + deflater.flush()


def _inflate(data: bytes, behind: bytes = b"") -> bytes:
    options: dict[str, Any] = {"zdict": behind} if behind else {}
    inflater = zlib.decompressobj(wbits=_RAW_WINDOW, **options)
    try:
        raw = inflater.decompress(data, MAX_CAPTION_BYTES + 1)  # one more, to notice a longer one
    except zlib.error as error:
        raise ValueError(f"cannot inflate the caption ({error}): the data is damaged") from error
    if len(raw) > MAX_CAPTION_BYTES:
        raise ValueError(f"the caption inflates past {MAX_CAPTION_BYTES} bytes: it is damaged")
    if not inflater.eof or inflater.unused_data:
        what = "goes on after its end" if inflater.eof else "stops before its end"
        raise ValueError(f"the deflated caption {what}: the data is damaged")
    return raw


@cache
def dictionary() -> bytes:
    """What deflate may point back to before the caption's first letter, most useful phrases last.

    Part of the file format: with another dictionary, old captions would read as nonsense.
    """
    path = resources.files("perco_lite.coding").joinpath("caption_dictionary.txt")
    phrases = path.read_text(encoding="utf-8").splitlines()  # any line ending, so any git setting
    return " ".join(["", *phrases, ""]).encode("utf-8")
