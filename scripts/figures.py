"""The figures of RQ1 to RQ5, for an appendix, from the tables of `perco evaluate`.

    python scripts/figures.py                           data/results/ ──► docs/figures/NAME.png
    python scripts/figures.py --tables FOLDER -o FOLDER
    python scripts/figures.py --only bits guidance

A figure whose tables, or whose measures, are not there is named with the command that makes them;
the others are drawn. Each says below of what photos, weights and commit it is. What others
published stands in panels of its own: grey, dashed and hollow.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from experiments import HIGHEST, LOWEST, TEXTS
from figure_panels import (
    LOOK,
    NAMES,
    Tables,
    errors,
    has,
    label_of,
    legend_below,
    panel,
    plt,
    points_at,
    usable,
)
from setting_figures import alone, bottleneck, guidance, seeds, sizes, steps

from perco_lite.evaluation.codecs.controls import (
    BLUR_1,
    BLUR_2,
    CONTROLS,
    OTHER_PHOTO,
    OTHER_TEXTURE,
    SMALLEST_JPEG,
    TILES,
)
from perco_lite.evaluation.metrics.intervals import bootstrap_interval
from perco_lite.evaluation.results import published_points
from perco_lite.plotting import draw_published, use_theme

ROOT = Path(__file__).parents[1]
PUBLISHED = ("PerCo (SD)", "MS-ILLM", "StableCodec", "AEIC-SE", "CoD (latent)", "RDEIC-5")
CAPTIONS = {
    "perco": "its own, by people",
    "perco+caption=machine": "by our captioner",
    "perco+caption=other": "another photo's",
    "perco+caption=none": "none",
    "perco+grid=none": "its own, but no grid",
}

WRONG = {
    BLUR_1: "blurred, σ 1 pixel",
    BLUR_2: "blurred, σ 2 pixels",
    TILES: "64-pixel tiles shuffled",
    OTHER_PHOTO: "another real photo",
    OTHER_TEXTURE: "no diffusion,\nanother's texture",
    SMALLEST_JPEG: "JPEG at its smallest",
}


def rates(tables: Tables):
    """RQ1: distortion and realism against rate, ours and others measured here."""
    results = tables.get("rates")
    metrics = usable(results, "perco", ("psnr", "lpips_alex", "dists", "kid_256"))
    rows = math.ceil(len(metrics) / 2)
    figure, panels = plt.subplots(rows, 2, figsize=(10.5, 4 * rows), squeeze=False)
    for axes, metric in zip(panels.flat, metrics, strict=False):
        panel(axes, results, metric, LOOK)
    for axes in panels.flat[len(metrics) :]:
        axes.set_axis_off()
    figure.suptitle("Distortion and realism against rate, everything at perco's bytes")
    return legend_below(figure, panels[0, 0])


def published(tables: Tables):
    """RQ1: ours beside figures of others, each in its own panel."""
    results = tables.get("rates")
    pairs = {"psnr": "PSNR", "lpips_alex": "LPIPS", "dists": "DISTS", "fid_256": "FID"}
    metrics = usable(results, "perco", pairs)
    size = {"figsize": (10, 3.3 * len(metrics)), "squeeze": False, "sharex": True, "sharey": "row"}
    figure, panels = plt.subplots(len(metrics), 2, **size)
    for (left, right), metric in zip(panels, metrics, strict=True):
        panel(left, results, metric, ("perco", "perco+steps=20", "perco-estimate"))
        draw_published(right, one_protocol(published_points("kodak", pairs[metric])), PUBLISHED)
        left.set(xlabel="")
        right.set(facecolor="0.97")
    panels[0, 0].set_title("measured here", fontsize=13)
    panels[0, 1].set_title("published by others: their photos, sizes and protocols", fontsize=13)
    for axes in panels[0]:
        axes.legend(fontsize=9)
    for axes in panels[-1]:
        axes.set(xlabel="bits per pixel")
    return figure


def one_protocol(points: list) -> list:
    """Of each method the points of one source: those with the most, for a line has one protocol."""
    held: dict[str, dict[tuple, list]] = {}
    for point in points:
        held.setdefault(point.method, {}).setdefault(point[1:3], []).append(point)
    return [point for some in held.values() for point in max(some.values(), key=len)]


def controls(tables: Tables):
    """What each measure makes of pictures known to be wrong."""
    results = tables.get("rates")
    metrics = ("psnr", "lpips_alex", "dists", "kid_256", "own_photo", "same_class")
    metrics = usable(results, CONTROLS[0], metrics)
    shown = [("perco", rate) for rate in (HIGHEST, LOWEST)] + [(name, LOWEST) for name in CONTROLS]
    shown = [(c, r) for c, r in shown if points_at(results, c, r, metrics[0])]
    rows = math.ceil(len(metrics) / 3)
    size = {"figsize": (12, 4 * rows), "sharey": True, "squeeze": False}
    figure, panels = plt.subplots(rows, min(3, len(metrics)), **size)
    for axes in panels.flat[len(metrics) :]:
        axes.set_axis_off()
    for axes, metric in zip(panels.flat, metrics, strict=False):
        for row, (codec, rate) in enumerate(shown):
            for point in points_at(results, codec, rate, metric):
                above = np.array(errors([point]))
                look = {"color": "C0" if codec == "perco" else "C3", "marker": "o", "capsize": 3}
                axes.errorbar([point.value], [row], xerr=above, linestyle="", **look)
        axes.set(xlabel=label_of(metric))
    names = [WRONG.get(codec, f"perco at {rate}") for codec, rate in shown]
    panels[0, 0].set(yticks=range(len(shown)), yticklabels=names)
    panels[0, 0].invert_yaxis()
    figure.suptitle("Pictures known to be wrong (orange), and what each measure makes of them")
    return figure


def captions(tables: Tables):
    """RQ2: captions and the grid."""
    results = [tables.get("captions")]
    if (tables.folder / "captions_coco.csv").is_file():
        results.append(tables.get("captions_coco"))
    wanted = (("lpips_alex", "kid", "own_photo", "same_class"), ("miou_masks",))
    chosen = []
    for table, metrics in zip(results, wanted, strict=False):
        chosen += [(table, m) for m in metrics if has(table, "perco", m)]
    if not chosen:
        raise ValueError("captions has no measure that was looked for; perco download metrics")
    size = {"figsize": (3.4 * len(chosen) + 2, 3.4), "sharey": True, "squeeze": False}
    figure, panels = plt.subplots(1, len(chosen), **size)
    for axes, (table, metric) in zip(panels[0], chosen, strict=True):
        for row, codec in enumerate(CAPTIONS):
            for point in points_at(table, codec, LOWEST, metric):
                look = {"color": "C0" if codec in TEXTS else "C3", "marker": "o", "capsize": 3}
                axes.errorbar([point.value], [row], xerr=errors([point]), linestyle="", **look)
        axes.set(xlabel=label_of(metric))
    panels[0, 0].set(yticks=range(len(CAPTIONS)), yticklabels=CAPTIONS.values())
    panels[0, 0].invert_yaxis()
    figure.suptitle(f"Captions, and no grid (zeros, which these weights never saw), at {LOWEST}")
    return figure


def flat(tables: Tables):
    """RQ3: how much realism and distortion gain from rate."""
    results = tables.get("rates_coco")
    metrics = usable(results, "perco", ("psnr", "lpips_alex", "kid_256", "kid_512"))
    figure, axes = plt.subplots(figsize=(6.8, 4.4))
    for metric, marker in zip(metrics, "os^D", strict=False):
        points = [p for p in results.curve("perco", metric) if p.bpp]
        values = [10 ** (-p.value / 10) if metric == "psnr" else p.value for p in points]
        if min(values) <= 0:  # a KID of few photos may be, and has no logarithm
            continue
        octaves = [math.log2(value / values[-1]) for value in values]
        name = "squared error" if metric == "psnr" else NAMES[metric]
        axes.plot([p.bpp for p in points], octaves, marker=marker, label=name)
    axes.set(xscale="log", xlabel="bits per pixel", ylabel="octaves above the highest rate")
    axes.set_title("How far each measure is from what the highest rate reaches")
    return legend_below(figure, axes)


def bits(tables: Tables):
    """What a file is made of."""
    results = tables.get("rates")
    served = results.rates("perco")
    parts = {"header and checksum": "header", "caption": "caption", "indices": "index"}
    means = {
        label: [np.mean([*results.values("perco", r, f"{part}_bytes").values()]) for r in served]
        for label, part in parts.items()
    }
    totals = {rate: [*results.values("perco", rate, "bytes").values()] for rate in served}
    figure, panels = plt.subplots(1, len(served), figsize=(2.6 * len(served) + 1, 4), squeeze=False)
    for number, (axes, rate) in enumerate(zip(panels[0], served, strict=True)):
        below = 0.0
        for place, (label, values) in enumerate(means.items()):
            axes.bar([0], [values[number]], bottom=below, color=f"C{place}", label=label)
            if values[number] > 0.06 * np.mean(totals[rate]):
                axes.text(
                    0,
                    below + values[number] / 2,
                    f"{values[number]:,.0f}",
                    ha="center",
                    va="center",
                )
            below += values[number]
        low, high = bootstrap_interval(totals[rate]) or (below, below)
        above = [[max(0.0, below - low)], [max(0.0, high - below)]]
        axes.errorbar([0], [below], above, color="0.2", capsize=4)
        axes.set(xticks=[], title=f"{rate}: {below:,.0f} bytes", xlim=(-0.7, 0.7))
        axes.grid(False)
    panels[0, 0].set_ylabel("bytes a photo, mean")
    return legend_below(figure, panels[0, 0])


FIGURES: dict[str, Callable] = {
    f.__name__: f
    for f in (rates, published, controls, captions, flat, guidance, steps, seeds)
    + (bottleneck, sizes, alone, bits)
}


def draw(name: str, folder: Path, output: Path) -> Path:
    """Draw one figure; raises as ``Tables.get``, ``ValueError`` for a table without measures."""
    tables = Tables(folder)
    figure = FIGURES[name](tables)
    try:
        figure.canvas.draw()  # only now it is known how far a legend reaches
        edges = [legend.get_window_extent().y0 for legend in figure.legends]
        below = min([0.0, *edges]) / figure.bbox.height - 0.02
        figure.text(0.005, below, tables.source(), fontsize=7, color="0.4", va="top")
        output.mkdir(parents=True, exist_ok=True)
        figure.savefig(output / f"{name}.png", dpi=110, bbox_inches="tight")
    finally:
        plt.close(figure)
    return output / f"{name}.png"


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 where nothing could be drawn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, default=ROOT / "data" / "results")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "figures")
    parser.add_argument("--only", nargs="+", choices=FIGURES, metavar="FIGURE", default=[*FIGURES])
    options = parser.parse_args(arguments)
    use_theme()
    plt.rcParams.update({"axes.titlesize": 12, "figure.titlesize": 14, "lines.linewidth": 2})
    drawn = 0
    for name in options.only:
        try:
            print(draw(name, options.tables, options.output))
            drawn += 1
        except (FileNotFoundError, ValueError) as error:
            print(f"not drawn: {name} ({error})", file=sys.stderr)
    return 0 if drawn else 1


if __name__ == "__main__":
    sys.exit(main())
