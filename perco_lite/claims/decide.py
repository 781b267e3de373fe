"""One rule for all claims of a dated list: intervals against the effect that matters, and Holm.

    effect of each claim, drawn anew ──► p-values that it is above, or below, what matters
        ──Holm's correction over the list──► holds · no effect that matters · does not hold here
                                             · cannot be told from these photos

At 5 % over the whole list, not claim by claim: with 24 claims of which none has the effect it
says, all 24 verdicts are right 19 times of 20. A claim that was only recalled is never told not to
hold: the paper may not make it.

Paper: nothing of this; it shows curves.
Differs from the paper: see there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from perco_lite.claims.dated import SAME, DatedClaim
from perco_lite.evaluation.metrics.intervals import percentiles

HOLDS = "holds"
NO_EFFECT = "no effect that matters"
FAILS = "does not hold here"
UNTOLD = "cannot be told from these photos"
VERDICTS = (HOLDS, NO_EFFECT, FAILS, UNTOLD)
LEVEL = 0.05  # of one wrong verdict in the whole list


@dataclass(frozen=True)
class Decision:
    """A claim, its effect with the 95 % interval, and the verdict; ``note``: why not another.

    ``p``: of the likelier of both errors, corrected over the list; None without an effect.
    """

    claim: DatedClaim
    verdict: str
    effect: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    note: str = ""


def mean_draws(values: Iterable[float], draws: int = 10_000, seed: int = 0) -> np.ndarray:
    """The mean of photos' figures, and of as many photos drawn anew: (1 + draws,).

    Draws lie too close together for few photos, by √(n/(n-1)); that is mended. ``ValueError`` for
    fewer than two figures, or one that is not finite.
    """
    values = np.asarray(list(values), np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"got {len(values)} figures, expected at least 2, all of them finite")
    chosen = np.random.default_rng(seed).integers(len(values), size=(draws, len(values)))
    mean = values.mean()
    spread = np.sqrt(len(values) / (len(values) - 1))
    return np.concatenate([[mean], mean + spread * (values[chosen].mean(1) - mean)])


def decide(claims: Iterable[DatedClaim], effects: Mapping[str, np.ndarray]) -> dict[str, Decision]:
    """A decision for each claim. ``effects``: by id, the effect of all photos and of the draws.

    Claims without an effect cannot be told, and count in the correction all the same: what could
    not be measured makes nothing surer. Raises ``ValueError`` for an effect of no claim, and for
    too few draws for any verdict: 40 a claim.
    """
    claims = list(claims)
    if strange := set(effects) - {claim.id for claim in claims}:
        raise ValueError(f"got effects of {', '.join(sorted(strange))}, which the list has not")
    few = [name for name, draws in effects.items() if len(draws) - 1 < 40 * len(claims)]
    if few:
        raise ValueError(
            f"got {len(effects[few[0]]) - 1} draws of {few[0]}, expected at least "
            f"{40 * len(claims)} for {len(claims)} claims: else no verdict is possible"
        )
    tails = {c.id: _tails(c, effects[c.id][1:]) for c in claims if c.id in effects}
    corrected = holm({c.id: min(1.0, 2 * min(tails.get(c.id, (1, 1)))) for c in claims})
    decided: dict[str, Decision] = {}
    for claim in claims:
        if claim.id not in effects:
            decided[claim.id] = Decision(claim, UNTOLD, note="not measured")
            continue
        p, (factor, draws) = corrected[claim.id][0], (corrected[claim.id][1], effects[claim.id])
        verdict, note = _verdict(claim, tails[claim.id], p, factor, draws[1:]), ""
        if verdict in (NO_EFFECT, FAILS) and claim.surely == "recalled":
            verdict, note = UNTOLD, f"only recalled; else: {verdict}"
        if claim.needs and decided[claim.needs].verdict != HOLDS:
            verdict, note = UNTOLD, f"says nothing unless {claim.needs!r} holds"
        whole = float(draws[0])
        interval = percentiles(draws[1:])
        decided[claim.id] = Decision(claim, verdict, whole, interval, p, note)
    return decided


def _verdict(claim: DatedClaim, tails: tuple, p: float, factor: int, draws: np.ndarray) -> str:
    if p >= LEVEL:
        return UNTOLD
    holds, fails = tails
    if holds < fails:
        return HOLDS
    if claim.says == SAME:
        return FAILS
    # below what matters for sure; is it sure, too, that it does not harm?
    harmless = 2 * factor * _share(draws <= -claim.matters) < LEVEL
    return NO_EFFECT if harmless else FAILS


def _tails(claim: DatedClaim, draws: np.ndarray) -> tuple[float, float]:
    """p-values against "it holds" being wrong, and against "it does not" being wrong."""
    above, below = _share(draws >= claim.matters), _share(draws <= claim.matters)
    if claim.says != SAME:
        return below, above
    low = _share(draws <= -claim.matters)
    outside = min(below, _share(draws >= -claim.matters))
    return max(above, low), min(1.0, 2 * outside)


def _share(hits: np.ndarray) -> float:
    return (1 + int(hits.sum())) / (1 + len(hits))


def holm(p_values: Mapping[str, float]) -> dict[str, tuple[float, int]]:
    """Holm's corrected p-value of each, and the factor that it was multiplied by."""
    order = sorted(p_values, key=p_values.get)
    corrected, largest = {}, 0.0
    for rank, name in enumerate(order):
        factor = len(order) - rank
        largest = max(largest, min(1.0, factor * p_values[name]))
        corrected[name] = largest, factor
    return corrected
