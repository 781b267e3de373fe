"""Fréchet distance between two sets of feature vectors, and an interval by drawing photos anew.

    per photo: (P,F) feature vectors ──► FeatureMoments: mean (F,), covariance (F,F)
    moments of originals, of reconstructions ──► frechet_distance ──► one number ≥ 0
    a figure of drawn photos, many times ──► resampled_interval ──► (low, high)

|m1 - m2|² + trace(C1 + C2 - 2 (C1 C2)^½), the distance between two Gaussians. It has no use for
which network made the vectors: with Inception's it is FID, with anything else it is not.

Paper: PerCo, Sec. 4.1 (FID).
Differs from the paper: the interval; a figure from a few photos should say how little it knows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

RESAMPLES = 200  # each costs an eigenvalue problem or two
SMALL_SET = 500  # vectors of Inception; above it no interval, which would be narrow and slow


class FeatureMoments:
    """Mean and covariance of vectors that come a few at a time; memory does not grow with them."""

    def __init__(self, features: int):
        self.count = 0
        self.total = torch.zeros(features, dtype=torch.float64)
        self.products = torch.zeros(features, features, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Count in some vectors (P,F)."""
        rows = rows.double()
        self.count += len(rows)
        self.total += rows.sum(0)
        self.products += rows.T @ rows

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Mean (F,) and covariance (F,F), the latter over count - 1; ``ValueError`` under two."""
        if self.count < 2:
            raise ValueError(f"got {self.count} feature vectors, expected at least 2; add photos")
        mean = self.total / self.count
        covariance = self.products - self.count * torch.outer(mean, mean)
        return mean, covariance / (self.count - 1)


def frechet_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """Distance between two Gaussians, each (mean (F,), covariance (F,F)), float64.

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


def resampled_interval(
    photos: tuple[int, int],
    figure: Callable[[Tensor, Tensor], float],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """95 % interval of a figure of two sets of ``photos`` photos; None under two in either.

    ``figure(first, second)`` computes it for photos of these numbers, (N,) int64, of each set.
    Where both sets have as many, the i-th of each is one pair and is drawn as one. A draw
    repeats photos, which alone moves such figures; so the interval is shifted to have the figure
    of the whole sets in the place of the draws' median.
    """
    if min(photos) < 2:
        return None
    draw = torch.Generator().manual_seed(seed)
    figures = []
    for _ in range(resamples):
        first = torch.randint(photos[0], (photos[0],), generator=draw)
        paired = photos[0] == photos[1]
        second = first if paired else torch.randint(photos[1], (photos[1],), generator=draw)
        figures.append(figure(first, second))
    figures = torch.tensor(figures, dtype=torch.float64)
    shift = figure(torch.arange(photos[0]), torch.arange(photos[1])) - figures.median()
    low, high = torch.quantile(figures, torch.tensor([0.025, 0.975], dtype=torch.float64)) + shift
    return float(low), float(high)
