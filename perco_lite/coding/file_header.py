"""The first bytes of a `.perco` file, in both versions of the format, and its checksum.

    version 2                                     version 1
    byte 0     mmmmm vvv   "perco", version       byte 0     the same
    byte 1     rrrr c p ss                        byte 1     rrrr cc 00
    bytes 2-3  model id, big-endian               bytes 2-3  the same
    0 or 2-6   width - 1, height - 1 if ss = 3    2-6 bytes  width - 1, height - 1

    rrrr  rate id         c   caption coded with the table (1), or another way that it names (0)
    cc    caption method  p   indices coded with the weights' prior (only where c is 1)
                          ss  0: 768x512, 1: 512x768, 2: 512x512, 3: written out, each as
                              LEB128: 7 bits a byte, lowest first, top bit set on all but the last

Last come 2 bytes of checksum: CRC-16/CCITT of everything before, inverted; big-endian. Where c or
p is 1, the id of the table or prior is mixed in: a file asks for those that made it at no cost.

Paper: PerCo counts caption and index bits only.
Differs from the paper: size, rate, model and checksum are in the file and in every figure: 6 bytes
for a Kodak photo, 10 in version 1. A checksum of 16 bits misses one damaged file in
65,536; 8 bits would save a byte and miss one in 256.

Taught in notebook 06.
"""

import binascii
from dataclasses import dataclass

from perco_lite.rates import RATES, RatePoint

VERSIONS = (1, 2)  # `bitstream` writes the second unless told otherwise
MAX_SIDE = 65_535
MAX_PIXELS = 100_000_000  # 100 megapixels: what a damaged size may ask a decoder to paint
CHECKSUM_BYTES = 2
COMMON_SIZES = ((768, 512), (512, 768), (512, 512))  # (width, height); part of the format
RELEASES = {0x79F1: "0.1.0"}  # weights that this program no longer has, and which one has them

_MAGIC = 0b10110  # byte 0 = 0xB1 or 0xB2: starts no text in UTF-8, and none of the formats below
_FIXED = 4  # bytes before the size
_MIN_BYTES = _FIXED + CHECKSUM_BYTES  # what a prior is sure of takes no byte between them

_SIGNATURES: dict[str, bytes | tuple[bytes, ...]] = {
    "a PNG image": b"\x89PNG",
    "a JPEG image": b"\xff\xd8",
    "a GIF image": b"GIF8",
    "a WebP image or another RIFF file": b"RIFF",
    "a JPEG 2000 image": (b"\x00\x00\x00\x0cjP", b"\xff\x4f\xff\x51"),
    "a BMP image": b"BM",
    "a TIFF image": (b"II*\x00", b"MM\x00*"),
    "a ZIP archive": b"PK\x03\x04",
    "a gzip file": b"\x1f\x8b",
    "a PDF document": b"%PDF",
}


class BitstreamError(ValueError):
    """These bytes cannot be decoded; the message says why and what to do."""


@dataclass(frozen=True)
class Header:
    """What the first bytes say of the file and of how its caption and indices are coded."""

    version: int
    rate: RatePoint
    width: int  # pixels
    height: int  # pixels
    model_id: int  # 16 bits
    method: int | None  # of the caption; None in version 2, which says it in the other two
    table_coded: bool  # the caption, with the caption table
    prior_coded: bool  # the indices, with a prior
    size: int  # bytes, without the checksum


def write_header(
    version: int,
    rate: RatePoint,
    width: int,
    height: int,
    model_id: int,
    method: int = 0,
    table_coded: bool = False,
    prior_coded: bool = False,
) -> bytes:
    """Header of either version: ``method`` is for version 1, the last two are for version 2."""
    size, low = _varint(width - 1) + _varint(height - 1), method << 2
    if version == 2:
        common = len(COMMON_SIZES)
        if (width, height) in COMMON_SIZES:
            size, common = b"", COMMON_SIZES.index((width, height))
        low = table_coded << 3 | prior_coded << 2 | common
    start = [_MAGIC << 3 | version, RATES.index(rate) << 4 | low]
    return bytes(start) + model_id.to_bytes(2, "big") + size


def read_header(data: bytes, table_id: int = 0, prior_id: int = 0) -> Header:
    """Check the checksum and read the header; raises ``BitstreamError`` for anything else.

    The ids are those of this program's caption table and priors. Allocates nothing but a copy of
    ``data``.
    """
    if not isinstance(data, bytes | bytearray):
        raise BitstreamError(f"got {type(data).__name__}, expected bytes: read the file as 'rb'")
    version, table_coded, prior_coded, body = _sealed_body(bytes(data), table_id, prior_id)
    # From here on the bytes are what somebody packed, though perhaps not by ``pack``.
    flags = body[1]
    if version == 1 and flags & 0b11:
        raise damaged("reserved bits are set")
    if prior_coded and not table_coded:
        raise damaged("a prior for the indices without the table for the caption")
    rate_id = flags >> 4
    if rate_id >= len(RATES):
        raise BitstreamError(
            f"rate id {rate_id}, this program knows 0 to {len(RATES) - 1}: upgrade perco_lite"
        )
    width, height, end = _read_size(body, flags & 0b11 if version == 2 else len(COMMON_SIZES))
    rate, model_id = RATES[rate_id], int.from_bytes(body[2:4], "big")
    coded = flags >> 2 & 0b11 if version == 1 else None, table_coded, prior_coded
    return Header(version, rate, width, height, model_id, *coded, end)


def released(model_id: int) -> str:
    """Which release had weights that are no longer here, for a message; "" of other weights."""
    return f", those of perco_lite {RELEASES[model_id]}" if model_id in RELEASES else ""


def _sealed_body(data: bytes, table_id: int, prior_id: int) -> tuple[int, bool, bool, bytes]:
    """Version, whether coded with the caption table, with a prior, and what is before the checksum.

    Of a `.perco` file that this program can read.
    """
    if not data:
        raise BitstreamError("the file is empty: get it again from its source")
    if data[0] >> 3 != _MAGIC:
        raise BitstreamError(f"{_foreign(data)}, not a .perco file: make one with `perco compress`")
    version = data[0] & 0b111
    if version not in VERSIONS:
        newer = version > VERSIONS[-1]
        advice = "upgrade perco_lite" if newer else "get the file again from its source"
        raise BitstreamError(f"format version {version}, this program reads 1 and 2: {advice}")
    if len(data) < _MIN_BYTES:
        raise damaged(f"only {len(data)} bytes, the shortest file has {_MIN_BYTES}")
    body, found = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    table_coded, prior_coded = (version == 2 and bool(body[1] & bit) for bit in (0b1000, 0b0100))
    own = mixed_id(table_coded * table_id, prior_coded * prior_id)
    if found != checksum(body, own):
        what = "wrong checksum, the file was cut or altered"
        other = int.from_bytes(found, "big") ^ int.from_bytes(checksum(body), "big")
        if table_coded or prior_coded:
            names = "caption table" + (" and index prior" if prior_coded else "")
            what += f", or made with {names} {other:#06x} where this is {own:#06x}"
            what += released(int.from_bytes(body[2:4], "big"))
        raise damaged(what)
    return version, table_coded, prior_coded, body


def _read_size(body: bytes, common: int) -> tuple[int, int, int]:
    """Width, height and the offset behind them; ``common``: place in COMMON_SIZES, or past it."""
    if common < len(COMMON_SIZES):
        return *COMMON_SIZES[common], _FIXED
    width, end = _read_varint(body, _FIXED)
    height, end = _read_varint(body, end)
    width, height = width + 1, height + 1
    problem = size_problem(width, height)
    if problem is None and body[0] & 0b111 == 2 and (width, height) in COMMON_SIZES:
        problem = f"{width}x{height} written out, though it has a short code"
    if problem:
        raise damaged(problem)
    return width, height, end


def mixed_id(table_id: int, prior_id: int) -> int:
    """One id of 16 bits, never all ones, for a caption table and priors; 0 for what is not used."""
    # 2, which shares no factor with 65535: another prior always gives another id
    return (table_id + 2 * prior_id) % 0xFFFF


def checksum(body: bytes, used: int = 0) -> bytes:
    """Two bytes for the end of a file; ``used`` is the ``mixed_id`` of what coded it, or 0."""
    # Inverted, for without that a valid file followed by any number of zero bytes is valid too;
    # it starts from ones so that leading zeros count.
    crc = binascii.crc_hqx(body, 0xFFFF) ^ 0xFFFF ^ used
    return crc.to_bytes(CHECKSUM_BYTES, "big")


def size_problem(width: int, height: int) -> str | None:
    """What is wrong with an image size, or None."""
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        return f"{width}x{height} pixels, each side must be 1 to {MAX_SIDE}"
    if width * height > MAX_PIXELS:
        return f"{width}x{height} pixels, more than {MAX_PIXELS // 1_000_000} megapixels"
    return None


def damaged(what: str) -> BitstreamError:
    """The error for bytes that no program wrote like this."""
    return BitstreamError(f"{what}: get the file again from its source")


def _foreign(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        return "this is an AVIF or HEIF image or an MP4 video"
    known = (f"this is {name}" for name, start in _SIGNATURES.items() if data.startswith(start))
    return next(known, f"unknown first byte {data[0]:#04x}")


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
                raise damaged("superfluous byte in the image size")
            return value, offset + position + 1
    raise damaged("the image size does not end")
