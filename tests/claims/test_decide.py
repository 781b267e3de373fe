"""The rule on made-up effects: what is sure, what is not, and how often all verdicts are right."""

from dataclasses import replace

import numpy as np
import pytest

from perco_lite.claims.dated import DatedClaim
from perco_lite.claims.decide import (
    FAILS,
    HOLDS,
    LEVEL,
    NO_EFFECT,
    UNTOLD,
    decide,
    holm,
    mean_draws,
)

CLAIM = DatedClaim(
    "a", "words", "RQ1", "read", "psnr", "24", "a less b", "more", 1.0, "dB", "why", (-9, 9), "less"
)
SAME = replace(CLAIM, says="same")


def draws(low: float, high: float, count: int = 4000) -> np.ndarray:
    """An effect that is normal, with this 95 % interval."""
    middle, spread = (low + high) / 2, (high - low) / (2 * 1.96)
    values = np.random.default_rng(0).normal(middle, spread, count)
    return np.concatenate([[middle], values])


@pytest.mark.parametrize(
    ("claim", "interval", "verdict"),
    [
        (CLAIM, (1.5, 3), HOLDS),
        (CLAIM, (0.5, 3), UNTOLD),  # the sign is sure, not that it matters
        (CLAIM, (0.1, 0.5), NO_EFFECT),  # sure, and tiny
        (CLAIM, (-0.5, 0.5), NO_EFFECT),
        (CLAIM, (-3, 0.2), FAILS),  # no gain that matters, perhaps harm
        (CLAIM, (-4, -2), FAILS),
        (CLAIM, (-4, 4), UNTOLD),
        (SAME, (-0.5, 0.6), HOLDS),
        (SAME, (-0.5, 1.5), UNTOLD),
        (SAME, (2, 3), FAILS),
        (SAME, (-3, -2), FAILS),
    ],
)
def test_an_interval_against_what_matters(claim, interval, verdict):
    (decision,) = decide([claim], {"a": draws(*interval)}).values()
    assert decision.verdict == verdict and decision.effect == sum(interval) / 2
    assert decision.interval == pytest.approx(interval, abs=0.2)
    assert (decision.p < LEVEL) == (verdict != UNTOLD)


def test_holm_by_hand():
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert {name: p for name, (p, _) in found.items()} == pytest.approx(
        {"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.9}) == {"a": (1.0, 2), "b": (1.0, 1)}


def test_what_is_sure_alone_may_not_be_in_a_list():
    claims = [replace(CLAIM, id=f"{number}") for number in range(20)]
    alone = decide(claims[:1], {"0": draws(1.05, 3)})["0"]
    assert alone.verdict == HOLDS
    among = decide(claims, {"0": draws(1.05, 3)})
    assert among["0"].verdict == UNTOLD and among["0"].p > alone.p
    assert among["1"].verdict == UNTOLD and among["1"].note == "not measured"
    assert decide(claims, {"0": draws(3, 5)})["0"].verdict == HOLDS


def test_all_verdicts_are_right_19_times_of_20():
    """Twenty claims whose effects are exactly what would matter: nothing is there to be decided."""
    random = np.random.default_rng(1)
    claims = [replace(CLAIM, id=f"{number}") for number in range(20)]
    wrong = 0
    for _ in range(60):
        photos = random.normal(1.0, 2.0, (20, 100))
        effects = {f"{n}": mean_draws(photos[n], 1000, n) for n in range(20)}
        found = decide(claims, effects)
        wrong += any(decision.verdict != UNTOLD for decision in found.values())
    assert wrong <= 7, "5 % of 60, and what chance allows"


def test_effects_that_are_there_are_found():
    random = np.random.default_rng(2)
    claims = [replace(CLAIM, id=f"{number}") for number in range(20)]
    means = [2.5] * 10 + [-0.2] * 10
    effects = {f"{n}": mean_draws(random.normal(m, 2, 100), 1000) for n, m in enumerate(means)}
    found = decide(claims, effects)
    verdicts = [found[f"{n}"].verdict for n in range(20)]
    assert verdicts[:10] == [HOLDS] * 10
    assert set(verdicts[10:]) <= {NO_EFFECT, FAILS} and NO_EFFECT in verdicts[10:]


def test_draws_of_a_mean_are_as_wide_as_they_should_be():
    values = np.random.default_rng(3).normal(5, 2, 12)
    found = mean_draws(values, 20_000)
    assert found[0] == values.mean() and len(found) == 20_001
    assert found[1:].std() == pytest.approx(values.std(ddof=1) / np.sqrt(12), rel=0.03)
    for bad in ([1.0], [1.0, np.nan]):
        with pytest.raises(ValueError, match="expected at least 2, all of them finite"):
            mean_draws(bad)


def test_recalled_claims_are_never_refuted_and_others_may_be_needed():
    recalled = replace(CLAIM, surely="recalled")
    (decision,) = decide([recalled], {"a": draws(-4, -2)}).values()
    assert (decision.verdict, decision.note) == (UNTOLD, f"only recalled; else: {FAILS}")
    assert decide([recalled], {"a": draws(2, 4)})["a"].verdict == HOLDS
    follows = replace(SAME, id="b", needs="a")
    for interval, verdict in (((2, 4), HOLDS), ((-1, 3), UNTOLD)):
        found = decide([CLAIM, follows], {"a": draws(*interval), "b": draws(-0.3, 0.3)})
        assert found["b"].verdict == verdict
    assert found["b"].note == "says nothing unless 'a' holds"


def test_too_few_draws_and_strange_effects_are_errors():
    claims = [replace(CLAIM, id=f"{number}") for number in range(20)]
    with pytest.raises(ValueError, match="got 799 draws of 0, expected at least 800 for 20 claims"):
        decide(claims, {"0": draws(2, 3, 799)})
    with pytest.raises(ValueError, match="got effects of b, which the list has not"):
        decide([CLAIM], {"b": draws(2, 3)})
