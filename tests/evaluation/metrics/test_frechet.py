"""Fréchet distance against the textbook formula in scipy."""

import numpy as np
import pytest
import scipy.linalg
import torch

from perco_lite.evaluation.metrics.frechet import (
    Moments,
    frechet_distance,
    shared_axes,
)


def draw(count, features, seed, scale=1.0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, features, generator=generator, dtype=torch.float64)
    return rows * torch.linspace(0.5, 2, features, dtype=torch.float64) * scale + shift


def moments(rows):
    return Moments(rows.split(3)).gaussian()  # as they come


def by_the_book(a, b):
    """|m1 - m2|² + tr(C1 + C2 - 2 sqrtm(C1 C2)), all by numpy and scipy."""
    a, b = a.numpy(), b.numpy()
    c1, c2 = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)


def test_moments_are_numpys():
    rows = draw(20, 4, 0, shift=3)
    mean, covariance = moments(rows)
    assert np.allclose(mean, rows.mean(0)) and np.allclose(covariance, np.cov(rows.T))
    with pytest.raises(ValueError, match="got 1 feature vectors, expected at least 2"):
        moments(rows[:1])


@pytest.mark.parametrize("scale, shift", [(1, 0), (1.5, 0), (1, 0.7), (0.3, -2)])
def test_distance_is_the_textbooks(scale, shift):
    a, b = draw(60, 5, 1), draw(50, 5, 2, scale, shift)
    ours = frechet_distance(moments(a), moments(b))
    assert ours == pytest.approx(by_the_book(a, b), rel=1e-6)
    assert ours == pytest.approx(frechet_distance(moments(b), moments(a)))


def test_distance_by_hand_in_one_dimension():
    # N(0, 2²) and N(3, 1²): 3² + (2 - 1)² = 10
    one = torch.ones(1, 1, dtype=torch.float64)
    assert frechet_distance((0 * one[0], 4 * one), (3 * one[0], one)) == pytest.approx(10)


def test_fewer_vectors_than_features():
    a, b = draw(6, 12, 3), draw(5, 12, 4, shift=0.5)
    ours = frechet_distance(moments(a), moments(b))
    # trace of the root is the sum of singular values of A B': A'A and B'B are the covariances
    left, right = ((rows - rows.mean(0)) / (len(rows) - 1) ** 0.5 for rows in (a, b))
    overlap = torch.linalg.svdvals(left @ right.T).sum()
    spread = left.square().sum() + right.square().sum() - 2 * overlap
    assert ours == pytest.approx(float((a.mean(0) - b.mean(0)).square().sum() + spread))
    assert frechet_distance(moments(a), moments(a)) == pytest.approx(0, abs=1e-6)


def test_shared_axes_keep_the_distance():
    sets = [[rows] for rows in draw(4, 30, 5)[:, None]], [[r] for r in draw(3, 30, 6)[:, None]]
    sets = [[rows for (rows,) in photos] for photos in sets]
    fewer = shared_axes(*sets)
    assert fewer[0][0].shape == (1, 7)
    before, after = (
        frechet_distance(*(moments(torch.cat(list(photos))) for photos in those))
        for those in (sets, fewer)
    )
    assert after == pytest.approx(before)
    many = [draw(40, 30, 7)], [draw(2, 30, 8)]
    assert shared_axes(*many)[0][0].shape == (40, 30)
