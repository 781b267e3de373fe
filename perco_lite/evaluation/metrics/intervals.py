"""A figure of a set of photos, and its interval over photos like these.

    values of photos ──bootstrap_interval──┐
    photos of two sets ─resampled_interval─┴─ draw anew ──► (low, high) ──► Score

Differs from the paper: the interval; a figure from a few photos should say how little it knows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 200  # of a distance; each costs an eigenvalue problem or two
_DRAWN_AT_ONCE = 2**18  # numbers of the bootstrap: as fast as 2**20, and little memory


class Score(NamedTuple):
    """One figure of a set (None if it could not be computed) and how, or why it was not.

    ``interval``: 95 % interval of the figure over photos like these; None
    where there were too few photos, or too many to draw them again and again.
    """

    value: float | None
    protocol: str
    interval: tuple[float, float] | None = None


def bootstrap_interval(
    values: Iterable[float], seed: int = 0, resamples: int = 2000
) -> tuple[float, float] | None:
    """95 % interval of the mean over photos like these, from their ``values``; None under two.

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
    # "inverted_cdf" takes one of the means; between two of them lies no number if one is infinite
    return percentiles(np.concatenate(means), method="inverted_cdf")


def percentiles(
    figures: Sequence[float], whole: float | None = None, method: str = "linear"
) -> tuple[float, float]:
    """95 % interval of the figures of drawn sets; ``whole``: the figure of the set itself.

    A draw repeats photos, which alone moves the distance of two sets: with ``whole`` the interval
    is shifted to have it in the place of the draws' median.
    """
    shift = 0.0 if whole is None else whole - np.median(figures)
    low, high = np.quantile(figures, [0.025, 0.975], method=method) + shift
    return float(low), float(high)


def draw_photos(count: int, draws: int, seed: int = 0) -> Iterator[Tensor]:
    """Numbers of the photos (N,) int64 of draw 0, which is all of them, to ``draws``."""
    generator = torch.Generator().manual_seed(seed)
    yield torch.arange(count)
    for _ in range(draws):
        yield torch.randint(count, (count,), generator=generator)


def resampled_interval(
    photos: tuple[int, int], figure: Callable[[Tensor, Tensor], float]
) -> tuple[float, float] | None:
    """95 % interval of a figure of two sets of ``photos`` photos; None under two in either.

    ``figure(first, second)`` computes it for photos of these numbers, (N,) int64, of each set.
    Where both sets have as many, the i-th of each is one pair and is drawn as one.
    """
    if min(photos) < 2:
        return None
    seeds = (0, 0) if photos[0] == photos[1] else (0, 1)
    sets = (draw_photos(count, RESAMPLES, seed) for count, seed in zip(photos, seeds, strict=True))
    whole, *drawn = (figure(*chosen) for chosen in zip(*sets, strict=True))
    return percentiles(drawn, whole)
