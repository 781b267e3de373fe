"""Figures of RQ4 and RQ5: one measure a panel, against a setting, a seed, a size."""

from experiments import GUIDANCE, LOWEST, SEEDS, SIZES, STEPS
from figure_panels import (
    LOOK,
    Tables,
    draw_lines,
    errors,
    label_of,
    legend_below,
    points_at,
    side_by_side,
    usable,
)


def settings(tables: Tables, table: str, names: dict[float, str], title: str, axis: str, log=False):
    """A measure a panel against a setting, a line a rate; ``names``: codec of each value."""
    results = tables.get(table)
    some = next(iter(names.values()))
    metrics = usable(results, some, ("psnr", "lpips_alex", "kid_256"))
    figure, panels = side_by_side(metrics)
    served = results.rates(some)
    for axes, metric in panels:
        series, xs = {}, {}
        for number, rate in enumerate(served):
            found = [(x, points_at(results, codec, rate, metric)) for x, codec in names.items()]
            found = [(x, points[0]) for x, points in found if points]
            label = f"{rate} bpp"
            look = (f"C{number}", "os^D"[number % 4], "-")
            series[label], xs[label] = ([p for _, p in found], *look), [x for x, _ in found]
            for point in (
                points_at(results, "perco", rate, metric) if "perco" not in some[:6] else ()
            ):
                axes.axhline(point.value, color=f"C{number}", linestyle=":")
        draw_lines(axes, series, xs)
        axes.set(xlabel=axis, ylabel=label_of(metric), xticks=list(names))
        if log:
            axes.set(xscale="log")
            axes.set_xticks(list(names), [f"{x:g}" for x in names])
            axes.minorticks_off()
    figure.suptitle(title)
    return legend_below(figure, panels[0][0])


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
    figure, panels = side_by_side(metrics)
    for axes, metric in panels:
        names = results.rates("perco")
        for codec in codecs:
            values = [p.value for rate in names for p in points_at(results, codec, rate, metric)]
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
    figure, panels = side_by_side(metrics)
    for axes, metric in panels:
        series, xs = {}, {}
        served = [
            about["rate"] for about in results.summary["results"] if about["codec"] == "perco"
        ]
        for codec, (label, colour) in names.items():
            points = [p for rate in served for p in points_at(results, codec, rate, metric)]
            series[label], xs[label] = (points, colour, "o", "-"), range(len(points))
        draw_lines(axes, series, xs)
        for point in points_at(results, "autoencoder", "", metric):
            axes.axhline(point.value, color="0.3", linewidth=1, label="autoencoder alone")
        axes.set(xlabel="rate [bpp]", ylabel=label_of(metric))
        axes.set_xticks(range(len(served)), served)
    figure.suptitle("What the quantizer costs, and what the latents could hold")
    return legend_below(figure, panels[0][0])


def sizes(tables: Tables):
    """Sizes: the same photos, shrunk to several."""
    there = [n for side in SIZES if (tables.folder / f"{(n := f'sizes_{side}')}.csv").is_file()]
    found = {int(name.removeprefix("sizes_")): tables.get(name) for name in there}
    if len(found) < 2:
        tables.get(f"sizes_{SIZES[len(found)]}")
        raise ValueError("one size is no curve")
    metrics = usable(next(iter(found.values())), "perco", ("psnr", "lpips_alex"))
    figure, panels = side_by_side(metrics, 5)
    for axes, metric in panels:
        series, xs = {}, {}
        for codec in ("perco", "avif-shrunk"):
            points = {s: points_at(r, codec, LOWEST, metric) for s, r in found.items()}
            points = {side: some[0] for side, some in points.items() if some}
            label, *look = LOOK[codec]
            series[label], xs[label] = (list(points.values()), *look), list(points)
        draw_lines(axes, series, xs)
        axes.set(xscale="log", xlabel="long side [pixels]", ylabel=label_of(metric))
        axes.set_xticks(list(found), list(found))
        axes.minorticks_off()
    figure.suptitle(f"One size against another, at {LOWEST}")
    return legend_below(figure, panels[0][0])


def alone(tables: Tables):
    """One U-Net for all rates, against one for each."""
    results = tables.get("rates")
    names = ((rate, f"alone_{rate}") for rate in results.rates("perco"))
    there = {r: n for r, n in names if (tables.folder / f"{n}.csv").is_file()}
    own = {rate: tables.get(name) for rate, name in (there or {LOWEST: f"alone_{LOWEST}"}).items()}
    metrics = usable(next(iter(own.values())), "perco", ("psnr", "lpips_alex", "kid_256"))
    figure, panels = side_by_side(metrics)
    for axes, metric in panels:
        shared = results.curve("perco", metric)
        single = [table.at("perco", rate, metric) for rate, table in own.items()]
        series = {"one for all rates": (shared, "C0", "o", "-")}
        series["one for each"] = (single, "C1", "s", "--")
        draw_lines(axes, series, {n: [p.bpp for p in s[0]] for n, s in series.items()})
        axes.set(xscale="log", xlabel="bits per pixel", ylabel=label_of(metric))
    figure.suptitle("One U-Net for all rates, against one for each")
    return legend_below(figure, panels[0][0])
