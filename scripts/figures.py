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

import matplotlib
import numpy as np
from experiments import GUIDANCE, HIGHEST, LOWEST, SEEDS, SIZES, STEPS, TEXTS, command_of

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from perco_lite.evaluation.codecs.controls import (  # noqa: E402
    BLUR_1,
    BLUR_2,
    CONTROLS,
    OTHER_PHOTO,
    OTHER_TEXTURE,
    SMALLEST_JPEG,
    TILES,
)
from perco_lite.evaluation.metrics.intervals import bootstrap_interval  # noqa: E402
from perco_lite.evaluation.results import Results, load_results, published_points  # noqa: E402
from perco_lite.evaluation.scoring import LOWER_IS_BETTER  # noqa: E402
from perco_lite.plotting import draw_published, use_theme  # noqa: E402

ROOT = Path(__file__).parents[1]
NAMES = {
    "psnr": "PSNR [dB]",
    "lpips_alex": "LPIPS (alex)",
    "dists": "DISTS",
    "kid_256": "KID, 256-pixel patches",
    "fid_256": "FID, 256-pixel patches",
    "kid_512": "KID, photos squashed to 512",
    "fid": "FID",
    "kid": "KID",
    "miou_masks": "mIoU, COCO's masks",
    "own_photo": "own photo recognised",
    "same_class": "same class",
}
# name, colour, marker, line of what is drawn as a curve
LOOK = {
    "perco": ("perco_lite", "C0", "o", "-"),
    "perco+steps=20": ("… in twenty steps", "C4", "D", "-"),
    "perco-estimate": ("… without diffusion", "C9", "s", "--"),
    "avif-shrunk": ("AVIF, shrunk", "C3", "v", ":"),
    "webp-shrunk": ("WebP, shrunk", "C1", "^", ":"),
    "jpeg2000-shrunk": ("JPEG 2000, shrunk", "C5", "<", ":"),
    "jpegxl-shrunk": ("JPEG XL, shrunk", "C2", ">", ":"),
}
PUBLISHED = ("PerCo (SD)", "MS-ILLM", "StableCodec", "AEIC-SE", "CoD (latent)", "RDEIC-5")
CAPTIONS = {
    "perco": "its own, by people",
    "perco+caption=machine": "machine-written",
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


class Tables:
    """Tables of a folder; remembers which a figure was drawn from."""

    def __init__(self, folder: Path):
        self.folder, self.used = folder, {}

    def get(self, name: str) -> Results:
        """``FileNotFoundError`` names the command that makes it."""
        if not (self.folder / f"{name}.csv").is_file():
            raise FileNotFoundError(f"no {self.folder / name}.csv; {command_of(name)}")
        self.used[name] = load_results(name, self.folder)
        return self.used[name]

    def first(self, *names: str) -> Results:
        """The first of these that is there."""
        there = [name for name in names if (self.folder / f"{name}.csv").is_file()]
        return self.get((there or names)[0])

    def source(self) -> str:
        """One line for below a figure."""
        parts = []
        for name, results in self.used.items():
            about = results.summary
            weights = about["settings"].get("weights", "none")
            commit = (about.get("commits") or ["unknown"])[-1][:10]
            photos = f"{about['photos']} photos of {about['settings']['dataset']}"
            parts.append(f"{name}.csv: {photos}, weights {weights[:8]}, commit {commit}")
            parts += [note for note in about.get("notes", ()) if "word for word" in note]
        return "\n".join(parts)


def has(results: Results, codec: str, metric: str) -> bool:
    return any(_points_at(results, codec, rate, metric) for rate in results.rates(codec))


def _points_at(results: Results, codec: str, rate: str, metric: str) -> list:
    """The point of one codec at one rate, or none."""
    try:
        return [results.at(codec, rate, metric)]
    except ValueError:
        return []


def _curve(results: Results, codec: str, metric: str) -> list:
    try:
        return results.curve(codec, metric)
    except ValueError:
        return []


def errors(points) -> list[list[float]]:
    # a shifted bootstrap interval need not hold its own figure
    below = [max(0.0, p.value - p.low) for p in points]
    return [below, [max(0.0, p.high - p.value) for p in points]]


def draw_lines(axes, series: dict[str, tuple], xs: dict[str, list[float]]) -> None:
    """Curves with intervals: {label: (points, colour, marker, line)}, {label: x}."""
    for label, (points, colour, marker, line) in series.items():
        how = {"color": colour, "marker": marker, "linestyle": line, "capsize": 2, "label": label}
        axes.errorbar(xs[label], [p.value for p in points], errors(points), **how)


def panel(axes, results: Results, metric: str, codecs) -> None:
    """Curves of codecs against bits per pixel, and what the autoencoder alone reaches."""
    series, xs = {}, {}
    for codec in codecs:
        points = [p for p in _curve(results, codec, metric) if p.bpp]
        if points:
            label, *look = LOOK[codec]
            series[label], xs[label] = (points, *look), [p.bpp for p in points]
    if not series:
        raise ValueError(f"{results.name} has no {metric}")
    draw_lines(axes, series, xs)
    for point in _curve(results, "autoencoder", metric)[:1]:
        axes.axhline(point.value, color="0.3", linewidth=1, label="autoencoder alone")
    axes.set(xscale="log", ylabel=label_of(metric), xlabel="bits per pixel")


def label_of(metric: str) -> str:
    arrow = "lower is better" if metric in LOWER_IS_BETTER else "higher is better"
    return f"{NAMES[metric]}\n({arrow})"


def usable(results: Results, codec: str, metrics) -> list[str]:
    found = [metric for metric in metrics if has(results, codec, metric)]
    if not found:
        raise ValueError(f"{results.name} has none of {', '.join(metrics)}; perco download metrics")
    return found


# --- the figures ---


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
    shown = [(c, r) for c, r in shown if _points_at(results, c, r, metrics[0])]
    rows = math.ceil(len(metrics) / 3)
    size = {"figsize": (12, 4 * rows), "sharey": True, "squeeze": False}
    figure, panels = plt.subplots(rows, min(3, len(metrics)), **size)
    for axes in panels.flat[len(metrics) :]:
        axes.set_axis_off()
    for axes, metric in zip(panels.flat, metrics, strict=False):
        for row, (codec, rate) in enumerate(shown):
            for point in _points_at(results, codec, rate, metric):
                above = np.array(errors([point]))
                look = {"color": "C0" if codec == "perco" else "C3", "marker": "o", "capsize": 3}
                axes.errorbar([point.value], [row], xerr=above, linestyle="", **look)
        axes.set(xlabel=label_of(metric))
    names = [WRONG.get(codec, f"perco at {rate}") for codec, rate in shown]
    panels[0, 0].set(yticks=range(len(shown)), yticklabels=names)
    panels[0, 0].invert_yaxis()
    figure.suptitle("Pictures known to be wrong (red), and what each measure makes of them")
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
            for point in _points_at(table, codec, LOWEST, metric):
                look = {"color": "C0" if codec in TEXTS else "C3", "marker": "o", "capsize": 3}
                axes.errorbar([point.value], [row], xerr=errors([point]), linestyle="", **look)
        axes.set(xlabel=label_of(metric))
    panels[0, 0].set(yticks=range(len(CAPTIONS)), yticklabels=CAPTIONS.values())
    panels[0, 0].invert_yaxis()
    figure.suptitle(f"Captions, and no grid (zeros, which these weights never saw), at {LOWEST}")
    return figure


def flat(tables: Tables):
    """RQ3: how much realism and distortion gain from rate."""
    results = tables.get("rates")
    metrics = usable(results, "perco", ("lpips_alex", "dists", "fid_256"))
    figure, axes = plt.subplots(figsize=(6.8, 4.4))
    for metric, marker in zip(metrics, "os^", strict=False):
        points = [p for p in results.curve("perco", metric) if p.bpp]
        last = points[-1].value
        values = [math.log2(p.value / last) if p.value > 0 < last else math.nan for p in points]
        axes.plot([p.bpp for p in points], values, marker=marker, label=NAMES[metric])
    axes.set(xscale="log", xlabel="bits per pixel", ylabel="octaves above the highest rate")
    axes.set_title("How far each measure is from what the highest rate reaches")
    axes.legend()
    return figure


def settings(tables: Tables, table: str, names: dict[float, str], title: str, axis: str, log=False):
    """A measure a panel against a setting, a line a rate; ``names``: codec of each value."""
    results = tables.get(table)
    some = next(iter(names.values()))
    metrics = usable(results, some, ("psnr", "lpips_alex", "kid_256"))
    figure, panels = plt.subplots(1, len(metrics), figsize=(4.4 * len(metrics), 4), squeeze=False)
    served = results.rates(some)
    for axes, metric in zip(panels[0], metrics, strict=True):
        series, xs = {}, {}
        for number, rate in enumerate(served):
            found = [(x, _points_at(results, codec, rate, metric)) for x, codec in names.items()]
            found = [(x, points[0]) for x, points in found if points]
            label = f"{rate} bpp"
            look = (f"C{number}", "os^D"[number % 4], "-")
            series[label], xs[label] = ([p for _, p in found], *look), [x for x, _ in found]
            for point in (
                _points_at(results, "perco", rate, metric) if "perco" not in some[:6] else ()
            ):
                axes.axhline(point.value, color=f"C{number}", linestyle=":")
        draw_lines(axes, series, xs)
        axes.set(xlabel=axis, ylabel=label_of(metric), xticks=list(names))
        if log:
            axes.set(xscale="log")
            axes.set_xticks(list(names), [f"{x:g}" for x in names])
            axes.minorticks_off()
    figure.suptitle(title)
    return legend_below(figure, panels[0, 0])


def guidance(tables: Tables):
    """RQ4: guidance."""
    names = {scale: f"perco+steps=20+guidance={scale}" for scale in GUIDANCE}
    return settings(tables, "guidance", names, "Guidance 1 to 7, twenty steps", "guidance")


def steps(tables: Tables):
    """RQ4: steps of the paper's loop."""
    names = {count: f"perco+steps={count}+sampler=paper" for count in STEPS}
    return settings(tables, "steps", names, "Steps of the paper's loop", "steps", log=True)


def seeds(tables: Tables):
    """RQ4: what the noise alone moves."""
    results = tables.get("seeds")
    metrics = usable(results, "perco", ("psnr", "lpips_alex", "kid_256"))
    codecs = ["perco", *(f"perco+seed={seed}" for seed in SEEDS)]
    figure, panels = plt.subplots(1, len(metrics), figsize=(4.4 * len(metrics), 4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        names = results.rates("perco")
        for codec in codecs:
            values = [p.value for rate in names for p in _points_at(results, codec, rate, metric)]
            axes.plot(range(len(values)), values, "o", alpha=0.7, markersize=7)
        ends = [results.at("perco", rate, metric) for rate in names]
        axes.errorbar(
            range(len(names)), [p.value for p in ends], errors(ends), color="0.6", zorder=0
        )
        axes.set(xlabel="rate [bpp]", ylabel=label_of(metric))
        axes.set_xticks(range(len(names)), names)
    figure.suptitle(f"{len(codecs)} seeds (dots), beside the interval over photos (grey)")
    return figure


def bottleneck(tables: Tables):
    """RQ5: what is lost where."""
    results = tables.get("bottleneck")
    metrics = usable(results, "perco", ("psnr", "lpips_alex", "kid_256"))
    names = {
        "perco": ("as sent", "C0"),
        "perco+rounds=0": ("nearest codes only", "C9"),
        "perco+quantizer=off": ("not quantized", "C2"),
    }
    figure, panels = plt.subplots(1, len(metrics), figsize=(4.4 * len(metrics), 4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        series, xs = {}, {}
        served = [
            about["rate"] for about in results.summary["results"] if about["codec"] == "perco"
        ]
        for codec, (label, colour) in names.items():
            points = [p for rate in served for p in _points_at(results, codec, rate, metric)]
            series[label], xs[label] = (points, colour, "o", "-"), range(len(points))
        draw_lines(axes, series, xs)
        for point in _points_at(results, "autoencoder", "", metric):
            axes.axhline(point.value, color="0.3", linewidth=1, label="autoencoder alone")
        axes.set(xlabel="rate [bpp]", ylabel=label_of(metric))
        axes.set_xticks(range(len(served)), served)
    figure.suptitle("What the quantizer costs, and what the latents could hold")
    return legend_below(figure, panels[0, 0])


def sizes(tables: Tables):
    """Sizes: the same photos, shrunk to several."""
    there = [n for side in SIZES if (tables.folder / f"{(n := f'sizes_{side}')}.csv").is_file()]
    found = {int(name.removeprefix("sizes_")): tables.get(name) for name in there}
    if len(found) < 2:
        tables.get(f"sizes_{SIZES[len(found)]}")
        raise ValueError("one size is no curve")
    metrics = usable(next(iter(found.values())), "perco", ("psnr", "lpips_alex"))
    figure, panels = plt.subplots(1, len(metrics), figsize=(5 * len(metrics), 4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        series, xs = {}, {}
        for codec in ("perco", "avif-shrunk"):
            points = {s: _points_at(r, codec, LOWEST, metric) for s, r in found.items()}
            points = {side: some[0] for side, some in points.items() if some}
            label, *look = LOOK[codec]
            series[label], xs[label] = (list(points.values()), *look), list(points)
        draw_lines(axes, series, xs)
        axes.set(xscale="log", xlabel="long side [pixels]", ylabel=label_of(metric))
        axes.set_xticks(list(found), list(found))
        axes.minorticks_off()
    figure.suptitle(f"One size against another, at {LOWEST}")
    return legend_below(figure, panels[0, 0])


def alone(tables: Tables):
    """One U-Net for all rates, against one for each."""
    results = tables.get("rates")
    names = ((rate, f"alone_{rate}") for rate in results.rates("perco"))
    there = {r: n for r, n in names if (tables.folder / f"{n}.csv").is_file()}
    own = {rate: tables.get(name) for rate, name in (there or {LOWEST: f"alone_{LOWEST}"}).items()}
    metrics = usable(next(iter(own.values())), "perco", ("psnr", "lpips_alex", "kid_256"))
    figure, panels = plt.subplots(1, len(metrics), figsize=(4.4 * len(metrics), 4), squeeze=False)
    for axes, metric in zip(panels[0], metrics, strict=True):
        shared = results.curve("perco", metric)
        single = [table.at("perco", rate, metric) for rate, table in own.items()]
        series = {"one for all rates": (shared, "C0", "o", "-")}
        series["one for each"] = (single, "C1", "s", "--")
        draw_lines(axes, series, {n: [p.bpp for p in s[0]] for n, s in series.items()})
        axes.set(xscale="log", xlabel="bits per pixel", ylabel=label_of(metric))
    figure.suptitle("One U-Net for all rates, against one for each")
    return legend_below(figure, panels[0, 0])


def bits(tables: Tables):
    """What a file is made of."""
    results = tables.first("rates", "kodak")
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


def legend_below(figure, axes):
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    return figure


def draw(name: str, folder: Path, output: Path) -> Path:
    """Draw one figure; raises as ``Tables.get``, ``ValueError`` for a table without measures."""
    tables = Tables(folder)
    figure = FIGURES[name](tables)
    try:
        figure.text(0.005, -0.06, tables.source(), fontsize=7, color="0.4", va="top")
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
