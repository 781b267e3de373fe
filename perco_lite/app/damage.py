"""Bits of a file flipped on purpose, and what a decoder says to that.

file ──flip_bits──► damaged file, where ──what_follows──► one sentence
"""

import random

from perco_lite.coding.bitstream import BitstreamError, unpack

MAX_FLIPS = 64


def flip_bits(data: bytes, count: int, seed: int) -> tuple[bytes, list[int]]:
    """Flip ``count`` bits of a file, drawn by ``seed``; returns it with the places, sorted.

    A place counts bits from the first byte's highest. Raises ``ValueError`` for a count that is
    not 1 to ``MAX_FLIPS``, or more than the file has.
    """
    most = min(MAX_FLIPS, 8 * len(data))
    if not 1 <= count <= most:
        raise ValueError(f"got {count} bits to flip, expected 1 to {most}")
    places = sorted(random.Random(seed).sample(range(8 * len(data)), count))
    damaged = bytearray(data)
    for place in places:
        damaged[place // 8] ^= 0x80 >> place % 8
    return bytes(damaged), places


def what_follows(data: bytes, model_id: int) -> str:
    """What a decoder with these weights says to a file; "" where it decodes."""
    try:
        unpack(data, model_id)
    except BitstreamError as error:
        return str(error)
    return ""
