"""Figures as curves: those that this project measured and keeps, and those that others published.

    data/results/NAME.csv, NAME.json ──load_results──► Results: rows, summary
                                                          ├─ curve(codec, metric) ──► CurvePoint …
                                                          └─ values(codec, rate, column) by photo
    data/reference_points.csv ──► PublishedPoint(method, dataset, metric, bpp, value, source, …)

The JSON has the means with their intervals, the figures of whole sets and the command; the CSV has
a row for each photo. What was not measured is an error, not a curve.

Paper: PerCo, Sec. 4 (its own curves, without intervals, as PerCo (SD) re-draws them).
Differs from the paper: every figure of ours can be traced to its photo, file and command. Points of
others are read off figures and tables, each with its source and how surely it was read; each source
has its own photos, sizes and metric settings, and FID of one protocol cannot be compared with FID
of another.
"""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from perco_lite.data import installed_captions

_BESIDE = Path(__file__).resolve().parents[2] / "data"
_PHOTOS = {"mscoco": "coco30k", "kodak": "kodak", "clic": "clic2020"}


class CurvePoint(NamedTuple):
    """One codec at one rate: the mean over photos, or the figure of the whole set."""

    rate: str  # "0.0019", "0.1bpp", or "" where there is no file
    bpp: float | None
    value: float
    low: float  # 95 % interval; equal to the value where none was computed
    high: float
    reached: int | None  # photos whose file was not above its target; None without a target


@dataclass(frozen=True)
class Results:
    """One evaluation as it was written: ``rows`` are text, as in the CSV; ``summary`` the JSON."""

    name: str
    rows: tuple[dict[str, str], ...]
    summary: dict

    @property
    def command(self) -> str:
        """What was typed to measure this."""
        return self.summary["command"]

    def curve(self, codec: str, metric: str) -> list[CurvePoint]:
        """Points in order of rate; of points with one and the same rate, the first.

        A classical codec whose smallest file is above every target gives that file again and
        again, which is one point. Raises ``ValueError`` for what was not measured.
        """
        points: dict[float | None, CurvePoint] = {}
        for about in self.summary["results"]:
            point = _point(about, metric) if about["codec"] == codec else None
            if point is not None:
                points.setdefault(None if point.bpp is None else round(point.bpp, 9), point)
        if not points:
            raise ValueError(
                f"{self.name} has no {metric} of {codec!r}; it was made by: {self.command}"
            )
        return sorted(points.values(), key=lambda point: point.bpp or 0)

    def rates(self, codec: str) -> list[str]:
        """Rates of a codec, in the order of the table; [] where it was not measured."""
        return [about["rate"] for about in self.summary["results"] if about["codec"] == codec]

    def at(self, codec: str, rate: str, metric: str) -> CurvePoint:
        """One point, with or without bytes; ``ValueError`` for what was not measured."""
        for about in self.summary["results"]:
            if (about["codec"], about["rate"]) in ((codec, rate), (codec, "")):
                if point := _point(about, metric):
                    return point
        raise ValueError(
            f"{self.name} has no {metric} of {codec!r} at {rate!r}; it was made by: {self.command}"
        )

    def values(self, codec: str, rate: str, column: str) -> dict[str, float]:
        """One column by photo, of the photos that have a number there.

        Raises ``ValueError`` for a column or rows that are not in the table.
        """
        rows = [row for row in self.rows if (row["codec"], row["rate"]) == (codec, rate)]
        if not rows or column not in rows[0]:
            raise ValueError(f"{self.name} has no {column!r} of {codec!r} at {rate!r}")
        return {row["photo"]: float(row[column]) for row in rows if row[column]}


def _point(about: dict, metric: str) -> CurvePoint | None:
    """A figure of one codec at one rate; None where there is no number."""
    figure = about.get(metric, {})
    value = figure.get("mean", figure.get("value"))
    if not isinstance(value, int | float):
        return None
    low, high = figure.get("interval", (value, value))
    bpp = about.get("bpp", {}).get("mean")
    return CurvePoint(about["rate"], bpp, value, low, high, about.get("reached"))


def data_folder(places: Iterable[str | Path] = ()) -> Path:
    """Folder ``data/`` of the repository: beside the package, or seen from where we are.

    Looks in ``places`` first, and last where pip puts the tables of an installed package. Raises
    ``FileNotFoundError``.
    """
    near = (_BESIDE, *(Path(name) for name in ("data", "../data", "repository/data")))
    for place in (*map(Path, places), *near, *_installed()):
        if (place / "results").is_dir():
            return place
    raise FileNotFoundError(
        "no data/results here, nor beside an installed package; get it with "
        "`git clone --depth 1 https://github.com/perco-lite/perco_lite repository`"
    )


def _installed() -> list[Path]:
    return [captions.parent for captions in installed_captions()]


def load_results(name: str, folder: str | Path | None = None) -> Results:
    """Read ``NAME.csv`` and ``NAME.json`` of ``folder``; default: the repository's data/results.

    Raises ``FileNotFoundError`` that says how to make them, ``ValueError`` for other files.
    """
    folder = data_folder() / "results" if folder is None else Path(folder)
    table, summary = folder / f"{name}.csv", folder / f"{name}.json"
    for path in (table, summary):
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}; data/results/README.md has the command of each table, such as "
                f"`perco evaluate kodak -o {table}`"
            )
    try:
        about = json.loads(summary.read_text(encoding="utf-8"))
        finished = about["made_by"] == "perco evaluate" and about["finished"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{summary} is not from perco evaluate; run it again") from error
    if not finished:
        raise ValueError(f"{summary}: that run did not finish; run its command again to go on")
    with table.open(encoding="utf-8", newline="") as file:
        return Results(name, tuple(csv.DictReader(file)), about)


class PublishedPoint(NamedTuple):
    """One published figure of one method at one rate."""

    method: str
    dataset: str  # the photos and, where it matters, whose protocol
    metric: str  # "PSNR", "LPIPS", "FID (DiffEIC protocol)", …
    bpp: float | None  # None: the method has no rate (an autoencoder without quantization)
    value: float
    source: str
    confidence: str  # "read in table", "digitised from raster figure", …

    @property
    def photos(self) -> str:
        """Which photos: "coco30k", "kodak" or "clic2020", whatever the source calls them."""
        return next(name for key, name in _PHOTOS.items() if self.dataset.lower().startswith(key))


def published_points(
    photos: str | None = None, metric: str | None = None, path: str | Path | None = None
) -> list[PublishedPoint]:
    """Published points, in the order of the file; those of some ``photos`` and ``metric`` only.

    ``metric`` is compared with what stands before the protocol: "FID" finds "FID (256 patches)".
    Raises ``FileNotFoundError`` where the file is not there, ``ValueError`` for unknown photos and
    for a row that makes no sense.
    """
    if photos is not None and photos not in _PHOTOS.values():
        raise ValueError(f"got photos {photos!r}, expected one of {', '.join(_PHOTOS.values())}")
    known = [folder / "reference_points.csv" for folder in (_BESIDE, *_installed())]
    path = Path(path or next(filter(Path.is_file, known), known[0]))
    if not path.is_file():
        raise FileNotFoundError(
            f"no published figures at {path}; they are in data/ of the project: git clone it, or "
            "give the path"
        )
    points = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                cells = {name: row[name] for name in PublishedPoint._fields}
                cells["bpp"] = float(row["bpp"]) if row["bpp"] else None
                point = PublishedPoint(**cells | {"value": float(row["value"])})
                keep = photos in (None, point.photos)
            except (KeyError, ValueError, TypeError, StopIteration) as error:
                raise ValueError(
                    f"{path}: got {row}, expected the columns {', '.join(PublishedPoint._fields)}, "
                    "with numbers for bpp and value"
                ) from error
            if keep and metric in (None, point.metric.split(" (")[0]):
                points.append(point)
    return points
