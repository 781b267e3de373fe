"""One `.perco` file: header, indices, caption and checksum as bytes, and where each byte went.

    4-10 bytes  header    rate, size, model; see `file_header`
    k bytes     indices   k follows from rate, width and height; up to 7 spare bits come first
    n bytes     caption   n is what the rest leaves; coded with the caption table, or, where the
                          header says otherwise, a byte that names the method and then its code
    2 bytes     checksum  of everything before, and of the caption table that was used

A Kodak photo (768x512) pays 6 bytes beside its caption and indices. Files of version 1 are read
too: there the caption comes before the indices, and a Kodak photo pays 10 bytes.

Paper: PerCo counts caption and index bits only.
Differs from the paper: size, rate, model and checksum are in the file and in every figure.
"""

from dataclasses import dataclass

import numpy as np

from perco_lite.entropy_coding import (
    TABLE,
    caption_costs,
    caption_table_id,
    pack_indices,
    pack_text,
    unpack_indices,
    unpack_text,
    zlib_bytes,
)
from perco_lite.file_header import (
    CHECKSUM_BYTES,
    BitstreamError,
    Header,
    checksum,
    damaged,
    read_header,
    size_problem,
    write_header,
)
from perco_lite.rates import RATES, RatePoint

__all__ = ["BitstreamError", "PercoFile", "bit_ledger", "ledger", "pack", "unpack"]


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

    header: Header
    caption_method: int
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
    problem = size_problem(width, height)
    if problem:
        raise ValueError(f"{problem}: resize the image")
    expected, got = file.rate.grid_shape(height, width), np.shape(file.indices)
    if got != expected:
        raise ValueError(
            f"got indices of shape {got}, expected {expected} for {width}x{height} at "
            f"stride {file.rate.stride}: pass one grid (h, w), no batch axis"
        )
    method, caption = pack_text(file.caption)
    table_coded = method == TABLE
    body = write_header(file.rate, width, height, model_id, table_coded)
    body += pack_indices(file.indices, file.rate.codebook_size)
    body += caption if table_coded else bytes([method]) + caption
    return body + checksum(body, caption_table_id() if table_coded else 0)


def unpack(data: bytes, model_id: int | None = None) -> PercoFile:
    """Read a file back; with ``model_id``, only one made by those weights.

    Raises ``BitstreamError`` for any other bytes, in time and memory bounded by ``len(data)``.
    """
    return _decode(_split(data), model_id)


def ledger(data: bytes) -> dict[str, int]:
    """Bytes of a file by part: header (with checksum), caption, indices, padding.

    The parts add up to ``len(data)``. Padding counts whole bytes that carry nothing; this format
    has none, so it is 0. The up to 7 spare bits of the index code belong to the indices, as in
    ``RatePoint.index_bytes``. Raises ``BitstreamError`` for what ``unpack`` refuses.
    """
    parts = _split(data)
    _decode(parts, None)  # no account of a file that does not decode
    indices = len(parts.indices)
    used = {
        "header": parts.header.size + CHECKSUM_BYTES,
        "caption": len(data) - parts.header.size - CHECKSUM_BYTES - indices,
        "indices": indices,
    }
    return used | {"padding": len(data) - sum(used.values())}


def bit_ledger(data: bytes) -> dict[str, dict[str, float]]:
    """Bits of a file by part, three times: nominal, model, actual.

    nominal: the paper's account, log2 K an index, zlib's bytes of the caption, no header;
    model: -log2 of the probability our models gave what was sent, before rounding to bytes;
    actual: on disk, 8 times ``ledger``. Raises ``BitstreamError`` for what ``unpack`` refuses.
    """
    parts, actual = _split(data), {name: 8 * count for name, count in ledger(data).items()}
    file = _decode(parts, None)
    indices = file.indices.size * file.rate.bits_per_index
    nominal = {"caption": 8 * zlib_bytes(file.caption) if file.caption else 0, "indices": indices}
    model = {"header": actual["header"], "caption": actual["caption"], "indices": indices}
    if parts.caption_method == TABLE:
        model["caption"] = sum(bits for _, bits in caption_costs(file.caption))
    return {
        name: {"nominal": nominal.get(name, 0), "model": model.get(name, 0), "actual": count}
        for name, count in actual.items()
    }


def _split(data: bytes) -> _Parts:
    """Check the header and the checksum and cut the file up; allocates nothing it was not given."""
    header = read_header(data, caption_table_id(), TABLE)
    body = bytes(data)[header.size : -CHECKSUM_BYTES]
    count = header.rate.index_bytes(header.height, header.width)
    if count > len(body):
        raise damaged(
            f"{header.width}x{header.height} at rate {header.rate.name} needs {count} bytes "
            f"of indices, {len(body)} are there"
        )
    if header.version == 1:
        caption_end = len(body) - count
        if header.caption_method == TABLE:
            raise damaged("caption method 3, version 1 has 0 to 2")
        return _Parts(header, header.caption_method, body[:caption_end], body[caption_end:])
    indices, caption, method = body[:count], body[count:], header.caption_method
    if method is None:
        if not caption:
            raise damaged("the caption does not name its method")
        method, caption = caption[0], caption[1:]
        if method == TABLE:
            raise damaged("the caption names the table, which the header would have done")
    return _Parts(header, method, caption, indices)


def _decode(parts: _Parts, model_id: int | None) -> PercoFile:
    header = parts.header
    if model_id is not None and header.model_id != model_id:
        raise BitstreamError(
            f"made by model {header.model_id:#06x}, but the loaded weights are model "
            f"{model_id:#06x}: load the weights that made it"
        )
    h, w = header.rate.grid_shape(header.height, header.width)
    try:
        caption = unpack_text(parts.caption_method, parts.caption)
        indices = unpack_indices(parts.indices, h * w, header.rate.codebook_size)
    except ValueError as error:
        raise BitstreamError(f"{error}; get the file again from its source") from error
    return PercoFile(
        header.rate, header.width, header.height, caption, indices.reshape(h, w), header.model_id
    )
