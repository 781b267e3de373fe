"""What the figures of scripts/figures.py share: tables, names and looks, curves with intervals."""

from pathlib import Path

import matplotlib
from experiments import SHRUNK, command_of

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from perco_lite.evaluation.results import Results, load_results  # noqa: E402
from perco_lite.evaluation.scoring import LOWER_IS_BETTER  # noqa: E402
from perco_lite.plotting import CODEC_STYLES  # noqa: E402

NAMES = {
    "psnr": "PSNR [dB]",
    "lpips_alex": "LPIPS (alex)",
    "dists": "DISTS",
    "kid_256": "KID, 256-pixel patches",
    "fid_256": "FID, 256-pixel patches",
    "kid_512": "KID, photos squashed to 512",
    "fid": "FID",
    "pattern": "waves that photos do not have [levels of 255]",
    "kid": "KID",
    "miou_masks": "mIoU, COCO's masks",
    "own_photo": "own photo recognised",
    "same_class": "same class",
}
# of what is drawn as a curve
DRAWN = ("perco", "perco+steps=20", "perco-estimate", *SHRUNK)
LOOK = {codec: CODEC_STYLES[codec] for codec in DRAWN}


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

    def source(self) -> str:
        """What stands below a figure: of each table photos, weights, commit, and what to know."""
        parts = []
        for name, results in self.used.items():
            about = results.summary
            weights = about["settings"].get("weights", "none")
            commit = (about.get("commits") or ["unknown"])[-1][:10]
            photos = f"{about['photos']} photos of {about['settings']['dataset']}"
            parts.append(f"{name}.csv: {photos}, weights {weights[:8]}, commit {commit}")
            known = [note for note in about.get("notes", ()) if "word for word" in note]
            parts += [note.partition(" (")[0] for note in known]  # names of photos are in the table
        return "\n".join(parts)


def has(results: Results, codec: str, metric: str) -> bool:
    return any(points_at(results, codec, rate, metric) for rate in results.rates(codec))


def points_at(results: Results, codec: str, rate: str, metric: str) -> list:
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


def side_by_side(metrics: list[str], width: float = 4.4):
    """A figure with a panel for each metric; (figure, [(axes, metric), …])."""
    size = {"figsize": (width * len(metrics), 4), "squeeze": False}
    figure, panels = plt.subplots(1, len(metrics), **size)
    return figure, [*zip(panels[0], metrics, strict=True)]


def legend_below(figure, axes):
    handles, labels = axes.get_legend_handles_labels()
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
    figure.legend(handles, labels, **place, ncols=min(4, len(labels)))
    return figure
