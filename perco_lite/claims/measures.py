"""How each claim is measured: from the tables to the one effect that decides, and to words.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    Tables ──measure──► (Effect, "our figure")

``pair`` and ``sets`` serve most claims; those below them are of one claim each.

Paper: PerCo, RQ1 to RQ5.
Differs from the paper: differences are taken photo by photo, or draw by draw, before any mean.
"""

import math
from collections.abc import Callable, Iterable

import numpy as np

from perco_lite.claims.verdicts import Effect, Key, Tables, UnmeasurableError, of_photos
from perco_lite.evaluation.metrics.intervals import draw_photos, percentiles

LOW, HIGH = "0.0019", "0.1250"
LITE_RATES = (LOW, "0.0098", "0.0313", HIGH)

Measure = Callable[[Tables], tuple[Effect, str]]


def pair(name: str, metric: str, better: Key, worse: Key, unit: str, sign: int = 1) -> Measure:
    """Mean over photos of ``sign`` x (figure of ``better`` - figure of ``worse``)."""

    def measure(results: Tables) -> tuple[Effect, str]:
        one, two = (better, worse) if sign > 0 else (worse, better)
        effect = results.mean(name, metric, one, minus=two)
        ends = [results.mean(name, metric, key).value for key in (worse, better)]
        return effect, f"{effect.text(unit)}; {ends[0]:.4g} → {ends[1]:.4g}, {effect.count} photos"

    return measure


def sets(name: str, better: Key, worse: Key) -> Measure:
    """How much lower the patch Fréchet distance is, in percent of the worse one."""

    def measure(results: Tables) -> tuple[Effect, str]:
        effect = results.of_sets(name, [better, worse], lambda a, b: 100 * (1 - a / b))
        ends = [results.draws(name, key)[0] for key in (worse, better)]
        text = effect.text("% lower patch Fréchet distance")
        return effect, f"{text}; {ends[0]:.1f} → {ends[1]:.1f}"

    return measure


def within(margin: float) -> tuple[float, float]:
    """Region of an effect that is too small to matter in either direction."""
    return -margin, margin


def at_most(margin: float) -> tuple[float, float]:
    """Region of a loss that is too small to matter."""
    return -math.inf, margin


def index_bytes(results: Tables) -> tuple[Effect, str]:
    rows = [row for row in results.rows("ledgers") if row.get("uniform_index_bytes")]
    if not rows:
        raise UnmeasurableError("ledgers.csv has no uniform_index_bytes")
    off = [float(row["uniform_index_bytes"]) - float(row["paper_index_bytes"]) for row in rows]
    worst = max(map(abs, off))
    ends = (min(off), max(off))
    return Effect(worst, ends, len(rows)), f"at most {worst:g} bytes off in {len(rows)} files"


def below(limit: float, sizes: Iterable[float]) -> tuple[Effect, str]:
    """How far sizes are below a limit, and what they are."""
    effect = of_photos([limit - size for size in sizes])
    low, high = (limit - end for end in reversed(effect.interval))
    return effect, f"{limit - effect.value:.1f} bytes [{low:.1f}, {high:.1f}]"


def stored(results: Tables, rate: str, metric: str) -> np.ndarray:
    """A figure of the photos' files with their stored captions, photo by photo."""
    return np.array(list(results.values("ledgers", metric, (rate, "stored caption")).values()))


def stored_under_153(results: Tables) -> tuple[Effect, str]:
    paper, whole = (stored(results, LOW, name) for name in ("paper_bytes", "file_bytes"))
    effect, text = below(153, paper)
    under, ours = (sum(several < 153) for several in (paper, whole))
    return effect, (
        f"{text} as the paper counts, {under} of {effect.count} under 153; our whole files "
        f"{whole.mean():.1f}, {ours} under"
    )


def human_under_153(results: Tables) -> tuple[Effect, str]:
    effect, text = below(153, results.values("ledgers", "paper_bytes", (LOW, "human")).values())
    share = results.mean("ledgers", "under_153", (LOW, "human")).value
    return effect, (
        f"{text}, {share:.0%} of the captions under 153; {effect.count} photos, five captions each"
    )


def text_share(results: Tables) -> tuple[Effect, str]:
    effect = results.mean("ledgers", "text_share_512", (LOW, "human"))
    return effect, f"{effect.text(form='.1%')} with human captions at 512×512"


def uniform_code(results: Tables) -> tuple[Effect, str]:
    each = {
        rate: results.mean("entropy", "saving", (rate, "code of the other photos"))
        for rate in LITE_RATES
    }
    others = ", ".join(f"{rate}: {one.value:.1%}" for rate, one in list(each.items())[1:])
    effect = each[LOW]
    return effect, f"{effect.text(form='.1%')} at {LOW}; {others}; {effect.count} photos"


def flatter_than_distortion(results: Tables) -> tuple[Effect, str]:
    low, high = (
        np.array(list(results.values("rate", "ms_ssim", (rate, "perco")).values()))
        for rate in (LOW, HIGH)
    )
    draws = len(results.draws("rate", (LOW, "perco"))) - 1
    chosen = np.stack(list(draw_photos(len(low), draws)))  # as the distances were drawn
    distortion = np.log2((1 - low)[chosen].mean(1) / (1 - high)[chosen].mean(1))
    effect = results.of_sets(
        "rate", [(LOW, "perco"), (HIGH, "perco")], lambda a, b: distortion - np.log2(a / b)
    )
    falls = 2 ** distortion[0], 2 ** (distortion[0] - effect.value)
    return effect, (
        f"{effect.text('octaves')}; from {LOW} to {HIGH} 1 − MS-SSIM falls ×{falls[0]:.2f}, "
        f"patch Fréchet distance ×{falls[1]:.2f}"
    )


def flatter_than_regression(results: Tables) -> tuple[Effect, str]:
    keys = [(rate, setting) for setting in ("no diffusion", "perco") for rate in (LOW, HIGH)]
    effect = results.of_sets("rate", keys, lambda a, b, c, d: np.log2(a / b) - np.log2(c / d))
    falls = [results.draws("rate", key)[0] for key in keys]
    return effect, (
        f"{effect.text('octaves')}; falls ×{falls[0] / falls[1]:.2f} without diffusion, "
        f"×{falls[2] / falls[3]:.2f} with"
    )


def near_the_ceiling(results: Tables) -> tuple[Effect, str]:
    effect = results.of_sets("rate", [(LOW, "perco"), ("", "autoencoder")], lambda a, b: a / b)
    return effect, effect.text("times the autoencoder's patch Fréchet distance", ".2f")


def against_modern_codecs(results: Tables) -> tuple[Effect, str]:
    keys = [(LOW, "perco"), ("", "avif"), ("", "webp")]
    effect = results.of_sets("rate", keys, lambda a, b, c: 100 * (1 - a / np.minimum(b, c)))
    ours, avif, webp = (results.draws("rate", key)[0] for key in keys)
    sizes = [f"{results.mean('rate', 'bytes', key).value:.0f}" for key in keys]
    return effect, (
        f"{effect.text('% lower than the better of AVIF and WebP')}; {ours:.0f} with "
        f"{sizes[0]} bytes, AVIF {avif:.0f} with {sizes[1]}, WebP {webp:.0f} with {sizes[2]}"
    )


def semantic_metrics(results: Tables) -> tuple[Effect, str]:
    needed = ("CLIP score", "mIoU")
    rows = [row for row in results.rows("missing") if row["setting"] in needed]
    absent = [row["why"] for row in rows if row["here"] != "1"]
    raise UnmeasurableError("; ".join(absent) or "metrics are here; use perco evaluate coco30k")


def text_at_low_and_high(results: Tables) -> tuple[Effect, str]:
    gains = [
        results.differences("captions", "v_loss", (rate, "another photo's"), (rate, "human"))
        for rate in (LOW, HIGH)
    ]
    effect = of_photos([gains[0][photo] - gains[1][photo] for photo in gains[0]])
    low, high = (np.mean(list(gain.values())) for gain in gains)
    return effect, f"{effect.text('of v-loss')}; gain {low:.4f} at {LOW}, {high:.4f} at {HIGH}"


def quantizer_share(results: Tables) -> tuple[Effect, str]:
    """Of the feature distance from file to autoencoder, the part that codes are to blame for."""
    what = "bottleneck", "feature_distance"
    keys = sent, alone, free = (HIGH, "nearest codes"), ("", "autoencoder"), (HIGH, "unquantized")
    gap, part = (
        np.array(list(results.differences(*what, sent, key).values())) for key in (alone, free)
    )
    ends = [results.mean(*what, key).value for key in keys]
    # a ratio of means: single photos may have next to no gap
    draw = np.random.default_rng(0)
    chosen = draw.integers(len(gap), size=(2000, len(gap)))
    low, high = percentiles(part[chosen].mean(1) / gap[chosen].mean(1) - 0.5)
    effect = Effect(float(part.mean() / gap.mean() - 0.5), (low, high), len(gap))
    return effect, (
        f"{effect.value + 0.5:.0%} [{low + 0.5:.0%}, {high + 0.5:.0%}] of the gap at {HIGH} goes "
        f"with the quantizer; feature distance {ends[0]:.3f} with nearest codes, {ends[2]:.3f} "
        f"without, {ends[1]:.3f} autoencoder alone"
    )


def whole_under_100(results: Tables) -> tuple[Effect, str]:
    sizes = stored(results, LOW, "file_bytes")
    effect, text = below(100, sizes)
    ends = f"{min(sizes):.0f} to {max(sizes):.0f}"
    return effect, f"{text}, {ends}; {sum(sizes < 100)} of {effect.count} under 100"


def prior_saves(rates: tuple[str, ...], least: float):
    """What the prior saves of log2 K bits an index, less ``least``, where it saves least."""

    def measure(results: Tables) -> tuple[Effect, str]:
        key = "stored caption"
        each = {rate: results.mean("ledgers", "index_saving", (rate, key)) for rate in rates}
        worst = min(each.values(), key=lambda one: one.value)
        low, high = (end - least for end in worst.interval)
        said = [f"{one.text(form='.1%')} at {rate}" for rate, one in each.items()]
        return Effect(worst.value - least, (low, high), worst.count), ", ".join(said)

    return measure


def caption_share(results: Tables) -> tuple[Effect, str]:
    share = results.mean("ledgers", "table_share", (LOW, "human"))
    bits, ours, zlib = (
        results.mean("ledgers", name, (LOW, "human")).value
        for name in ("bits_per_character", "table_bytes", "zlib_bytes")
    )
    text = share.text("of zlib's bytes", ".1%")
    return share, (
        f"{text}; {ours:.1f} for {zlib:.1f} bytes, {bits:.2f} "
        f"bits a character; {share.count} photos, five captions each"
    )


def against_the_paper(results: Tables) -> tuple[Effect, str]:
    gaps = {
        rate: stored(results, rate, "paper_bytes") - stored(results, rate, "file_bytes")
        for rate in LITE_RATES
    }
    effect = of_photos(gaps[LOW])
    others = ", ".join(f"{rate}: {np.mean(gap):.0f}" for rate, gap in list(gaps.items())[1:])
    text = f"{effect.text('bytes fewer', '.1f')} at {LOW}; {others}; {effect.count} photos"
    return effect, text
