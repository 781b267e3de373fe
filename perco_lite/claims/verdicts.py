"""From tables to verdicts: paired effects with intervals, and one rule for all claims.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    NAME.csv, NAME_sets.csv ──Tables──► a change, pair by pair ──► Effect(value, interval)
    claim: "the effect lies in this region" ──┐
    the effect's interval ────────────────────┴──verdict──► one of four

The rule, written before anything was measured:

    the whole interval lies in the claimed region             holds; in direction, for a stand-in
    it lies outside, or reaches across but below what matters does not hold here
    anything else: too few photos to tell                     cannot be checked at this scale

At 95 % a twentieth of the verdicts on effects that are not there would be wrong.

Paper: nothing of this; it shows curves.
Differs from the paper: every comparison is paired by photo and carries an interval.
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from perco_lite.evaluation.metrics.intervals import bootstrap_interval, percentiles

HOLDS = "holds"
IN_DIRECTION = "holds in direction"
FAILS = "does not hold here"
UNKNOWN = "cannot be checked at this scale"
VERDICTS = (HOLDS, IN_DIRECTION, FAILS, UNKNOWN)

POSITIVE = (0.0, math.inf)

Key = tuple[str, str]  # rate, setting


class UnmeasuredError(FileNotFoundError):
    """The table of an experiment is not there yet."""


class UnmeasurableError(ValueError):
    """The table is there, but this machine could not fill what the claim needs."""


@dataclass(frozen=True)
class Effect:
    """A figure, where another set of as many photos would put it 19 times of 20, and its unit."""

    value: float
    interval: tuple[float, float]
    count: int = 0  # photos

    def text(self, unit: str = "", form: str = "+.3g") -> str:
        """ "+0.31 dB [0.1, 0.5]"."""
        low, high = (format(end, form.lstrip("+")) for end in self.interval)
        return f"{self.value:{form}}{f' {unit}' if unit else ''} [{low}, {high}]"


def verdict(
    interval: tuple[float, float],
    region: tuple[float, float] = POSITIVE,
    comparable: bool = False,
    matters: float = 0.0,
) -> str:
    """One of VERDICTS for a claim that an effect lies inside the open ``region``.

    ``comparable``: the same quantity as in the paper; a stand-in can confirm a direction only.
    ``matters``: the smallest effect worth having; an interval below it refutes the claim even if
    it is not sure of the sign; 0 for claims that have none. Raises ``ValueError`` for an interval
    or region that is none.
    """
    (low, high), (start, end) = interval, region
    if not low <= high or not start < end or any(map(math.isnan, (*interval, *region))):
        raise ValueError(f"got interval {interval} and region {region}, expected low and high ends")
    if start < low and high < end:
        return HOLDS if comparable else IN_DIRECTION
    if high <= start or low >= end or (matters and high < matters):
        return FAILS
    return UNKNOWN


class Tables:
    """The tables of one folder, read when they are asked for."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._tables: dict[str, list[dict[str, str]]] = {}

    def rows(self, name: str) -> list[dict[str, str]]:
        """Rows of NAME.csv; ``UnmeasuredError`` names the command that makes it."""
        if name not in self._tables:
            path = self.folder / f"{name}.csv"
            if not path.is_file():
                experiment = name.removesuffix("_sets")
                raise UnmeasuredError(f"no {path}; perco claims {experiment} -o {self.folder}")
            with path.open(encoding="utf-8", newline="") as stream:
                self._tables[name] = list(csv.DictReader(stream))
        return self._tables[name]

    def values(self, name: str, metric: str, key: Key) -> dict[str, float]:
        """Photo -> figure at one rate and setting; ``UnmeasurableError`` where there is none."""
        return {row["photo"]: float(row[metric]) for row in self._at(name, key, metric)}

    def _at(self, name: str, key: Key, metric: str) -> list[dict[str, str]]:
        rows = [r for r in self.rows(name) if (r.get("rate", ""), r["setting"]) == key]
        found = [row for row in rows if row.get(metric)]
        if not found:
            raise UnmeasurableError(f"{name}.csv has no {metric} for {' '.join(filter(None, key))}")
        return found

    def differences(self, name: str, metric: str, key: Key, minus: Key) -> dict[str, float]:
        """Photo -> figure less that of another setting, of photos that have both."""
        values, others = (self.values(name, metric, one) for one in (key, minus))
        return {photo: v - others[photo] for photo, v in values.items() if photo in others}

    def mean(self, name: str, metric: str, key: Key, minus: Key | None = None) -> Effect:
        """Mean over photos; with ``minus``, of the differences to another setting, paired."""
        of = self.differences(name, metric, key, minus) if minus else self.values(name, metric, key)
        return of_photos(of.values())

    def draws(self, name: str, key: Key) -> np.ndarray:
        """Patch Fréchet distance of a setting in every draw; the first is that of all photos."""
        rows = self._at(f"{name}_sets", key, "patch_frechet")
        rows.sort(key=lambda row: int(row["draw"]))
        return np.array([float(r["patch_frechet"]) for r in rows])

    def of_sets(self, name: str, keys: list[Key], figure: Callable[..., np.ndarray]) -> Effect:
        """``figure`` of the draws of several settings, draw by draw; see ``percentiles``."""
        whole, *drawn = figure(*[self.draws(name, key) for key in keys])
        photos = len({row["photo"] for row in self.rows(name)})
        return Effect(float(whole), percentiles(drawn, whole), photos)


def of_photos(values) -> Effect:
    """Mean of figures of photos with its bootstrap interval; ``UnmeasurableError`` under two."""
    values = list(values)
    interval = bootstrap_interval(values)
    if interval is None:
        raise UnmeasurableError(f"got {len(values)} photos, expected at least 2")
    return Effect(float(np.mean(values)), interval, len(values))
