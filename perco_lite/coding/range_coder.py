"""Integers ⇄ bytes, each at the price its probability deserves: a range coder.

    (start, size, total) of each symbol ──► RangeEncoder: an interval ──► shortest bytes inside
    bytes ──► RangeDecoder.target(total) ──► in whose share? ──► take(start, size, total)

A symbol's probability is size/total, all of them integers; its share of the interval is
[start, start + size) of total. Integer arithmetic only, so every machine makes the same bytes.

Paper: PerCo codes indices at log2 K bits each and the caption with Lempel-Ziv; no range coder.
Differs from the paper: this is what lets a probable symbol cost less than a bit.
Why not `constriction`, which the tests compare with: it takes probabilities as floats, and writes
whole words of 32 bits, which wastes about two bytes on a caption of eight. Here the end costs a
third of a byte on average: no end mark, no length, and trailing zero bytes are not written.

Taught in notebook 04.
"""

import numpy as np

MAX_TOTAL = 1 << 32
_WIDTH = 48  # bits of the interval in sight; Python's integers do not overflow
_TOP, _BOTTOM = 1 << _WIDTH, 1 << (_WIDTH - 8)


class RangeEncoder:
    """Narrow an interval symbol by symbol; ``finish`` names a point in it in as few bytes as can.

    Bytes come in time linear in their number; memory is the bytes themselves.
    """

    def __init__(self):
        self._bytes = bytearray()  # settled, but for a carry
        self._low, self._range = 0, _TOP

    def encode(self, start: int, size: int, total: int) -> None:
        """Code a symbol whose share is [start, start + size) of total, all integers.

        Raises ``ValueError`` for an empty share or one outside the total: it cannot be decoded.
        """
        if not (0 <= start < start + size <= total <= MAX_TOTAL):
            raise ValueError(
                f"got share {start} to {start + size} of {total}, expected a positive size within "
                f"a total of at most {MAX_TOTAL}: give every symbol a size of 1 or more"
            )
        unit = self._range // total
        self._low += unit * start
        self._range = unit * size
        if self._low >= _TOP:
            self._low -= _TOP
            _carry(self._bytes)
        while self._range < _BOTTOM:
            self._bytes.append(self._low >> (_WIDTH - 8))
            self._low = self._low << 8 & _TOP - 1
            self._range <<= 8

    def finish(self) -> bytes:
        """The shortest bytes that, read as a fraction with zeros behind, lie in the interval."""
        for size in range(_WIDTH // 8 + 1):
            step = 1 << (_WIDTH - 8 * size)
            point = -(-self._low // step) * step
            if point < self._low + self._range:
                break
        whole = bytearray(self._bytes)  # a copy: more may be coded after this
        if point >= _TOP:
            point -= _TOP
            _carry(whole)
        whole += (point >> (_WIDTH - 8 * size)).to_bytes(size, "big")
        return bytes(whole).rstrip(b"\0")


def _carry(number: bytearray) -> None:
    position = len(number) - 1
    while number[position] == 0xFF:
        number[position] = 0
        position -= 1
    number[position] += 1


class RangeDecoder:
    """Read back what a ``RangeEncoder`` finished, told of the same shares in the same order.

    Behind the last byte come zeros without end: the caller knows when to stop.
    """

    def __init__(self, data: bytes):
        self._data, self._position = bytes(data), _WIDTH // 8
        head = self._data[: self._position].ljust(self._position, b"\0")
        self._code = int.from_bytes(head, "big")  # the point, seen from the interval's low end
        self._range = _TOP

    def target(self, total: int) -> int:
        """Where in 0..total-1 the point lies: the symbol with that in its share was coded.

        Raises ``ValueError`` where no encoder can have left the point: the bytes are damaged.
        """
        target = self._code // (self._range // total)
        if target >= total:
            raise ValueError("the range code points between two symbols: the data is damaged")
        return target

    def read(self, ends: np.ndarray, again: RangeEncoder | None = None) -> int:
        """The next symbol, where symbol i's share ends at ``ends[i]``, and step over it.

        What is read is also coded into ``again``, so that the caller can see whether the bytes are
        those that an encoder makes. Raises as ``target``.
        """
        total = int(ends[-1])
        symbol = int(ends.searchsorted(self.target(total), side="right"))
        start = int(ends[symbol - 1]) if symbol else 0
        share = start, int(ends[symbol]) - start, total
        self.take(*share)
        if again is not None:
            again.encode(*share)
        return symbol

    def take(self, start: int, size: int, total: int) -> None:
        """Step over the symbol with this share, as ``RangeEncoder.encode`` did."""
        unit = self._range // total
        self._code -= unit * start
        self._range = unit * size
        while self._range < _BOTTOM:
            following = self._data[self._position : self._position + 1]
            self._code = self._code << 8 | (following[0] if following else 0)
            self._position += 1
            self._range <<= 8
