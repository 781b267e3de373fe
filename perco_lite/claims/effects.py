"""How each claim of the dated list is measured: what has to be made, and its effect.

    MEASURES[id]: wants ──Store──► figures and features of photos ──effect──► (1 + draws,)

Its first number is the effect in all photos, the others that in as many photos drawn anew; the
same draws for everything of one set of photos, so that what is compared is compared photo by photo.
Draws lie too close together for few photos, by √(n/(n-1)), and those of KID, FID and mIoU a little
to one side; both are mended.

Paper: PerCo, RQ1 to RQ5; ``data/claims.yaml`` has the comparisons in words.
Differs from the paper: it has curves, without intervals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np

from perco_lite.claims import trained
from perco_lite.claims.makers import RIVALS
from perco_lite.claims.photos import SETS, ClaimPhoto
from perco_lite.claims.sets import PairedVectors, draw_weights, mean_iou
from perco_lite.claims.store import Store

DRAWS = 1000
LOW, HIGH = "0.0019", "0.1250"
RATES = (LOW, "0.0098", "0.0313", HIGH)
KODAK, COCO, BOTH, VAL = "kodak", "coco_eval", "kodak and coco_eval", "flickr8k of val"
LARGE = "large photos as pictures of their own"


class Want(NamedTuple):
    """A figure, or features, of what is made of every photo of a set."""

    photos: str  # one of SETS
    made: str  # one of MAKERS, or a short training
    rate: str
    figure: str


class Drawn:
    """Figures of the stored rows in each draw; ``photos`` by folder, in the order of the draws."""

    def __init__(self, store: Store, photos: Mapping[str, list[ClaimPhoto]], draws: int = DRAWS):
        self.store, self.draws = store, draws
        self._names = {folder: [photo.name for photo in found] for folder, found in photos.items()}
        self.weights, self.pairs = cache(self._weights), cache(self._pairs)

    def names(self, photos: str) -> list[str]:
        return [name for folder in SETS[photos] for name in self._names[folder]]

    def values(self, want: Want) -> np.ndarray:
        """A figure of each photo, (N,)."""
        made = [(name, *want[1:3]) for name in self.names(want.photos)]
        return np.array([self.store.figure(key, want.figure) for key in made])

    def mean(self, want: Want) -> np.ndarray:
        """The mean over photos, and over those of each draw: (1 + draws,)."""
        return self.mean_of(want.photos, self.values(want))

    def mean_of(self, photos: str, values: np.ndarray) -> np.ndarray:
        """The same of figures (N,) of the photos of a set."""
        weights = self.weights(photos)
        means = weights @ values / len(values)
        return _widen(means, means[0], len(values))

    def kid(self, want: Want) -> np.ndarray:
        return self.pairs(want).kid(self.weights(want.photos))

    def fid(self, want: Want) -> np.ndarray:
        return self.pairs(want).fid(self.weights(want.photos))

    def miou(self, want: Want) -> np.ndarray:
        return mean_iou(self._features(want), self.weights(want.photos))

    def settle(self, photos: str, effect: np.ndarray) -> np.ndarray:
        """Draws of an effect of whole sets, mended: around the effect in all photos."""
        finite = effect[1:][np.isfinite(effect[1:])]
        if not len(finite):
            return effect
        draws = _widen(effect, float(np.median(finite)), len(self.names(photos)))
        return np.concatenate([effect[:1], draws[1:] + effect[0] - np.median(finite)])

    def _weights(self, photos: str) -> np.ndarray:
        return draw_weights(len(self.names(photos)), self.draws)

    def _features(self, want: Want) -> list[np.ndarray]:
        keys = [(name, *want[1:3]) for name in self.names(want.photos)]
        return [self.store.feature(key, want.figure) for key in keys]

    def _pairs(self, want: Want) -> PairedVectors:
        original = want._replace(made="original", rate="")
        return PairedVectors(self._features(original), self._features(want))


def _widen(draws: np.ndarray, centre: float, count: int) -> np.ndarray:
    return centre + np.sqrt(count / (count - 1)) * (draws - centre)


@dataclass(frozen=True)
class Measure:
    """What a claim needs, and its effect: of ``Drawn``, (1 + draws,)."""

    wants: tuple[Want, ...]
    effect: Callable[[Drawn], np.ndarray]

    @property
    def everything(self) -> tuple[Want, ...]:
        """The wants, and the originals that what a network saw is compared with."""
        seen = [w for w in self.wants if w.figure == "inception"]
        originals = [want._replace(made="original", rate="") for want in seen]
        return tuple(dict.fromkeys([*originals, *self.wants]))


def _less(more: Want, less: Want) -> Measure:
    """The mean of one less the mean of the other."""
    return Measure((more, less), lambda drawn: drawn.mean(more) - drawn.mean(less))


def _percent_lower(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """By how many percent ours is lower; minus infinity where theirs is not above zero."""
    low = np.full_like(ours, -np.inf)
    return np.where(theirs > 0, 100 * (1 - np.divide(ours, theirs, out=low, where=theirs > 0)), low)


def _lower_kid(ours: tuple[str, str], *theirs: tuple[str, str]) -> Measure:
    """By how many percent KID is lower than the lowest of the others'."""
    wants = tuple(Want(BOTH, *made, "inception") for made in (ours, *theirs))

    def effect(drawn: Drawn) -> np.ndarray:
        first, *others = (drawn.kid(want) for want in wants)
        return drawn.settle(BOTH, _percent_lower(first, np.min(others, axis=0)))

    return Measure(wants, effect)


def _more_miou(ours: tuple[str, str], *theirs: tuple[str, str]) -> Measure:
    """By how much mIoU is above the highest of the others'."""
    wants = tuple(Want(COCO, *made, "labels") for made in (ours, *theirs))

    def effect(drawn: Drawn) -> np.ndarray:
        first, *others = (drawn.miou(want) for want in wants)
        return drawn.settle(COCO, first - np.max(others, axis=0))

    return Measure(wants, effect)


def _under(limit: float, want: Want) -> Measure:
    return Measure((want,), lambda drawn: limit - drawn.mean(want))


def _flat() -> Measure:
    wants = [Want(BOTH, "perco", rate, name) for rate in (LOW, HIGH) for name in _FLAT]

    def effect(drawn: Drawn) -> np.ndarray:
        near, far, near_high, far_high = (
            drawn.mean(want) if want.figure == "lpips_alex" else drawn.fid(want) for want in wants
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            falls = np.log2(near / near_high) - np.log2(far / far_high)
        return drawn.settle(BOTH, falls)

    return Measure(tuple(wants), effect)


_FLAT = ("lpips_alex", "inception")


def _gain_at_lowest() -> Measure:
    """What the own caption gains over another's at the lowest rate, less that at the highest."""
    own, others = (
        [Want(VAL, f"text: {text}", rate, "v_loss") for rate in (LOW, HIGH)]
        for text in ("own", "another photo's")
    )

    def effect(drawn: Drawn) -> np.ndarray:
        low, high = (drawn.mean(b) - drawn.mean(a) for a, b in zip(own, others, strict=True))
        return low - high

    return Measure((*own, *others), effect)


def _quantizer_share() -> Measure:
    sent, alone, free = wants = tuple(
        Want(BOTH, made, rate, "lpips_alex")
        for made, rate in (("perco", HIGH), ("autoencoder", ""), ("before quantization", HIGH))
    )

    def effect(drawn: Drawn) -> np.ndarray:
        gap, part = (drawn.mean(sent) - drawn.mean(other) for other in (alone, free))
        share = np.divide(part, gap, out=np.full_like(gap, -np.inf), where=gap > 0)
        return share - 0.5

    return Measure(wants, effect)


def _captions_share() -> Measure:
    ours, zlib = wants = tuple(Want(VAL, "captions", "", n) for n in ("bytes", "zlib_bytes"))
    return Measure(wants, lambda drawn: 25 - 100 * drawn.mean(ours) / drawn.mean(zlib))


def _beside_shrunk() -> Measure:
    table = {
        rate: [Want(KODAK, made, rate, "lpips_alex") for made in ("perco", *RIVALS)]
        for rate in RATES
    }

    def effect(drawn: Drawn) -> np.ndarray:
        each = []
        for wants in table.values():
            ours, *theirs = (drawn.mean(want) for want in wants)
            each.append(_percent_lower(ours, np.min(theirs, axis=0)))
        return np.min(each, axis=0) - 25

    return Measure(tuple(want for wants in table.values() for want in wants), effect)


def _trainings(photos: str, rate: str, figure: str, worse: str, better: str, seeds: int) -> Measure:
    """Mean over photos and seeds of what the better training gains; both are drawn anew."""
    pairs = [
        tuple(Want(photos, trained.name_of(kind, seed), rate, figure) for kind in (worse, better))
        for seed in range(seeds)
    ]

    def effect(drawn: Drawn) -> np.ndarray:
        gains = np.stack([drawn.values(a) - drawn.values(b) for a, b in pairs])  # (seeds, photos)
        of_photos = drawn.mean_of(photos, gains.mean(0))
        of_seeds = draw_weights(seeds, drawn.draws, seed=1) @ gains.mean(1) / seeds
        return of_photos + _widen(of_seeds, of_seeds[0], seeds) - of_seeds[0]

    return Measure(tuple(want for pair in pairs for want in pair), effect)


def measures(seeds: int = trained.ShortTraining().seeds) -> dict[str, Measure]:
    """A measure for each claim of the dated list, by its id; ``seeds`` of the short trainings."""
    perco, lowest = ("perco", LOW), [(rival, LOW) for rival in RIVALS]
    loops = {name: Want(BOTH, name, LOW, "psnr") for name in ("loop of 20", _GUIDED)}
    near = {
        (made, rate): Want(BOTH, made, rate, "lpips_alex")
        for made, rate in [("perco", HIGH), ("autoencoder", ""), *((n, HIGH) for n in _LOOPS)]
    }
    text = {name: Want(VAL, f"text: {name}", LOW, "v_loss") for name in _TEXTS}
    size = [Want(LARGE, made, LOW, "lpips_alex") for made in ("perco", "perco at half the size")]
    return {
        "bytes": _under(153, Want(KODAK, "the paper's account", LOW, "bytes")),
        "diffusion": _lower_kid(perco, ("perco-estimate", LOW)),
        "flat": _flat(),
        "rivals": _lower_kid(perco, *lowest),
        "semantics": _more_miou(perco, *lowest),
        "text": _less(text["none"], text["own"]),
        "text-content": _less(text["another photo's"], text["own"]),
        "text-miou": _more_miou(perco, ("perco without caption", LOW)),
        "text-lowest": _gain_at_lowest(),
        "sources": _less(text["own"], text["another person's"]),
        "grid": _trainings(VAL, LOW, "v_loss", trained.NO_GRID, trained.GRID, seeds),
        "guidance-realism": _lower_kid((_GUIDED, LOW), ("loop of 20", LOW)),
        "guidance-fidelity": _less(loops["loop of 20"], loops[_GUIDED]),
        "few-steps": _less(near["loop of 5", HIGH], near["loop of 20", HIGH]),
        "many-steps": _lower_kid(("loop of 20", LOW), ("loop of 5", LOW)),
        "lpips-training": _trainings(
            BOTH, HIGH, "lpips_alex", trained.NO_LPIPS, trained.LPIPS, seeds
        ),
        "bound": _less(near["perco", HIGH], near["autoencoder", ""]),
        "quantizer": _quantizer_share(),
        "large": _less(*size),
        "under-100": _under(100, Want(KODAK, "file", LOW, "bytes")),
        "prior": _saved(15),
        "caption-coder": _captions_share(),
        "beside-shrunk": _beside_shrunk(),
    }


def _saved(least: float) -> Measure:
    want = Want(BOTH, "file", LOW, "saving")
    return Measure((want,), lambda drawn: drawn.mean(want) - least)


_GUIDED = "loop of 20, guidance 3"
_LOOPS = ("loop of 5", "loop of 20")
_TEXTS = ("own", "none", "another photo's", "another person's")
