"""Each claim of the list has a measure that is what it says; effects that are known come out."""

import re
from zlib import crc32

import numpy as np
import pytest

from perco_lite.claims import effects
from perco_lite.claims.dated import load_list
from perco_lite.claims.decide import FAILS, HOLDS, NO_EFFECT, decide
from perco_lite.claims.effects import BOTH, COCO, HIGH, KODAK, LOW, VAL, Drawn, Want, measures
from perco_lite.claims.eyes import SEEN_BY
from perco_lite.claims.makers import MAKERS
from perco_lite.claims.photos import SETS, ClaimPhoto, named_set
from perco_lite.claims.trained import KINDS
from perco_lite.rates import get_rate

LIST = load_list()
CLAIMS = (*LIST.claims, *LIST.ours)
MEASURES = measures()


def test_every_claim_of_the_list_has_a_measure_and_no_other():
    assert set(MEASURES) == {claim.id for claim in CLAIMS}


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
def test_a_measure_is_what_the_list_says(claim):
    measure = MEASURES[claim.id]
    name, number = named_set(claim.photos)
    assert {want.photos for want in measure.everything} == {name}
    figure = SEEN_BY.get(claim.metric, claim.metric)
    wanted = {"saving" if claim.id == "prior" else figure}
    wanted |= {"flat": {"lpips_alex"}, "caption-coder": {"zlib_bytes"}}.get(claim.id, set())
    assert {want.figure for want in measure.wants} == wanted
    said = set(re.findall(r"0\.\d{4}", claim.comparison))
    made = {want.rate for want in measure.wants} - {""}
    each = {"beside-shrunk": set(effects.RATES), "caption-coder": set(), "quantizer": {HIGH}}
    assert made == each.get(claim.id, said), claim.comparison
    assert all(get_rate(rate) for rate in made)
    for want in measure.everything:
        kind = want.made.rpartition(", seed ")[0]
        assert kind in KINDS if kind else want.made in MAKERS, want.made
    steps = {want.made for want in measure.wants if want.made.startswith("loop")}
    assert bool(steps) == ("loop" in claim.comparison or "twenty steps" in claim.comparison)
    assert number == {KODAK: 24, COCO: 100, BOTH: 124, VAL: 500}.get(name, 24)


class Kept:
    """A store of figures and features that a test makes up: (photo, made, rate) -> …"""

    def __init__(self, figure=None, feature=None):
        self._figure, self._feature = figure, feature

    def figure(self, key, name):
        return self._figure(*key, name)

    def feature(self, key, name):
        return self._feature(*key, name)


def photos(*folders, count=60):
    return {f: [ClaimPhoto(f"{f}/{n}", None) for n in range(count)] for f in folders}


def noise(photo: str, spread: float = 1.0) -> float:
    """The same for everything that is made of a photo."""
    return spread * np.random.default_rng(int(photo.rpartition("/")[2])).normal()


def decided(name: str, effect: np.ndarray) -> str:
    (claim,) = (claim for claim in CLAIMS if claim.id == name)
    return decide([claim], {name: effect})[name].verdict


@pytest.mark.parametrize(("gain", "verdict"), [(0.006, HOLDS), (0.0005, NO_EFFECT), (-0.01, FAILS)])
def test_a_paired_gain_is_seen_through_the_photos_spread(gain, verdict):
    """Photos differ by a hundred times the gain, which each of them has."""

    def figure(photo, made, rate, name):
        own = noise(photo, 0.1) + 0.5 + 0.0003 * np.sin(crc32(f"{photo} {made}".encode()))
        return own + gain * (made != "text: own")

    drawn = Drawn(Kept(figure), photos("val"), 1000)
    effect = MEASURES["text-content"].effect(drawn)
    assert len(effect) == 1001 and effect[0] == pytest.approx(gain, abs=2e-4)
    assert decided("text-content", effect) == verdict


def test_kid_and_miou_of_pictures_that_are_better_and_worse():
    def feature(photo, made, rate, name):
        random = np.random.default_rng(int(photo.rpartition("/")[2]))
        if name == "labels":
            right = {"perco": 0.7, "perco without caption": 0.6}.get(made, 0.4)
            hits = random.binomial(100, right, 3)
            return np.diag(hits) + np.roll(np.diag(100 - hits), 1, axis=1)
        vectors = random.normal(0, 1, (4, 16))
        away = {"original": 0, "perco": 0.5, "perco-estimate": 0.9}.get(made, 0.6)
        return vectors + away + 0.2 * random.normal(0, 1, vectors.shape) * (away > 0)

    drawn = Drawn(Kept(feature=feature), photos("kodak", "coco_eval"), 1000)
    effect = MEASURES["diffusion"].effect(drawn)
    assert 50 < effect[0] < 95 and decided("diffusion", effect) == HOLDS
    assert effect[1:].std() < 10 and np.median(effect[1:]) == pytest.approx(effect[0])
    for rival in effects.RIVALS:  # the lowest of the three is the one that counts
        assert drawn.kid(Want(BOTH, rival, LOW, "inception"))[0] > 0
    assert decided("many-steps", MEASURES["many-steps"].effect(drawn)) in (NO_EFFECT, FAILS)
    semantics = MEASURES["semantics"].effect(drawn)
    assert 0.15 < semantics[0] < 0.35 and decided("semantics", semantics) == HOLDS


def test_flat_counts_octaves():
    """LPIPS falls by two octaves, what FID sees by less than one."""

    def figure(photo, made, rate, name):
        return (0.8 if rate == LOW else 0.2) * (1 + noise(photo, 0.05))

    def feature(photo, made, rate, name):
        random = np.random.default_rng(int(photo.rpartition("/")[2]))
        away = {"": 0, LOW: 0.6, HIGH: 0.5}[rate]
        return random.normal(0, 1, (2, 8)) + away

    drawn = Drawn(Kept(figure, feature), photos("kodak", "coco_eval", count=30), 800)
    effect = MEASURES["flat"].effect(drawn)
    # the distance of two shifted clouds is the shift's square: 2 log2(0.6 / 0.5)
    assert effect[0] == pytest.approx(2 - 2 * np.log2(1.2), abs=1e-6)
    assert decided("flat", effect) == HOLDS


def test_shares_and_rates_at_their_worst():
    table = {"perco": 0.30, "autoencoder": 0.10, "before quantization": 0.14}
    table |= {"avif-shrunk": 0.60, "webp-shrunk": 0.50, "jpeg2000-shrunk": 0.70}

    def figure(photo, made, rate, name):
        worse = 1.2 if made == "perco" and rate == "0.0313" else 1.0
        return table[made] * worse * (1 + noise(photo, 0.1))

    drawn = Drawn(Kept(figure), photos("kodak", "coco_eval"), 1000)
    assert MEASURES["quantizer"].effect(drawn)[0] == pytest.approx(0.16 / 0.20 - 0.5)
    beside = MEASURES["beside-shrunk"].effect(drawn)
    assert beside[0] == pytest.approx(100 * (1 - 0.36 / 0.50) - 25)
    table["autoencoder"] = 0.4  # no gap, so no share of it: nothing that confirms
    assert MEASURES["quantizer"].effect(drawn)[0] == -np.inf


def test_seeds_of_training_are_in_the_interval():
    """A gain that changes its sign with the seed is not sure, however many photos there are."""

    def figure(photo, made, rate, name):
        seed, better = int(made[-1]), "without" not in made
        return 0.5 + noise(photo, 0.1) - better * (0.03 + 0.05 * (-1) ** seed)

    drawn = Drawn(Kept(figure), photos("val", count=200), 1000)
    effect = measures(seeds=5)["grid"].effect(drawn)
    assert effect[0] == pytest.approx(0.04) and effect[1:].std() > 0.015
    steady = Drawn(
        Kept(lambda photo, made, *_: 0.5 + noise(photo, 0.1) + 0.03 * ("without" in made)),
        photos("val", count=200),
        1000,
    )
    assert decided("grid", measures(seeds=5)["grid"].effect(steady)) == HOLDS


def test_what_a_list_calls_its_photos():
    assert named_set("kodak and coco_eval, 124") == (BOTH, 124) and set(SETS) >= {BOTH, VAL}
    for wrong in ("kodak", "kodak, many", "my photos, 3"):
        with pytest.raises(ValueError, match="expected one of kodak; coco_eval"):
            named_set(wrong)
