"""The rule behind the verdicts, on made-up numbers; and that the table says what the rule said."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perco_lite.claims.claim import Claim
from perco_lite.claims.claim_list import CLAIMS
from perco_lite.claims.measures import LITE_RATES, LOW, at_most, pair, sets, within
from perco_lite.claims.run import EXPERIMENTS
from perco_lite.claims.table import NOT_MEASURED, judge, markdown
from perco_lite.claims.verdicts import (
    FAILS,
    HOLDS,
    IN_DIRECTION,
    UNKNOWN,
    VERDICTS,
    Effect,
    Tables,
    UnmeasurableError,
    UnmeasuredError,
    of_photos,
    verdict,
)
from perco_lite.files import write_csv

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "interval, options, expected",
    [
        ((0.1, 0.3), {}, IN_DIRECTION),
        ((0.1, 0.3), {"comparable": True}, HOLDS),
        ((-0.3, -0.1), {}, FAILS),
        ((-0.1, 0.3), {}, UNKNOWN),
        ((-0.1, 0.3), {"matters": 0.5}, FAILS),  # even its upper end is too small to matter
        ((-0.1, 0.6), {"matters": 0.5}, UNKNOWN),
        ((0.1, 0.3), {"matters": 0.5}, IN_DIRECTION),
        ((-0.05, 0.04), {"region": within(0.1)}, IN_DIRECTION),
        ((-0.05, 0.14), {"region": within(0.1)}, UNKNOWN),
        ((0.11, 0.14), {"region": within(0.1)}, FAILS),
        ((-9, 0.04), {"region": at_most(0.05)}, IN_DIRECTION),
        ((0.0, 0.0), {"region": (-0.5, 0.5), "comparable": True}, HOLDS),
        ((0.0, 0.2), {}, UNKNOWN),  # the sign is not sure
        ((-0.3, -0.05), {"region": (-0.1, math.inf)}, UNKNOWN),  # may be as good as
    ],
)
def test_rule(interval, options, expected):
    assert verdict(interval, **options) == expected


ends = st.floats(-5, 5)


@given(st.tuples(ends, ends).map(sorted), st.tuples(ends, ends), st.floats(0, 2))
def test_a_narrower_interval_never_contradicts(interval, region, matters):
    start, end = min(region), max(region) + 0.1
    middle = sum(interval) / 2
    wide = verdict(tuple(interval), (start, end), matters=matters)
    narrow = verdict((middle, middle), (start, end), matters=matters)
    assert {wide, narrow} <= set(VERDICTS)
    if wide == IN_DIRECTION:
        assert narrow == IN_DIRECTION
    if wide == FAILS and matters == 0:
        assert narrow == FAILS


@pytest.mark.parametrize("wrong", [((1, 0), (0, 1)), ((0, 1), (1, 0)), ((math.nan, 1), (0, 1))])
def test_intervals_that_are_none(wrong):
    with pytest.raises(ValueError, match="expected low and high"):
        verdict(*wrong)


@pytest.fixture
def folder(tmp_path):
    """Twenty photos: setting "b" is 1 better than "a" in each, whatever the photo."""
    rows = []
    for i in range(20):
        for setting, shift in (("a", 0.0), ("b", 1.0)):
            rows.append({"photo": str(i), "rate": "r", "setting": setting, "psnr": i + shift})
    rows.append({"photo": "0", "rate": "r", "setting": "empty", "psnr": None})
    write_csv(tmp_path / "made.csv", rows)
    draws = []
    for draw in range(50):
        common = 5.0 if draw == 0 else 5 + draw % 7
        for setting, factor in (("a", 2.0), ("b", 1.0)):
            one = {"draw": draw, "rate": "r", "setting": setting}
            draws.append(one | {"patch_frechet": factor * common})
    write_csv(tmp_path / "made_sets.csv", draws[::-1])
    return tmp_path


def test_pairs_cancel_what_photos_share(folder):
    results = Tables(folder)
    effect = results.mean("made", "psnr", ("r", "b"), minus=("r", "a"))
    assert effect == Effect(1.0, (1.0, 1.0), 20)
    low, high = results.mean("made", "psnr", ("r", "b")).interval
    assert low < 9 and high > 12  # of single settings the intervals overlap widely
    effect, figure = pair("made", "psnr", ("r", "b"), ("r", "a"), "dB")(results)
    assert figure == "+1 dB [1, 1]; 9.5 → 10.5, 20 photos"
    effect, _ = pair("made", "psnr", ("r", "a"), ("r", "b"), "dB", sign=-1)(results)
    assert effect.value == 1.0  # lower is better: b's figure minus a's


def test_sets_are_compared_draw_by_draw(folder):
    effect, figure = sets("made", ("r", "b"), ("r", "a"))(Tables(folder))
    assert effect.interval == pytest.approx((50, 50)) and "10.0 → 5.0" in figure
    alone = Tables(folder).of_sets("made", [("r", "b")], lambda a: a)
    assert alone.value == 5.0 and alone.interval[0] < 5 < alone.interval[1]
    assert Tables(folder).draws("made", ("r", "a"))[0] == 10.0  # in order of the draws


def test_what_is_missing_is_named(folder):
    results = Tables(folder)
    with pytest.raises(UnmeasuredError, match="perco claims steps -o"):
        results.rows("steps_sets")
    with pytest.raises(UnmeasurableError, match="made.csv has no psnr for r empty"):
        results.values("made", "psnr", ("r", "empty"))
    with pytest.raises(UnmeasurableError, match="no lpips"):
        results.values("made", "lpips", ("r", "a"))
    with pytest.raises(UnmeasurableError, match="1 photos"):
        of_photos([1.0])


def claim(key, measure, **options) -> Claim:
    return Claim(
        key, f"words of {key}", "Sec. 1 [S]", "made", "1 dB", measure, "A reason.", **options
    )


def test_claims_on_bytes(tmp_path):
    """Our own claims, by hand: 90 and 96 bytes; 20 and 16 % at one rate, 30 and 18 % at another."""
    rows = []
    for i, (size, savings) in enumerate(((90, (0.2, 0.3)), (96, (0.16, 0.18)))):
        for rate, saving in zip(LITE_RATES, (*savings, 0.5, 0.5), strict=True):
            one = {"photo": str(i), "rate": rate, "setting": "stored caption"}
            one |= {"file_bytes": size, "paper_bytes": 150 + i, "index_saving": saving}
            one |= {"uniform_index_bytes": 96, "paper_index_bytes": 96, "index_bytes": 70}
            rows.append(one)
        one = {"photo": f"c{i}", "rate": LOW, "setting": "human", "table_share": 0.1 + 0.1 * i}
        rows.append(one | {"table_bytes": 6, "zlib_bytes": 40, "bits_per_character": 1.2})
    write_csv(tmp_path / "ledgers.csv", rows)
    judged = {one.claim.key: one for one in judge(tmp_path, CLAIMS)}
    assert judged["under-100"].verdict == HOLDS
    assert judged["under-100"].figure == "93.0 bytes [90.0, 96.0], 90 to 96; 2 of 2 under 100"
    assert judged["prior"].verdict == HOLDS
    assert judged["prior"].figure == "18.0% [16.0%, 20.0%] at 0.0019"
    assert judged["prior-high"].verdict == UNKNOWN  # 18 to 30 % at its worst rate
    assert judged["prior-high"].effect.value == pytest.approx(0.04)
    assert judged["caption-coder"].verdict == HOLDS and "15.0% of" in judged["caption-coder"].figure
    assert judged["whole"].figure.startswith("57.5 bytes fewer [55.0, 60.0] at 0.0019; 0.0098: 58")
    assert judged["rates"].verdict == HOLDS, "the uniform code's bytes, not the prior's"


def test_judgements(folder):
    better = pair("made", "psnr", ("r", "b"), ("r", "a"), "dB")
    worse = pair("made", "psnr", ("r", "a"), ("r", "b"), "dB")
    judged = judge(
        folder,
        [
            claim("good", better),
            claim("same", better, comparable=True),
            claim("bad", worse),
            claim("tiny", better, matters=3.0),
            claim("seed", better, matters=3.0, one_run=True),
            claim("leaning", better, needs="bad"),
            claim("gone", pair("steps", "psnr", ("r", "b"), ("r", "a"), "dB")),
            claim("empty", pair("made", "lpips", ("r", "b"), ("r", "a"), "")),
        ],
    )
    found = {one.claim.key: one.verdict for one in judged}
    assert found == {
        "good": IN_DIRECTION,
        "same": HOLDS,
        "bad": FAILS,
        "tiny": IN_DIRECTION,
        "seed": UNKNOWN,
        "leaning": UNKNOWN,
        "gone": NOT_MEASURED,
        "empty": UNKNOWN,
    }
    assert judged[3].figure.endswith("(tiny: 3 would matter)") and "One run" in judged[4].why
    assert "words of bad" in judged[5].why and "perco claims steps" in judged[6].why
    short, long = markdown(judged), markdown(judged, long=True)
    assert short.splitlines()[0].count("|") == 4 and long.splitlines()[0].count("|") == 8
    assert "| +1 dB [1, 1] (tiny) | **holds in direction** |" in short and "photos" not in short
    assert (
        "| **holds in direction** |" in long
        and "| 3. words of good" in markdown(judged[:1], first=3)
        and "`perco claims made`" in long
    )


def test_the_claims_cover_what_was_asked():
    assert len(CLAIMS) >= 15 and len({c.key for c in CLAIMS}) == len(CLAIMS)
    assert {c.experiment for c in CLAIMS} == set(EXPERIMENTS)
    for number, one in enumerate(CLAIMS):
        assert any(mark in one.where for mark in ("[S", "[I]", "[R]")), one.key
        assert one.needs in ("", *(c.key for c in CLAIMS[:number]))


def test_committed_results_give_the_committed_verdicts():
    folder = ROOT / "data" / "results" / "claims"
    judged = judge(folder, CLAIMS)
    assert len(judged) == len(CLAIMS)
    for one in judged:
        assert one.verdict in VERDICTS, f"{one.claim.key}: {one.why}"
        if one.effect is not None:
            assert np.isfinite(one.effect.value) and one.figure != "none"
