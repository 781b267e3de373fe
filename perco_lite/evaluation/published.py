"""Figures that others published, to be drawn beside ours and never mistaken for ours.

    data/reference_points.csv ──► PublishedPoint(method, dataset, metric, bpp, value, source, …)

Paper: PerCo, Sec. 4 (its own curves, as PerCo (SD) re-draws them).
Differs from the paper: points read off figures and tables, each with its source and how surely it
was read. Each source has its own photos, sizes and metric settings; the names of data sets and
metrics say so, and FID of one protocol cannot be compared with FID of another.
"""

import csv
from pathlib import Path
from typing import NamedTuple

_FILE = Path(__file__).resolve().parents[2] / "data" / "reference_points.csv"
_PHOTOS = {"mscoco": "coco30k", "kodak": "kodak", "clic": "clic2020"}


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
    Raises ``FileNotFoundError`` where the file is not there (a package installed without its
    repository has none), ``ValueError`` for unknown photos and for a row that makes no sense.
    """
    if photos is not None and photos not in _PHOTOS.values():
        raise ValueError(f"got photos {photos!r}, expected one of {', '.join(_PHOTOS.values())}")
    path = Path(path or _FILE)
    if not path.is_file():
        raise FileNotFoundError(
            f"no published figures at {path}; they are in data/ of the repository, which a package "
            "does not bring: git clone it, or give the path"
        )
    points = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                point = PublishedPoint(
                    row["method"],
                    row["dataset"],
                    row["metric"],
                    float(row["bpp"]) if row["bpp"] else None,
                    float(row["value"]),
                    row["source"],
                    row["confidence"],
                )
                keep = photos in (None, point.photos)
            except (KeyError, ValueError, TypeError, StopIteration) as error:
                raise ValueError(
                    f"{path}: got {row}, expected the columns {', '.join(PublishedPoint._fields)}, "
                    "with numbers for bpp and value"
                ) from error
            if keep and metric in (None, point.metric.split(" (")[0]):
                points.append(point)
    return points
