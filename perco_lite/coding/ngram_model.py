"""How likely each symbol is after the ones before it, in whole numbers: an interpolated n-gram.

    last 3 symbols ──► 4 nested contexts ──► sizes (V,) int64, each ≥ 1 ──► range coder
    tree of counts:  root ──symbol──► node ──symbol──► node …   one level for each length of context

In each context, the symbols seen there share what their counts deserve less a discount; what the
discounts leave goes to the next shorter context, and in the end to all V symbols alike:
p_k(w) = (c_k(w) - D) / Σc + (what is left) · p_{k-1}(w), in units of 2**-24.

Paper: PerCo codes its captions with Lempel-Ziv (zlib), which knows no English.
Differs from the paper: Kneser-Ney smoothing (Chen and Goodman, 1999, modified), with integers only.

Taught in notebook 05.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

START = END = 0  # the symbol that ends a sequence stands, as context, for its start
DISCOUNT_UNIT = 256  # discounts are in 1/256 of a count
_ONE_BITS = 24  # probability 1 is 2**24


@dataclass(frozen=True, eq=False)  # no ==: arrays do not compare to one truth value
class Level:
    """All n-grams of one length, sorted by their symbols: a level of the tree."""

    symbols: np.ndarray  # (n,) uint16: the last symbol of each
    counts: np.ndarray  # (n,) uint16: how often; for all but the longest, in how many contexts
    first_child: np.ndarray  # (n + 1,) int64: where each one's children start in the next level
    discounts: np.ndarray  # (4,) int64: for counts of 0, 1, 2, 3 or more, in 1/256


class NgramModel:
    """Sizes of the shares of symbols 0..V-1 in a context; pure integer arithmetic.

    ``levels[k]`` holds the n-grams of length k + 1; children of the root are all of ``levels[0]``.
    """

    def __init__(self, size: int, levels: Sequence[Level]):
        self.size, self.levels = size, tuple(levels)
        flat = np.full(size, (1 << _ONE_BITS) // size, dtype=np.int64)
        self._unigrams = self._mix(flat, 0, 0, len(self.levels[0].symbols))

    def start(self) -> tuple[int, ...]:
        """State at the start of a sequence."""
        return self.step((), START)

    def step(self, state: tuple[int, ...], symbol: int) -> tuple[int, ...]:
        """State after a symbol: nodes of the contexts of length 1, 2, … that end with it."""
        nodes, ranges = [], [(0, len(self.levels[0].symbols))]
        for k, node in enumerate(state[: len(self.levels) - 2]):
            children = self.levels[k].first_child
            ranges.append((int(children[node]), int(children[node + 1])))
        for k, (low, high) in enumerate(ranges):
            symbols = self.levels[k].symbols
            node = low + int(np.searchsorted(symbols[low:high], symbol))
            if node == high or symbols[node] != symbol:
                break  # what was never seen here was not seen in a longer context either
            nodes.append(node)
        return tuple(nodes)

    def shares(self, state: tuple[int, ...]) -> np.ndarray:
        """Sizes (V,) int64 of the symbols' shares, each at least 1, about 2**24 in all."""
        sizes = self._unigrams
        for k, node in enumerate(state):
            children = self.levels[k].first_child
            low, high = int(children[node]), int(children[node + 1])
            if low == high:
                break
            sizes = self._mix(sizes, k + 1, low, high)
        return sizes + 1

    def _mix(self, shorter: np.ndarray, k: int, low: int, high: int) -> np.ndarray:
        level = self.levels[k]
        counts = level.counts[low:high].astype(np.int64)
        kept = DISCOUNT_UNIT * counts - level.discounts[np.minimum(counts, 3)]
        own = (kept << _ONE_BITS) // (DISCOUNT_UNIT * int(counts.sum()))
        left = (1 << _ONE_BITS) - int(own.sum())
        sizes = shorter * left >> _ONE_BITS
        sizes[level.symbols[low:high]] += own
        return sizes

    # ------------------------------------------------------------------------------ on a disk

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """The model as named arrays of bytes and small integers; ``from_arrays`` reads them."""
        out = {f"{prefix}size": np.array([self.size], dtype="<u4")}
        for k, level in enumerate(self.levels):
            out[f"{prefix}{k}discounts"] = level.discounts.astype("<u2")
            fields = {"symbols": level.symbols, "counts": level.counts}
            fields["children"] = np.diff(level.first_child)
            for name, values in fields.items():  # the two bytes apart: that deflates better
                out[f"{prefix}{k}{name}_low"] = (values & 0xFF).astype(np.uint8)
                out[f"{prefix}{k}{name}_high"] = (values >> 8).astype(np.uint8)
        return out

    @classmethod
    def from_arrays(cls, arrays, prefix: str) -> "NgramModel":
        """Inverse of ``arrays``; raises ``KeyError`` where one is missing."""
        levels, k = [], 0
        while f"{prefix}{k}discounts" in arrays:

            def both(name, k=k):
                high = arrays[f"{prefix}{k}{name}_high"].astype(np.uint16)
                return high << 8 | arrays[f"{prefix}{k}{name}_low"]

            first_child = np.concatenate([[0], np.cumsum(both("children"), dtype=np.int64)])
            discounts = arrays[f"{prefix}{k}discounts"].astype(np.int64)
            levels.append(Level(both("symbols"), both("counts"), first_child, discounts))
            k += 1
        return cls(int(arrays[f"{prefix}size"][0]), levels)


def count_ngrams(sequences: Iterable[Sequence[int]], size: int, order: int) -> NgramModel:
    """Train on sequences of symbols 1..size-1 (the start and the end are added), to length order.

    Deterministic: depends on the sequences alone, not on their order. Raises ``ValueError`` for a
    size above 65,536 or no sequence.
    """
    whole = [(START, *sequence, END) for sequence in sequences]
    if size > 1 << 16 or not whole:
        raise ValueError(
            f"got {len(whole)} sequences of symbols below {size}, expected some and at most "
            "65536: give more text, or a smaller vocabulary"
        )
    seen = [_count(whole, length) for length in range(1, order + 1)]
    levels = []
    for k, counts in enumerate(seen):
        if k + 1 < order:  # Kneser-Ney: in how many contexts, not how often
            contexts = dict.fromkeys(counts, 0)
            for ngram in seen[k + 1]:
                contexts[ngram[1:]] += 1
            # nothing can stand before a start, so there the count itself is what there is
            counts = {n: counts[n] if k and n[0] == START else c for n, c in contexts.items()}
        ngrams = sorted(counts)
        of_count = np.bincount([min(c, 5) for c in counts.values()], minlength=5)
        parents = {ngram: position for position, ngram in enumerate(sorted(seen[k]))}
        children = np.zeros(len(ngrams), dtype=np.int64)
        for ngram in seen[k + 1] if k + 1 < order else ():
            children[parents[ngram[:-1]]] += 1
        levels.append(
            Level(
                symbols=np.array([ngram[-1] for ngram in ngrams], dtype=np.uint16),
                counts=np.array([min(counts[ngram], 0xFFFF) for ngram in ngrams], dtype=np.uint16),
                first_child=np.concatenate([[0], np.cumsum(children)]),
                discounts=_discounts(of_count),
            )
        )
    return NgramModel(size, levels)


def _count(sequences: list[tuple[int, ...]], length: int) -> dict[tuple[int, ...], int]:
    counts: dict[tuple[int, ...], int] = {}
    for sequence in sequences:
        for i in range(len(sequence) - length + 1):
            ngram = sequence[i : i + length]
            counts[ngram] = counts.get(ngram, 0) + 1
    return counts


def _discounts(of_count: np.ndarray) -> np.ndarray:
    """Chen and Goodman's three discounts from how many n-grams have each count, in 1/256."""
    n = [int(c) for c in of_count]
    # of few n-grams, no count may be missing below
    ones, twos = max(n[1], 1), max(n[2], 1)
    discounts = [0]
    for j in (1, 2, 3):
        following = n[j + 1] if j < 3 else n[4]
        ratio = (j + 1) * ones * following * DISCOUNT_UNIT // ((ones + 2 * twos) * max(n[j], 1))
        discounts.append(min(max(j * DISCOUNT_UNIT - ratio, DISCOUNT_UNIT // 16), j * 240))
    return np.array(discounts, dtype=np.int64)
