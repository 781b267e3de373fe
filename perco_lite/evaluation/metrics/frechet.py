"""Fréchet distance between two sets of feature vectors.

    per photo: (P,F) vectors ──► Moments: count, sum (F,), products (F,F)
        ──gaussian──► mean, covariance, of originals and of reconstructions
        ──frechet_distance──► one number ≥ 0

|m1 - m2|² + trace(C1 + C2 - 2 (C1 C2)^½), the distance between two Gaussians. It has no use for
which network made the vectors: with Inception's it is FID, with anything else it is not.

Paper: PerCo, Sec. 4.1 (FID).
Differs from the paper: nothing.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

Gaussian = tuple[Tensor, Tensor]  # mean (F,), covariance (F,F), float64


class Moments:
    """Mean and covariance of vectors that come photo by photo; memory does not grow with them."""

    def __init__(self, photos: Iterable[Tensor] = ()):
        """``photos``: the vectors (P,F) of each."""
        self.photos = 0
        self.sums: list[Tensor] = []  # count, sum, products
        for rows in photos:
            self.add(rows)

    def add(self, rows: Tensor) -> None:
        """Count in the vectors (P,F) of one more photo."""
        rows = rows.double()
        parts = [torch.tensor(len(rows)).double(), rows.sum(0), rows.T @ rows]
        self.photos += 1
        for total, part in zip(self.sums, parts, strict=bool(self.sums)):
            total += part
        self.sums = self.sums or parts

    @property
    def count(self) -> int:
        """Number of vectors."""
        return int(self.sums[0]) if self.sums else 0

    def gaussian(self) -> Gaussian:
        """Mean (F,) and covariance (F,F), the latter over count - 1; ``ValueError`` under two."""
        if self.count < 2:
            raise ValueError(f"got {self.count} feature vectors, expected at least 2; add photos")
        count, total, products = self.sums
        mean = total / count
        return mean, (products - count * torch.outer(mean, mean)) / (count - 1)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Distance between two Gaussians.

    With C1 = R R', the trace of (C1 C2)^½ is the sum of the roots of the eigenvalues of R' C2 R,
    which is symmetric; eigenvalues that rounding left below zero count as zero.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = a, b
    root, failed = torch.linalg.cholesky_ex(covariance_a)
    if failed:  # fewer vectors than features: singular
        values, vectors = torch.linalg.eigh(covariance_a)
        root = vectors * values.clamp(min=0).sqrt()
    overlap = torch.linalg.eigvalsh(root.T @ covariance_b @ root).clamp(min=0).sqrt().sum()
    spread = covariance_a.trace() + covariance_b.trace() - 2 * overlap
    return max(float((mean_a - mean_b).square().sum() + spread), 0.0)


def shared_axes(originals: Sequence[Tensor], reconstructions: Sequence[Tensor]) -> list[list]:
    """The same vectors on the fewest axes that hold them all, if those are fewer than F.

    A rotation changes no distance, and 2 x 24 photos span 48 dimensions of Inception's 2048.
    """
    sets = [[rows.double() for rows in photos] for photos in (originals, reconstructions)]
    stacked = torch.cat([*sets[0], *sets[1]])
    if len(stacked) >= stacked.shape[1]:
        return sets
    axes = torch.linalg.qr(stacked.T)[0]  # (F, number of vectors)
    return [[rows @ axes for rows in photos] for photos in sets]
