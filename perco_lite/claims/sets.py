"""KID, FID and mIoU of many drawn sets of photos at once, of what was seen in each photo once.

    vectors of originals, of pictures ──Gram matrices──► PairedVectors ─┬─► kid (D,)
    how often each photo is drawn (D,N), ``draw_weights`` ──────────────┴─► fid (D,)
    label counts (N,C,C) and the same draws ──mean_iou──► (D,)

A draw of photos repeats some of them. Their copies are no new photos: what KID estimates from
pairs of unlike vectors it would find in copies, too, and be wrong. So pairs of two copies of one
photo are left out, and in a draw of all photos once the figures are those of ``realism``.

Paper: PerCo, Sec. 4.1 (FID, KID, mIoU), without intervals.
Differs from the paper: a thousand draws cost little more than one.
"""

from collections.abc import Sequence

import numpy as np
import torch


def draw_weights(photos: int, draws: int, seed: int = 0) -> np.ndarray:
    """How often each photo is in each draw: (1 + draws, photos) float64, the first draw all once.

    What a draw of copies of few photos does not allow is NaN. ``ValueError`` for under two photos.
    """
    if photos < 2:
        raise ValueError(f"got {photos} photos, expected at least 2 to draw from")
    random, weights = np.random.default_rng(seed), np.ones((1 + draws, photos))
    for draw in weights[1:]:
        draw[:] = np.bincount(random.integers(photos, size=photos), minlength=photos)
    return weights


class PairedVectors:
    """What a network saw in originals and in their pictures, the i-th of each one photo's.

    Vectors (P,F) a photo, P = 0 for one that is smaller than a patch. Only their products are kept.
    """

    def __init__(self, originals: Sequence[np.ndarray], pictures: Sequence[np.ndarray]):
        """``ValueError`` where photos have unlike numbers of vectors, or there are under two."""
        counts = [len(rows) for rows in originals]
        if counts != [len(rows) for rows in pictures] or sum(counts) < 2:
            raise ValueError(
                f"got {sum(counts)} vectors of originals and {sum(map(len, pictures))} of pictures "
                "photo by photo, expected as many, and at least 2"
            )
        x, y = (np.concatenate(several).astype(np.float64) for several in (originals, pictures))
        self.counts, self.size = np.array(counts, np.float64), x.shape[1]
        self.photo = np.repeat(np.arange(len(counts)), counts)
        self.xx, self.xy, self.yy = x @ x.T, x @ y.T, y @ y.T

    def kid(self, weights: np.ndarray) -> np.ndarray:
        """Kernel Inception Distance (cubic kernel, unbiased) of each draw, (D,)."""
        own = self.counts * (self.counts - 1)
        pairs = np.outer(self.counts, self.counts)
        within = self._kernel_sum(weights, self.xx, own, pairs, distinct=True)
        within += self._kernel_sum(weights, self.yy, own, pairs, distinct=True)
        return within - 2 * self._kernel_sum(weights, self.xy, self.counts**2, pairs)

    def _kernel_sum(self, weights, products, own, pairs, distinct: bool = False) -> np.ndarray:
        """Mean kernel over pairs of vectors of each draw; ``distinct``: of two vectors."""
        kernel = (products / self.size + 1) ** 3
        sums = np.zeros((len(self.counts), len(kernel)))
        np.add.at(sums, self.photo, kernel)
        blocks = np.zeros((len(self.counts),) * 2)
        np.add.at(blocks.T, self.photo, sums.T)
        diagonal = blocks.diagonal().copy()
        if distinct:
            diagonal -= np.bincount(self.photo, kernel.diagonal(), len(self.counts))
        total, count = (
            ((weights @ both) * weights).sum(1) - weights**2 @ both.diagonal() + weights @ single
            for both, single in ((blocks, diagonal), (pairs, own))
        )
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    def fid(self, weights: np.ndarray) -> np.ndarray:
        """Fréchet distance of each draw, (D,); biased upwards, the more the fewer vectors."""
        return np.array([self._frechet(draw[self.photo]) for draw in weights])

    def _frechet(self, weight: np.ndarray) -> float:
        """Of vectors that count ``weight`` times each.

        With centred rows A and B the covariances are A'A and B'B over n - 1, and the trace of
        (C1 C2)^½ is the sum of the singular values of AB' over n - 1: no F x F matrix is needed.
        """
        kept = weight > 0
        weight, count = weight[kept], weight.sum()
        if count < 2:
            return np.nan
        xx, xy, yy = (gram[np.ix_(kept, kept)] for gram in (self.xx, self.xy, self.yy))
        squares = [weight @ gram @ weight / count**2 for gram in (xx, xy, yy)]
        means = squares[0] - 2 * squares[1] + squares[2]
        spread = (weight @ (xx.diagonal() + yy.diagonal())) / count - squares[0] - squares[2]
        centred = xy - weight @ xy / count - (xy @ weight / count)[:, None] + squares[1]
        root = np.sqrt(weight)
        overlap = torch.linalg.svdvals(torch.from_numpy(root[:, None] * centred * root)).sum()
        return max(float(means + (count * spread - 2 * overlap) / (count - 1)), 0.0)


def mean_iou(confusions: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Mean intersection over union of each draw, (D,), over the classes that occur; NaN for none.

    ``confusions``: (C,C) a photo, by (true, predicted) class, as ``semantics.confusion`` counts.
    """
    counts = np.stack(confusions).astype(np.float64)
    totals = np.tensordot(weights, counts, 1)  # (D,C,C)
    common = np.diagonal(totals, axis1=1, axis2=2)
    union = totals.sum(1) + totals.sum(2) - common
    shares = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    occur = (union > 0).sum(1)
    return np.divide(shares.sum(1), occur, out=np.full(len(occur), np.nan), where=occur > 0)
