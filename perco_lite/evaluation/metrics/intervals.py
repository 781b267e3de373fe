"""A figure of a set of photos, and the interval that another such set would put it in.

    values of photos ──bootstrap_interval──► (low, high) ──► Score(value, protocol, interval)

Differs from the paper: the interval; a figure from a few photos should say how little it knows.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

_DRAWN_AT_ONCE = 2**18  # numbers of the bootstrap: as fast as 2**20, and little memory


class Score(NamedTuple):
    """One figure of a set (None if it could not be computed) and how, or why it was not.

    ``interval``: where another set of as many photos would put the figure, 19 times of 20; None
    where there were too few photos, or too many to draw them again and again.
    """

    value: float | None
    protocol: str
    interval: tuple[float, float] | None = None


def bootstrap_interval(
    values: Iterable[float], seed: int = 0, resamples: int = 2000
) -> tuple[float, float] | None:
    """Interval that holds the mean of the per-photo ``values`` 95 times of 100; None under two.

    Percentile bootstrap: photos are drawn with replacement, as many as there are, ``resamples``
    times; 2.5 % of the means lie below the interval and 2.5 % above it. It is too narrow for few
    photos (about 90 % instead of 95 % for ten). The same seed gives the same interval.
    Raises ``ValueError`` for NaN. Infinite values (PSNR of equal photos) are allowed.
    """
    values = np.asarray(list(values), np.float64)
    if np.isnan(values).any():
        raise ValueError("got NaN among the values, expected numbers; leave out what has no score")
    if len(values) < 2:
        return None
    draw, photos = np.random.default_rng(seed), len(values)
    at_once = max(1, _DRAWN_AT_ONCE // photos)
    counts = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    means = [values[draw.integers(photos, size=(count, photos))].mean(1) for count in counts]
    means = np.concatenate(means)
    # "inverted_cdf" takes one of the means; between two of them lies no number if one is infinite
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)
