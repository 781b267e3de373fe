"""Fréchet distance between two sets of feature vectors, and an interval by drawing photos anew.

    per photo: (P,F) feature vectors ──► FeatureMoments: mean (F,), covariance (F,F)
    moments of originals, of reconstructions ──► frechet_distance ──► one number ≥ 0
    per-photo vectors of both sets ──► resampled_interval(distance) ──► (low, high)

|m1 - m2|² + trace(C1 + C2 - 2 (C1 C2)^½), the distance between two Gaussians. It has no use for
which network made the vectors: with Inception's it is FID, with anything else it is not.

Paper: PerCo, Sec. 4.1 (FID).
Differs from the paper: the interval; a figure from a few photos should say how little it knows.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

RESAMPLES = 200  # each costs an eigenvalue problem or two
SMALL_SET = 500  # photos; above it no interval, which would be narrow, slow and large in memory


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

    The trace of (C1 C2)^½ is the sum of the roots of the eigenvalues of C1^½ C2 C1^½, which is
    symmetric; eigenvalues that rounding left below zero count as zero.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = a, b
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt()  # root @ root.T = covariance_a
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
    originals: Sequence[Tensor],
    reconstructions: Sequence[Tensor],
    distance: Callable[[Tensor, Tensor], float],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float] | None:
    """95 % interval of ``distance(rows_a, rows_b)`` over draws of photos; None under two photos.

    One entry a photo, with that photo's vectors (P,F). Where both sets have as many photos, the
    i-th of each is one pair and is drawn as one. A draw repeats photos, which alone moves
    such distances; so the interval is shifted to have its median at the figure of the whole set.
    """
    sizes = len(originals), len(reconstructions)
    if min(sizes) < 2:
        return None
    draw = torch.Generator().manual_seed(seed)
    figures = []
    for _ in range(resamples):
        first = torch.randint(sizes[0], (sizes[0],), generator=draw).tolist()
        paired = sizes[0] == sizes[1]
        second = (
            first if paired else torch.randint(sizes[1], (sizes[1],), generator=draw).tolist()
        )
        drawn = [originals[i] for i in first], [reconstructions[i] for i in second]
        figures.append(distance(torch.cat(drawn[0]), torch.cat(drawn[1])))
    figures = torch.tensor(figures, dtype=torch.float64)
    whole = distance(torch.cat(list(originals)), torch.cat(list(reconstructions)))
    shift = whole - figures.median()
    low, high = torch.quantile(figures, torch.tensor([0.025, 0.975], dtype=torch.float64)) + shift
    return float(low), float(high)
