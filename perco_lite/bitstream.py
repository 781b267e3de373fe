"""One `.perco` file: header, caption, indices and checksum as bytes, and where each byte went.

    byte 0     mmmmm vvv   5 bits that say "perco", 3 bits of format version
    byte 1     rrrr cc 00  4 bits rate id, 2 bits caption method, 2 reserved bits
    bytes 2-3  model id    which weights' codebooks the indices name; big-endian
    1-3 bytes  width - 1   LEB128: 7 bits a byte, lowest first, top bit set on all but the last
    1-3 bytes  height - 1  the same
    n bytes    caption     n is what the rest leaves
    k bytes    indices     k follows from rate, width and height; up to 7 spare bits come first
    2 bytes    checksum    CRC-16/CCITT of everything before, inverted; big-endian

A Kodak photo (768x512) pays 10 bytes beside its caption and indices.

Paper: PerCo counts caption and index bits only.
Differs from the paper: size, rate, model and checksum are in the file and in every figure.
"""

import binascii
from dataclasses import dataclass

import numpy as np

from perco_lite.entropy_coding import pack_indices, pack_text, unpack_indices, unpack_text
from perco_lite.rates import RATES, RatePoint

VERSION = 1
MAX_SIDE = 65_535
MAX_PIXELS = 100_000_000  # 100 megapixels: what a damaged size may ask a decoder to paint

_MAGIC = 0b10110  # byte 0 = 0xB1: starts no text in UTF-8, and none of the formats below
_CHECKSUM_BYTES = 2
_MIN_BYTES = 9  # 4 + two sizes of 1 + no caption + 1 byte of indices + checksum

_SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8": "a JPEG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a WebP image or another RIFF file",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000 image",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image",
    b"BM": "a BMP image",
    b"II*\x00": "a TIFF image",
    b"MM\x00*": "a TIFF image",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF document",
}


class BitstreamError(ValueError):
    """These bytes cannot be decoded; the message says why and what to do."""


@dataclass(frozen=True, eq=False)  # no ==: arrays do not compare to one truth value
class PercoFile:
    """What a `.perco` file says; ``indices`` is the grid (h, w) that ``rate`` gives this size."""

    rate: RatePoint
    width: int  # pixels
    height: int  # pixels
    caption: str
    indices: np.ndarray  # (h, w) int64, each below rate.codebook_size
    model_id: int  # 16 bits


@dataclass(frozen=True)
class _Parts:
    """A file cut up where its header says, nothing inside decoded yet."""

    rate: RatePoint
    width: int
    height: int
    model_id: int
    caption_method: int
    header: bytes
    caption: bytes
    indices: bytes


def pack(file: PercoFile) -> bytes:
    """Serialize a file; raises ``ValueError`` for contents that the format cannot hold."""
    if file.rate not in RATES:
        raise ValueError(f"got {file.rate}, expected one of RATES: append it there first")
    for name in ("width", "height", "model_id"):
        value = getattr(file, name)
        if not isinstance(value, int | np.integer):
            raise ValueError(f"got {name} {value!r}, expected an integer: round or convert it")
    # Python's integers from here on, which numpy's small ones would overflow
    width, height, model_id = int(file.width), int(file.height), int(file.model_id)
    if not 0 <= model_id <= 0xFFFF:
        raise ValueError(f"got model_id {model_id}, expected 16 bits: take 0 to 65535")
    problem = _size_problem(width, height)
    if problem:
        raise ValueError(f"{problem}: resize the image")
    expected, got = file.rate.grid_shape(height, width), np.shape(file.indices)
    if got != expected:
        raise ValueError(
            f"got indices of shape {got}, expected {expected} for {width}x{height} at "
            f"stride {file.rate.stride}: pass one grid (h, w), no batch axis"
        )
    method, caption = pack_text(file.caption)
    start = [_MAGIC << 3 | VERSION, RATES.index(file.rate) << 4 | method << 2]
    header = bytes(start) + model_id.to_bytes(2, "big") + _varint(width - 1) + _varint(height - 1)
    body = header + caption + pack_indices(file.indices, file.rate.codebook_size)
    return body + _checksum(body)


def unpack(data: bytes, model_id: int | None = None) -> PercoFile:
    """Read a file back; with ``model_id``, only one made by those weights.

    Raises ``BitstreamError`` for any other bytes, in time and memory bounded by ``len(data)``.
    """
    parts = _split(data)
    if model_id is not None and parts.model_id != model_id:
        raise BitstreamError(
            f"made by model {parts.model_id:#06x}, but the loaded weights are model "
            f"{model_id:#06x}: load the weights that made it"
        )
    h, w = parts.rate.grid_shape(parts.height, parts.width)
    try:
        caption = unpack_text(parts.caption_method, parts.caption)
        indices = unpack_indices(parts.indices, h * w, parts.rate.codebook_size)
    except ValueError as error:
        raise BitstreamError(f"{error}; get the file again from its source") from error
    return PercoFile(
        parts.rate, parts.width, parts.height, caption, indices.reshape(h, w), parts.model_id
    )


def ledger(data: bytes) -> dict[str, int]:
    """Bytes of a file by part: header (with checksum), caption, indices, padding.

    The parts add up to ``len(data)``. Padding counts whole bytes that carry nothing; this format
    has none, so it is 0. The up to 7 spare bits of the index code belong to the indices, as in
    ``RatePoint.index_bytes``. Raises ``BitstreamError`` for what ``unpack`` refuses.
    """
    unpack(data)  # no account of a file that does not decode
    parts = _split(data)
    used = {
        "header": len(parts.header) + _CHECKSUM_BYTES,
        "caption": len(parts.caption),
        "indices": len(parts.indices),
    }
    return used | {"padding": len(data) - sum(used.values())}


def _split(data: bytes) -> _Parts:
    """Check the header and the checksum and cut the file up; allocates nothing it was not given."""
    if not isinstance(data, bytes | bytearray):
        raise BitstreamError(f"got {type(data).__name__}, expected bytes: read the file as 'rb'")
    data = bytes(data)
    if not data:
        raise BitstreamError("the file is empty: get it again from its source")
    if data[0] >> 3 != _MAGIC:
        raise BitstreamError(f"{_foreign(data)}, not a .perco file: make one with `perco compress`")
    version = data[0] & 0b111
    if version != VERSION:
        newer = version > VERSION
        advice = "upgrade perco_lite" if newer else "get the file again from its source"
        raise BitstreamError(f"format version {version}, this program reads {VERSION}: {advice}")
    if len(data) < _MIN_BYTES:
        raise _damaged(f"only {len(data)} bytes, the shortest file has {_MIN_BYTES}")
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if checksum != _checksum(body):
        raise _damaged("wrong checksum, the file was cut or altered")
    # From here on the bytes are what somebody packed, though perhaps not by ``pack``.
    if body[1] & 0b11:
        raise _damaged("reserved bits are set")
    rate_id = body[1] >> 4
    if rate_id >= len(RATES):
        raise BitstreamError(
            f"rate id {rate_id}, this program knows 0 to {len(RATES) - 1}: upgrade perco_lite"
        )
    width, offset = _read_varint(body, 4)
    height, offset = _read_varint(body, offset)
    width, height = width + 1, height + 1
    problem = _size_problem(width, height)
    if problem:
        raise _damaged(problem)
    rate = RATES[rate_id]
    caption_end = len(body) - rate.index_bytes(height, width)
    if caption_end < offset:
        raise _damaged(
            f"{width}x{height} at rate {rate.name} needs {rate.index_bytes(height, width)} bytes "
            f"of indices, {len(body) - offset} are there"
        )
    return _Parts(
        rate=rate,
        width=width,
        height=height,
        model_id=int.from_bytes(body[2:4], "big"),
        caption_method=body[1] >> 2 & 0b11,
        header=body[:offset],
        caption=body[offset:caption_end],
        indices=body[caption_end:],
    )


def _damaged(what: str) -> BitstreamError:
    return BitstreamError(f"{what}: get the file again from its source")


def _foreign(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "this is an AVIF or HEIF image or an MP4 video"
    for signature, name in _SIGNATURES.items():
        if data.startswith(signature):
            return f"this is {name}"
    return f"unknown first byte {data[0]:#04x}"


def _size_problem(width: int, height: int) -> str | None:
    """What is wrong with an image size, or None."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        return f"{width}x{height} pixels, each side must be 1 to {MAX_SIDE}"
    if width * height > MAX_PIXELS:
        return f"{width}x{height} pixels, more than {MAX_PIXELS // 1_000_000} megapixels"
    return None


def _checksum(body: bytes) -> bytes:
    # Inverted, for without that a valid file followed by any number of zero bytes is valid too;
    # it starts from ones so that leading zeros count.
    return (binascii.crc_hqx(body, 0xFFFF) ^ 0xFFFF).to_bytes(_CHECKSUM_BYTES, "big")


def _varint(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups[-1] |= 0x80  # another byte follows
        groups.append(value & 0x7F)
    return bytes(groups)


def _read_varint(body: bytes, offset: int) -> tuple[int, int]:
    """Value at ``offset`` and the offset behind it."""
    value = 0
    for position, byte in enumerate(body[offset : offset + 3]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            if byte == 0 and position > 0:  # the value fits in fewer bytes: one size, one code
                raise _damaged("superfluous byte in the image size")
            return value, offset + position + 1
    raise _damaged("the image size does not end")
