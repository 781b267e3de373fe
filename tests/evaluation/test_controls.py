"""Which measures the controls fool, on figures made up for it."""

import pytest

from perco_lite.evaluation import controls
from perco_lite.evaluation.codecs.controls import CONTROLS
from perco_lite.evaluation.controls import FOOLED, KNOWS, PAIRS, UNSURE, judge_controls
from perco_lite.evaluation.methods import KNOWN
from perco_lite.evaluation.results import Results
from perco_lite.evaluation.scoring import PHOTO_METRICS, SET_METRICS

PHOTOS = [f"{number}.png" for number in range(8)]


def results(**figures) -> Results:
    """A table; of a set measure {codec: (value, low, high)}, of others {codec: one a photo}."""
    rows, groups = [], {}
    for metric, by_codec in figures.items():
        for codec, values in by_codec.items():
            codec, _, rate = codec.partition("@")
            about = groups.setdefault((codec, rate), {"codec": codec, "rate": rate})
            if metric in SET_METRICS:
                value, *ends = values
                about[metric] = {"value": value} | ({"interval": ends} if ends else {})
                continue
            about[metric] = {"mean": sum(values) / len(values)}
            for photo, value in zip(PHOTOS, values, strict=True):
                rows.append({"photo": photo, "codec": codec, "rate": rate, metric: f"{value}"})
    return Results("made", tuple(rows), {"results": list(groups.values())})


def outcomes(verdict) -> dict[tuple[str, str, str], str]:
    return {(a.better, a.worse, a.rate): a.outcome for a in verdict.answers}


def test_pairs_are_of_measures_and_codecs_that_exist():
    assert set(PAIRS) <= {*PHOTO_METRICS, *SET_METRICS}
    assert {name for pairs in PAIRS.values() for pair in pairs for name in pair} <= set(KNOWN)
    assert {worse for pairs in PAIRS.values() for _, worse in pairs} == set(CONTROLS)


def test_photo_by_photo_a_small_difference_is_seen():
    """Between photos PSNR differs by 14 dB, between the two blurs by 1: paired it is plain."""
    sharp = [20.0 + 2 * n for n in range(8)]
    verdicts = judge_controls(
        results(
            psnr={
                "control-blur-1": sharp,
                "control-blur-2": [v - 1 for v in sharp],
                "control-tiles": [v - 8 for v in sharp],
                "control-other-photo": [v - 1 + 0.1 * (-1) ** n for n, v in enumerate(sharp)],
            }
        )
    )
    (verdict,) = verdicts
    assert verdict.metric == "psnr" and verdict.outcome == UNSURE
    found = outcomes(verdict)
    assert found["control-blur-1", "control-blur-2", ""] == KNOWS
    assert found["control-blur-2", "control-tiles", ""] == KNOWS
    assert found["control-blur-2", "control-other-photo", ""] == UNSURE
    assert len(found) == 3, "of the rest there are no figures"
    text = "cannot tell control-other-photo (26) against control-blur-2 (26)"
    assert verdict.text() == f"psnr: knows 2 of 3; {text}"


def test_a_measure_that_likes_ghosts_is_fooled():
    """The lower the better; another's texture counts at each rate."""
    verdicts = judge_controls(
        results(
            lpips_alex={
                "perco-estimate@0.0019": [0.8 + 0.01 * n for n in range(8)],
                "perco-estimate@0.1250": [0.5 + 0.01 * n for n in range(8)],
                "control-other-texture@0.0019": [0.7 + 0.01 * n for n in range(8)],
                "control-other-texture@0.1250": [0.6 + 0.01 * n for n in range(8)],
            },
            kid_256={
                "control-other-photo": (0.05, 0.04, 0.06),
                "control-tiles": (0.02, 0.01, 0.03),
                "control-smallest-jpeg": (0.07, 0.055, 0.09),
                "control-blur-2": (0.3, 0.25, 0.35),
            },
        )
    )
    lpips, kid = verdicts
    assert (lpips.metric, lpips.outcome) == ("lpips_alex", FOOLED)
    pair = controls.NO_DIFFUSION, "control-other-texture"
    assert outcomes(lpips) == {(*pair, "0.0019"): FOOLED, (*pair, "0.1250"): KNOWS}
    assert "is fooled by control-other-texture at 0.0019 (0.735) against" in lpips.text()
    assert (kid.metric, kid.outcome) == ("kid_256", FOOLED)
    found = {worse: outcome for (_, worse, _), outcome in outcomes(kid).items()}
    assert found == {
        "control-tiles": FOOLED,
        "control-smallest-jpeg": UNSURE,
        "control-blur-2": KNOWS,
    }


@pytest.mark.parametrize(("value", "outcome"), [(0.4, KNOWS), (0.6, FOOLED)])
def test_a_set_too_large_for_an_interval_is_judged_by_its_figure(value, outcome):
    (verdict,) = judge_controls(results(miou={"control-blur-1": (0.5,), "control-tiles": (value,)}))
    assert verdict.outcome == outcome
