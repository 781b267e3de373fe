"""What each measure makes of the negative controls, before it judges anybody.

    table of perco evaluate, with the rows of ``codecs.controls`` ──judge──► a verdict per measure

Each kind of measure has pairs of which it must know the better one: a measure of fidelity, that
a blurred photo is nearer than another photo; one of realism, that real photos look more like
photos than blurred or shuffled ones. Photo by photo where the measure is of photos; else by the
intervals of the two sets.

Paper: nothing of this.
Differs from the paper: a measure that is fooled here decides nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from perco_lite.evaluation.codecs.controls import (
    BLUR_1,
    BLUR_2,
    OTHER_PHOTO,
    OTHER_TEXTURE,
    SMALLEST_JPEG,
    TILES,
)
from perco_lite.evaluation.metrics.intervals import bootstrap_interval
from perco_lite.evaluation.results import Results
from perco_lite.evaluation.scoring import DISTANCES, LOWER_IS_BETTER, PHOTO_METRICS, SET_METRICS

FIDELITY = ("psnr", "ms_ssim", "lpips_alex", "lpips_vgg", "dists")
MEANING = ("clip_score", "miou", "miou_masks", "own_photo", "same_class")
NO_DIFFUSION = "perco-estimate"

# (better, worse); of pairs with rates, at each rate
_FIDELITY = [(BLUR_1, BLUR_2), (BLUR_2, TILES), (BLUR_2, OTHER_PHOTO)]
_FIDELITY += [(SMALLEST_JPEG, OTHER_PHOTO), (NO_DIFFUSION, OTHER_TEXTURE)]
_REALISM = [(BLUR_1, BLUR_2)]
_REALISM += [(OTHER_PHOTO, fake) for fake in (BLUR_1, BLUR_2, TILES, OTHER_TEXTURE, SMALLEST_JPEG)]
_MEANING = [(BLUR_1, TILES), (BLUR_1, OTHER_PHOTO)]
PAIRS = dict.fromkeys(FIDELITY, _FIDELITY) | dict.fromkeys(DISTANCES, _REALISM)
PAIRS |= dict.fromkeys(MEANING, _MEANING)

KNOWS, FOOLED, UNSURE = "knows", "is fooled by", "cannot tell"


class Answer(NamedTuple):
    """One pair: what the measure says of it, with both figures."""

    better: str
    worse: str
    rate: str
    outcome: str  # KNOWS, FOOLED or UNSURE
    figures: tuple[float, float]


class Verdict(NamedTuple):
    """A measure and its answers, of pairs of which both have figures."""

    metric: str
    answers: tuple[Answer, ...]

    @property
    def outcome(self) -> str:
        """FOOLED if it ever is, else UNSURE if it ever is."""
        found = {answer.outcome for answer in self.answers}
        return next(one for one in (FOOLED, UNSURE, KNOWS) if one in found)

    def text(self) -> str:
        """One line: what fools it, and what it cannot tell."""
        parts = []
        for outcome in (FOOLED, UNSURE):
            named = [
                f"{t.worse}{f' at {t.rate}' if t.rate else ''} ({t.figures[1]:.4g}) against "
                f"{t.better} ({t.figures[0]:.4g})"
                for t in self.answers
                if t.outcome == outcome
            ]
            parts += [f"{outcome} {', '.join(named)}"] if named else []
        known = sum(answer.outcome == KNOWS for answer in self.answers)
        return f"{self.metric}: knows {known} of {len(self.answers)}" + "".join(
            f"; {part}" for part in parts
        )


def judge_controls(results: Results) -> list[Verdict]:
    """A verdict for each measure of a finished table that has figures of both of some pair."""
    verdicts = []
    for metric in (*PHOTO_METRICS, *SET_METRICS):
        answers = tuple(
            answer
            for better, worse in PAIRS.get(metric, ())
            for answer in _answers(results, metric, better, worse)
        )
        if answers:
            verdicts.append(Verdict(metric, answers))
    return verdicts


def _answers(results: Results, metric: str, better: str, worse: str) -> Iterator[Answer]:
    """One a rate of the worse one, the better one at the same rate if it has rates."""
    groups = {(about["codec"], about["rate"]): about for about in results.summary["results"]}
    for codec, rate in groups:
        if codec != worse:
            continue
        first = (better, rate) if (better, rate) in groups else (better, "")
        figures = [_figure(groups.get(key, {}), metric) for key in (first, (worse, rate))]
        if None in figures:
            continue
        sign = -1 if metric in LOWER_IS_BETTER else 1
        if metric in PHOTO_METRICS:
            low, high = _paired(results, metric, first, (worse, rate))
        else:
            one, other = (_ends(groups[key], metric) for key in (first, (worse, rate)))
            low, high = one[0] - other[1], one[1] - other[0]
        low, high = sorted((sign * low, sign * high))
        outcome = KNOWS if low > 0 else FOOLED if high < 0 else UNSURE
        yield Answer(better, worse, rate, outcome, tuple(figures))


def _figure(about: dict, metric: str) -> float | None:
    figure = about.get(metric, {})
    value = figure.get("mean", figure.get("value"))
    return value if isinstance(value, int | float) else None


def _ends(about: dict, metric: str) -> tuple[float, float]:
    """Interval of a set's figure; where the set is too large for one, the figure itself."""
    value = _figure(about, metric)
    return tuple(about[metric].get("interval", (value, value)))


def _paired(results: Results, metric: str, first: tuple, second: tuple) -> tuple[float, float]:
    """Interval of the mean difference, photo by photo."""
    ours, theirs = (results.values(codec, rate, metric) for codec, rate in (first, second))
    differences = [ours[photo] - theirs[photo] for photo in ours if photo in theirs]
    interval = bootstrap_interval(differences)
    return interval or (-np.inf, np.inf)
