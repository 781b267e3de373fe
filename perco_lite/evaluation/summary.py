"""What an evaluation found, per codec and rate: means with intervals, set metrics, deltas.

    out.csv ──read row by row──► numbers per (codec, rate) ──► mean, 95 % interval, how many photos
    pictures, originals ──SetScorer──► FID, KID, mIoU and other measures of sets
    mean curves ──bd_rate, bd_metric──► each codec against one

Of a row, a handful of numbers stays in memory; of a photo, nothing.

Paper: PerCo, Sec. 4 (means only).
Differs from the paper: intervals, since most sets here are small.
"""

import hashlib
import json
import math
import shlex
import sys
import time
from array import array
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from perco_lite.evaluation.datasets import PhotoSet
from perco_lite.evaluation.metrics.bd_rate import bd_metric, bd_rate
from perco_lite.evaluation.metrics.intervals import Score, bootstrap_interval
from perco_lite.evaluation.rows import SECONDS, SIZES
from perco_lite.evaluation.scoring import LOWER_IS_BETTER, Loaded, SetScorer
from perco_lite.evaluation.table import MADE_BY, EvaluationFiles, ResultTable
from perco_lite.loading import device_name

PACKAGES = "perco_lite torch numpy pillow diffusers transformers torchmetrics bjontegaard"
BD_METRICS = ("psnr", "ms_ssim", "lpips_alex", "lpips_vgg", "dists")


class Group:
    """The rows of one codec at one rate."""

    def __init__(self, codec: str, rate: str, columns: Iterable[str]):
        self.codec, self.rate = codec, rate
        self.photos: list[str] = []
        self.reached = 0
        self.targets = 0
        self.values = {name: array("d") for name in columns}

    def add(self, row: dict[str, str]) -> None:
        """Take in the numbers of one row."""
        self.photos.append(row["photo"])
        self.targets += bool(row["target_bytes"])
        self.reached += row["reached"] == "True"
        for name, values in self.values.items():
            if row[name]:
                values.append(float(row[name]))

    def mean(self, name: str) -> float | None:
        values = self.values[name]
        return sum(values) / len(values) if values else None


def write_summary(
    files: EvaluationFiles,
    table: ResultTable,
    dataset: PhotoSet,
    loaded: Loaded,
    scorer: SetScorer,
    metrics: tuple[str, ...],
    about: dict,
    started: float,
    quiet: bool,
) -> dict:
    """Summarise the whole table, with all that it takes to make it again; return and write it.

    ``about``: how it was made; ``started``: when, by ``time.perf_counter``.
    """
    groups = group_rows(table.rows(), loaded.functions)
    sets = score_sets(groups, scorer, dataset, files, table, quiet)
    results = [
        describe_group(group) | {name: describe_score(score) for name, score in scores.items()}
        for group, scores in zip(groups, sets, strict=True)
    ]
    about_metrics = {
        name: {"protocol": loaded.protocols.get(name, "of a set: beside each figure")}
        for name in metrics
    }
    for name, reason in (loaded.missing | scorer.missing).items():
        about_metrics[name] = {"missing": reason}
    summary = {
        "made_by": MADE_BY,
        "finished": True,
        "command": shlex.join([_program(), *sys.argv[1:]]),
        "machine": device_name(),
        "versions": _versions(),
        **about,
        "photos": len(dataset.photos),
        "notes": list(dataset.notes),
        "metrics": about_metrics,
        "intervals": "95 % percentile bootstrap over photos",
        "seconds": "encode: one encode of the setting found, without the search; decode: photos "
        "decoded together share their time",
        "results": results,
        "bd": deltas(groups, loaded.functions),
        "wall_seconds": round(time.perf_counter() - started, 1),  # of this run
    }
    files.write(summary)
    return summary


def group_rows(rows: Iterable[dict[str, str]], metrics: Iterable[str]) -> list[Group]:
    """Collect the rows of a table by codec and rate, in the order they come."""
    columns = (*SIZES, *metrics, *SECONDS)
    groups: dict[tuple[str, str], Group] = {}
    for row in rows:
        key = row["codec"], row["rate"]
        if key not in groups:
            groups[key] = Group(*key, columns)
        groups[key].add(row)
    return list(groups.values())


def describe_group(group: Group) -> dict:
    """Means, 95 % intervals and counts, ready for JSON; nothing for a column without numbers."""
    about: dict = {"codec": group.codec, "rate": group.rate, "photos": len(group.photos)}
    if group.targets:
        about["reached"] = group.reached
    for name, values in group.values.items():
        if not values:
            continue
        interval = None if name in SECONDS else bootstrap_interval(values)
        about[name] = _figure("mean", group.mean(name), interval)
        if name not in SECONDS and len(values) != len(group.photos):
            about[name]["photos"] = len(values)
    return about


def score_sets(
    groups: list[Group],
    scorer: SetScorer,
    dataset: PhotoSet,
    files: EvaluationFiles,
    table: ResultTable,
    quiet: bool = False,
) -> list[dict[str, Score]]:
    """Set metrics of each group, from the pictures on disk; each is kept in the ``table``'s store.

    So a run goes on where it stopped, and processes share the work, a part of the groups each.
    """
    if not scorer.names:
        return [{} for _ in groups]
    by_name = {photo.name: photo for photo in dataset.photos}
    results = []
    for group in tqdm(groups, desc="sets", unit="set", disable=quiet):
        paths = {name: files.picture(group.codec, group.rate, name) for name in group.photos}
        lost = sum(name not in by_name or not path.is_file() for name, path in paths.items())
        if lost:
            reason = "photos are not among this run's, or their pictures not on disk"
            score = Score(None, f"{lost} of {len(paths)} {reason}")
            results.append(dict.fromkeys(scorer.names, score))
            continue
        # where no target was reached, each photo has its smallest file at every rate
        smallest = group.targets and not group.reached
        rate = "" if smallest else group.rate
        key = json.dumps([group.codec, rate, list(paths), scorer.names])  # plain ASCII
        key = hashlib.sha256(key.encode()).hexdigest()
        kept = table.kept_set(key)
        if kept is None:
            scores = scorer.score(
                group.photos,
                lambda name: dataset.load(by_name[name]),
                lambda name, paths=paths: Image.open(paths[name]).convert("RGB"),
            )
            kept = json.dumps(scores)
            table.keep_set(key, kept)
        results.append({name: Score(*score) for name, score in json.loads(kept).items()})
    return results


def describe_score(score: Score) -> dict:
    """A score of a set, ready for JSON."""
    if score.value is None:
        return {"missing": score.protocol}
    return {**_figure("value", score.value, score.interval), "protocol": score.protocol}


def _figure(name: str, value: float, interval: tuple[float, float] | None) -> dict:
    """JSON has no infinity, and no interval where there is none."""
    ends = {} if interval is None else {"interval": [_finite(end) for end in interval]}
    return {name: _finite(value), **ends}


def deltas(groups: list[Group], metrics: Iterable[str]) -> list[dict]:
    """BD-rate (%) and BD-metric of every codec against perco, or else the first, by mean curves."""
    curves: dict[str, list[Group]] = {}
    for group in groups:
        if group.rate:
            curves.setdefault(group.codec, []).append(group)
    reference = "perco" if "perco" in curves else next(iter(curves), "")
    found = []
    others = [codec for codec in curves if codec != reference]
    for metric in (name for name in BD_METRICS if name in set(metrics)):
        rate = partial(bd_rate, higher_is_better=metric not in LOWER_IS_BETTER)
        for codec in others:
            base, points = (_points(curves[name], metric) for name in (reference, codec))
            if not base[0]:
                continue
            entry: dict = {"codec": codec, "reference": reference, "metric": metric}
            for name, compute in {"bd_rate_percent": rate, "bd_metric": bd_metric}.items():
                try:
                    entry[name] = compute(*base, *points)
                except (ValueError, ImportError) as error:
                    entry |= {name: None, f"{name}_missing": str(error)}
            found.append(entry)
    return found


def _points(groups: list[Group], metric: str) -> tuple[list[float], list[float]]:
    """Mean rates and qualities; files too small to make give the same point again and again."""
    points = {}
    for group in groups:
        rate, quality = group.mean("bpp"), group.mean(metric)
        if rate is not None and quality is not None and math.isfinite(quality):
            points.setdefault(rate, quality)
    return list(points), list(points.values())


def _program() -> str:
    """What was typed first; ``python -m perco_lite.cli`` is perco by another name."""
    path = Path(sys.argv[0])
    return "perco" if path.parts[-3:] == ("perco_lite", "cli", "__main__.py") else sys.argv[0]


def _versions() -> dict[str, str]:
    """Versions of what the figures depend on, of those that are installed."""
    found = {}
    for package in PACKAGES.split():
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
