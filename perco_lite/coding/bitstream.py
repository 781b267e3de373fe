"""One `.perco` file: header, caption, indices and checksum as bytes, and where each byte went.

    version 2, which is written
    4-10 bytes  header    rate, size, model, and how the rest is coded; see `file_header`
    k bytes     indices   k follows from rate, width and height; up to 7 spare bits come first
    n bytes     caption   n is what the rest leaves: coded with the caption table, or, where the
                          header says otherwise, a byte that names the method and then its code
    2 bytes     checksum  of everything before, and of the caption table that was used

    version 1, which is written where it is asked for
    6-10 bytes  header    rate, caption method, size, model
    n bytes     caption   the shortest of three ways, without the table
    k bytes     indices   as above
    2 bytes     checksum  of everything before

In version 2, where an index prior of the same weights makes the file shorter, one range code holds
the indices and then the caption. It is a bit of the header: no cost where it does not help.

A Kodak photo (768x512) pays 6 bytes beside its caption and indices, 10 in version 1. Both versions
are read; ``pack(unpack(data), version=1)`` turns a file into the other.

Paper: PerCo counts caption and index bits only.
Differs from the paper: size, rate, model and checksum are in the file and in every figure.

Taught in notebooks 05 and 06.
"""

import math
from dataclasses import dataclass

import numpy as np

from perco_lite.coding import caption_model
from perco_lite.coding.entropy_coding import (
    TABLE,
    caption_costs,
    caption_table_id,
    pack_indices,
    pack_text,
    unpack_indices,
    unpack_text,
    zlib_bytes,
)
from perco_lite.coding.file_header import (
    CHECKSUM_BYTES,
    VERSIONS,
    BitstreamError,
    Header,
    checksum,
    damaged,
    mixed_id,
    read_header,
    released,
    size_problem,
    write_header,
)
from perco_lite.coding.index_prior import MAX_PRIOR_INDICES, find_prior, prior_table_id
from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder
from perco_lite.rates import RATES, RatePoint

__all__ = ["BitstreamError", "PercoFile", "UnpackedFile", "WRITTEN_VERSION"]
__all__ += ["bit_ledger", "ledger", "pack", "unpack"]

WRITTEN_VERSION = 2


@dataclass(frozen=True, eq=False)  # no ==: arrays do not compare to one truth value
class PercoFile:
    """What a `.perco` file says; ``indices`` is the grid (h, w) that ``rate`` gives this size."""

    rate: RatePoint
    width: int  # pixels
    height: int  # pixels
    caption: str
    indices: np.ndarray  # (h, w) int64, each below rate.codebook_size
    model_id: int  # 16 bits


@dataclass(frozen=True, eq=False)
class UnpackedFile(PercoFile):
    """A file that was read, with where its bytes went: ``ledger``, and ``bits()`` in detail."""

    header: Header
    ledger: dict[str, int]  # bytes of header (with checksum), caption and indices
    method: int  # of the caption

    def bits(self) -> dict[str, dict[str, float]]:
        """Bits by part, three times: nominal, model, actual.

        nominal: the paper's account, log2 K an index, zlib's bytes of the caption, no header;
        model: -log2 of the probability our models gave what was sent, before rounding to bytes;
        actual: on disk, 8 times ``ledger``.
        """
        actual: dict[str, float] = {name: 8 * count for name, count in self.ledger.items()}
        indices = self.indices.size * self.rate.bits_per_index
        nominal: dict[str, float] = {"header": 0, "caption": 0, "indices": indices}
        if self.caption:
            nominal["caption"] = 8 * zlib_bytes(self.caption)
        model = actual | {"indices": indices}
        if self.method == TABLE:
            model["caption"] = sum(bits for _, bits in caption_costs(self.caption))
        if self.header.prior_coded:
            prior = find_prior(self.model_id, self.rate.name)
            assert prior is not None  # it was read with it
            shares = prior.walk(self.indices)
            model["indices"] = sum(math.log2(total / size) for _, size, total in shares)
        kinds = {"nominal": nominal, "model": model, "actual": actual}
        return {part: {kind: of[part] for kind, of in kinds.items()} for part in actual}


def pack(file: PercoFile, version: int = WRITTEN_VERSION) -> bytes:
    """Serialize a file in version 1 or 2 of the format.

    Raises ``ValueError`` for another version and for contents that the format cannot hold.
    """
    if version not in VERSIONS:
        raise ValueError(f"got format version {version!r}, expected 1 or 2: pass version=1 or 2")
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
    method, caption = pack_text(file.caption, with_table=version == 2)
    indices = pack_indices(file.indices, file.rate.codebook_size)
    if version == 1:
        body = write_header(1, file.rate, width, height, model_id, method) + caption + indices
        return body + checksum(body)
    table_coded = method == TABLE
    payload = indices + (caption if table_coded else bytes([method]) + caption)
    together = _pack_together(file, model_id) if table_coded else None
    prior_coded = together is not None and len(together) < len(payload)
    body = write_header(2, file.rate, width, height, model_id, 0, table_coded, prior_coded)
    body += together if together is not None and prior_coded else payload
    used = table_coded * caption_table_id(), prior_coded * prior_table_id()
    return body + checksum(body, mixed_id(*used))


def ledger(data: bytes) -> dict[str, int]:
    """Bytes of a file by part: header (with checksum), caption, indices; they add up to all.

    The up to 7 spare bits of the index code belong to the indices, as in ``RatePoint.index_bytes``;
    a byte that indices and caption share under a prior does too. Raises ``BitstreamError`` for what
    ``unpack`` refuses; who needs the file as well takes ``unpack(data).ledger``.
    """
    return unpack(data).ledger


def bit_ledger(data: bytes) -> dict[str, dict[str, float]]:
    """Bits of a file by part, three times, as ``UnpackedFile.bits``; errors as ``unpack``."""
    return unpack(data).bits()


def unpack(data: bytes, model_id: int | None = None) -> UnpackedFile:
    """Read a file back; with ``model_id``, only one made by those weights.

    Raises ``BitstreamError`` for any other bytes, in bounded time and memory: allocates nothing
    that the bytes do not fill, but for a grid under a prior, of at most ``MAX_PRIOR_INDICES``.
    """
    header = read_header(data, caption_table_id(), prior_table_id())
    if model_id is not None and header.model_id != model_id:
        raise BitstreamError(wrong_model(header.model_id, model_id))
    body = bytes(data)[header.size : -CHECKSUM_BYTES]
    try:
        if header.prior_coded:
            method, (caption, indices, spent) = TABLE, _unpack_together(header, body)
        else:
            method, coded, packed = _split(header, body)
            caption = unpack_text(method, coded)
            named = header.version == 2 and not header.table_coded  # a byte that names the method
            spent = {"caption": named + len(coded), "indices": len(packed)}
            shape = header.rate.grid_shape(header.height, header.width)
            flat = unpack_indices(packed, shape[0] * shape[1], header.rate.codebook_size)
            indices = flat.reshape(shape)
    except BitstreamError:
        raise
    except ValueError as error:
        raise BitstreamError(f"{error}; get the file again from its source") from error
    parts = {"header": header.size + CHECKSUM_BYTES, **spent}
    said = header.rate, header.width, header.height, caption, indices, header.model_id
    return UnpackedFile(*said, header, parts, method)


def wrong_model(made_by: int, loaded: int) -> str:
    """What to say of a file that other weights made."""
    return (
        f"made by model {made_by:#06x}, but the loaded weights are model {loaded:#06x}: load the "
        f"weights that made it{released(made_by)}"
    )


def _split(header: Header, body: bytes) -> tuple[int, bytes, bytes]:
    """Caption method, caption, indices, as they stand; allocates nothing it was not given."""
    count = header.rate.index_bytes(header.height, header.width)
    if count > len(body):
        raise damaged(
            f"{header.width}x{header.height} at rate {header.rate.name} needs {count} bytes "
            f"of indices, {len(body)} are there"
        )
    if header.version == 1:
        if header.method == TABLE:  # a method of version 2
            raise damaged("caption method 3, version 1 has 0 to 2")
        return header.method or 0, body[: len(body) - count], body[len(body) - count :]
    indices, caption = body[:count], body[count:]
    if header.table_coded:
        return TABLE, caption, indices
    if not caption:
        raise damaged("the caption does not name its method")
    if caption[0] == TABLE:
        raise damaged("the caption names the table, which the header would have done")
    return caption[0], caption[1:], indices


def _pack_together(file: PercoFile, model_id: int) -> bytes | None:
    """Indices and caption as one range code, or None where there is no prior for them."""
    prior = find_prior(model_id, file.rate.name, np.size(file.indices))
    if prior is None:
        return None
    coder = RangeEncoder()
    prior.encode(coder, file.indices)
    caption_model.bundled().encode_into(coder, file.caption)
    return coder.finish()


def _unpack_together(header: Header, code: bytes) -> tuple[str, np.ndarray, dict[str, int]]:
    """Caption, indices (h, w), and the bytes each took: the indices what they alone would have."""
    prior = find_prior(header.model_id, header.rate.name)
    if prior is None:
        raise BitstreamError(
            f"the indices use a prior for model {header.model_id:#06x} at rate "
            f"{header.rate.name}, which this program has not: upgrade perco_lite"
        )
    shape = header.rate.grid_shape(header.height, header.width)
    if shape[0] * shape[1] > MAX_PRIOR_INDICES:
        raise damaged(f"a prior for {shape[0]}x{shape[1]} indices, at most {MAX_PRIOR_INDICES}")
    decoder, again = RangeDecoder(code), RangeEncoder()
    indices = prior.decode(decoder, shape, again)
    index_bytes = min(len(again.finish()), len(code))
    caption = caption_model.bundled().decode_from(decoder, again)
    if again.finish() != code:
        raise damaged("not the code of the indices and the caption it decodes to")
    return caption, indices, {"caption": len(code) - index_bytes, "indices": index_bytes}
