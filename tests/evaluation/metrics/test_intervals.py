"""The bootstrap against draws worked out by hand, and against many sets from one source."""

import math

import numpy as np
import pytest
import torch

from perco_lite.evaluation.metrics import intervals
from perco_lite.evaluation.metrics.intervals import (
    bootstrap_interval,
    draw_photos,
    resampled_interval,
)


def test_bootstrap_by_hand():
    # two photos: a draw has the mean 0, 1 or 2 with the chances 1/4, 1/2, 1/4
    assert bootstrap_interval([0, 2]) == (0, 2)
    assert bootstrap_interval([3, 3, 3]) == (3, 3)
    assert bootstrap_interval([]) is bootstrap_interval([1]) is None
    # three values, one of them 1: it is drawn k times of 3 with the binomial's chances, of
    # which 2.5 % below and above cut off neither none (8/27) nor all three (1/27)
    assert bootstrap_interval([0, 0, 1]) == (0, 1)
    # of four, all four are drawn 1 time of 256, less than 2.5 %: 3/4 is the upper end
    assert bootstrap_interval([0, 0, 0, 1]) == (0, 0.75)


@pytest.mark.parametrize("photos", [2, 24, 100, 3000])
def test_bootstrap_is_that_of_one_draw_after_another(photos):
    values, draw = np.random.default_rng(1).normal(size=photos), np.random.default_rng(0)
    means = [values[draw.integers(photos, size=photos)].mean() for _ in range(300)]
    expected = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    assert bootstrap_interval(values, resamples=300) == tuple(expected)


def test_bootstrap_allows_infinity_and_names_nan():
    low, high = bootstrap_interval([30.0, 31.0, 32.0, 29.0, math.inf])
    assert 29 < low and high == math.inf  # PSNR of equal photos
    with pytest.raises(ValueError, match="NaN among the values"):
        bootstrap_interval([1.0, math.nan])


def test_bootstrap_is_repeatable_and_shifts_with_the_values():
    values = np.random.default_rng(0).normal(0, 1, 24)
    low, high = bootstrap_interval(values)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values, seed=1) != (low, high)
    assert bootstrap_interval(values + 5) == pytest.approx((low + 5, high + 5))
    error = values.std() / 24**0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


@pytest.mark.parametrize("photos, least", [(10, 0.84), (40, 0.9)])
def test_bootstrap_holds_the_true_mean_most_of_the_time(photos, least):
    sets = np.random.default_rng(1).normal(7, 2, (300, photos))
    held = 0
    for seed, values in enumerate(sets):
        low, high = bootstrap_interval(values, seed, resamples=200)
        held += low <= 7 <= high
    assert least < held / 300 < 0.98


def test_draws_start_with_all_photos_and_are_repeatable():
    draws = list(draw_photos(4, 5))
    assert draws[0].tolist() == [0, 1, 2, 3] and len(draws) == 6
    assert all(torch.equal(a, b) for a, b in zip(draws, draw_photos(4, 5), strict=True))


def test_interval_of_a_mean_is_the_known_one(monkeypatch):
    """For means of paired differences the interval is figure ± 1.96 standard errors."""
    monkeypatch.setattr(intervals, "RESAMPLES", 2000)
    values = torch.randn(200, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def figure(first, second):
        assert torch.equal(first, second)  # pairs stay together
        return float((values[first] + 0 * values[second]).mean())

    low, high = resampled_interval((200, 200), figure)
    error = float(values.std()) / 200**0.5
    assert low == pytest.approx(float(values.mean()) - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(float(values.mean()) + 1.96 * error, abs=0.2 * error)


def test_interval_forgives_what_drawing_twice_adds():
    """A figure that grows with repeated photos (by 10 each) still lies inside its interval."""
    values = torch.randn(30, generator=torch.Generator().manual_seed(10), dtype=torch.float64)

    def figure(first, second):
        repeated = len(first) - len(set(first.tolist()))
        return float(values[first].mean() + values[second].mean()) + 10 * repeated

    low, high = resampled_interval((30, 29), figure)
    whole = figure(torch.arange(30), torch.arange(29))
    assert low < whole < high
    assert resampled_interval((30, 29), figure) == (low, high)  # same seed
    assert resampled_interval((1, 29), figure) is None
