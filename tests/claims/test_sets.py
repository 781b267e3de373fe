"""Figures of drawn sets: those of the libraries for all photos, and sensible for the draws."""

import numpy as np
import pytest
import torch

from perco_lite.claims.sets import PairedVectors, draw_weights, mean_iou
from perco_lite.evaluation.metrics.frechet import Moments, frechet_distance
from perco_lite.evaluation.metrics.semantics import miou


@pytest.fixture
def sets():
    """Vectors of seven photos, of one to three patches each; one is smaller than a patch."""
    random, counts = np.random.default_rng(0), (2, 1, 3, 0, 2, 2, 3)
    originals = [random.normal(0, 1, (n, 6)) for n in counts]
    return originals, [rows * 0.7 + random.normal(0.3, 0.4, rows.shape) for rows in originals]


def tensors(photos, weight=None):
    weight = np.ones(len(photos), int) if weight is None else weight.astype(int)
    return [
        torch.from_numpy(p) for p, times in zip(photos, weight, strict=True) for _ in [0] * times
    ]


def test_all_photos_once_give_the_libraries_figures(sets):
    from torchmetrics.image.kid import poly_mmd

    paired = PairedVectors(*sets)
    weights = draw_weights(7, 3)
    x, y = (torch.cat(tensors(several)) for several in sets)
    assert paired.kid(weights)[0] == pytest.approx(float(poly_mmd(x, y)), rel=1e-9)
    wanted = frechet_distance(Moments([x]).gaussian(), Moments([y]).gaussian())
    assert paired.fid(weights)[0] == pytest.approx(wanted, rel=1e-9)


def test_a_draws_fid_is_that_of_its_photos(sets):
    paired, weights = PairedVectors(*sets), draw_weights(7, 5)
    for weight, found in zip(weights, paired.fid(weights), strict=True):
        gaussians = [Moments(tensors(several, weight)).gaussian() for several in sets]
        assert found == pytest.approx(frechet_distance(*gaussians), rel=1e-7, abs=1e-9)


def test_copies_of_photos_do_not_move_kid():
    """Draws from two equal sets stay around zero; if copies counted as photos, they would not."""
    random = np.random.default_rng(1)
    x, y = ([random.normal(0, 1, (3, 8)) for _ in range(60)] for _ in range(2))
    paired, weights = PairedVectors(x, y), draw_weights(60, 400)
    draws = paired.kid(weights)
    assert abs(draws[1:].mean() - draws[0]) < 0.1 * draws[1:].std()
    from torchmetrics.image.kid import poly_mmd

    naive = []
    for weight in weights[1:50].astype(int):
        naive.append(float(poly_mmd(*(torch.cat(tensors(s, weight)) for s in (x, y)))))
    assert np.mean(naive) > draws[0] + 2 * draws[1:].std()


def test_mean_iou_is_that_of_the_label_maps():
    random = np.random.default_rng(2)
    truth, found = (random.integers(0, 3, (5, 4, 6)) for _ in range(2))
    counts = [
        np.bincount(t.ravel() * 4 + f.ravel(), minlength=16).reshape(4, 4)
        for t, f in zip(truth, found, strict=True)
    ]
    weights = draw_weights(5, 2)
    drawn = mean_iou(counts, weights)
    for weight, value in zip(weights.astype(int), drawn, strict=True):
        chosen = np.repeat(np.arange(5), weight)
        assert value == pytest.approx(miou(list(found[chosen]), list(truth[chosen]), 4).value)


def test_draws_and_what_makes_no_sense():
    weights = draw_weights(3, 500)
    assert weights.shape == (501, 3) and (weights[0] == 1).all()
    assert (weights.sum(1) == 3).all() and (weights == 3).any(), "copies of one photo occur, too"
    assert draw_weights(2, 4000)[1:, 0].std() == pytest.approx(np.sqrt(0.5), abs=0.05)
    assert (draw_weights(3, 500) == weights).all()
    with pytest.raises(ValueError, match="got 1 photos, expected at least 2"):
        draw_weights(1, 5)
    with pytest.raises(ValueError, match="photo by photo, expected as many"):
        PairedVectors([np.ones((2, 3))], [np.ones((1, 3))])
    assert np.isnan(mean_iou([np.zeros((2, 2))] * 2, draw_weights(2, 2))).all()
    lonely = PairedVectors([np.ones((1, 3)), np.zeros((1, 3))], [np.ones((1, 3))] * 2)
    assert np.isnan(lonely.kid(np.array([[2.0, 0.0]]))).all(), "copies are no pair"
