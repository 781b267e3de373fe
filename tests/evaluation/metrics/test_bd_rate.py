"""Bjøntegaard's deltas against curves whose gap is known."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perco_lite.evaluation.metrics.bd_rate import bd_metric, bd_rate

pytest.importorskip("bjontegaard", reason='pip install "perco_lite[metrics]"')

RATES = [0.1, 0.2, 0.4, 0.8]
PSNR = [30.0, 33.0, 35.5, 38.0]


def test_curves_whose_gap_is_known():
    assert bd_rate(RATES, PSNR, RATES, PSNR) == pytest.approx(0, abs=1e-9)
    assert bd_metric(RATES, PSNR, RATES, PSNR) == pytest.approx(0, abs=1e-9)
    assert bd_rate(RATES, PSNR, [2 * r for r in RATES], PSNR) == pytest.approx(100)
    assert bd_rate([2 * r for r in RATES], PSNR, RATES, PSNR) == pytest.approx(-50)
    assert bd_metric(RATES, PSNR, RATES, [q + 1 for q in PSNR]) == pytest.approx(1)


def test_straight_lines_by_hand():
    """One decibel a doubling; the other line half a decibel above it: 2^-0.5 of the rate."""
    rates, quality = [1, 2, 4], [1.0, 2.0, 3.0]
    better = [q + 0.5 for q in quality]
    assert bd_rate(rates, quality, rates, better) == pytest.approx(100 * (2**-0.5 - 1))


def test_where_less_is_better():
    lpips = [0.5, 0.4, 0.3, 0.2]
    costlier = [3 * r for r in RATES]
    assert bd_rate(RATES, lpips, costlier, lpips, higher_is_better=False) == pytest.approx(200)
    with pytest.raises(ValueError, match="does not rise with rate"):
        bd_rate(RATES, lpips, costlier, lpips)


@given(st.permutations(range(4)), st.permutations(range(4)), st.floats(0.3, 3))
def test_order_of_the_points_does_not_matter(first, second, factor):
    result = bd_rate(
        [RATES[i] for i in first],
        [PSNR[i] for i in first],
        [factor * RATES[i] for i in second],
        [PSNR[i] for i in second],
    )
    assert result == pytest.approx(100 * (factor - 1), abs=1e-6)


@pytest.mark.parametrize(
    ("rates", "quality", "words"),
    [
        ([0.1], [30.0], "at least 2"),
        ([0.1, 0.2], [30.0], "as many of each"),
        ([0.1, 0.1], [30.0, 31.0], "two points of one rate"),
        ([0.1, 0.2], [30.0, math.inf], "no positive rate and finite score"),
        ([0.0, 0.2], [30.0, 31.0], "no positive rate"),
        ([0.1, 0.2], [31.0, 30.0], "does not rise with rate"),
        ([0.1, 0.2], [40.0, 41.0], "share 0.0% of their quality"),
        ([0.1, 0.2], [37.9, 45.0], "expected at least 10%"),
    ],
)
def test_what_the_points_do_not_support(rates, quality, words):
    with pytest.raises(ValueError, match=words):
        bd_rate(RATES, PSNR, rates, quality)
    with pytest.raises(ValueError, match="share 0.0% of their log rate"):
        bd_metric(RATES, PSNR, [10, 20], [30.0, 31.0])


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bjontegaard", None)  # makes the import fail
    with pytest.raises(ImportError, match=r"perco_lite\[metrics\]"):
        bd_rate(RATES, PSNR, RATES, PSNR)
