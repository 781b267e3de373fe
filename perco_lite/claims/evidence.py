"""The dated list decided: plan, measure, draw anew, decide; nothing is made twice.

    list ──why_not──► claims that cannot be measured here
         └─plan──► jobs ──work_through──► Store ──MEASURES──► effects ──decide──► verdicts
    OUTPUT/rows.csv     every figure of every photo, with command, commit, list, weights
    OUTPUT/effects.npz  each claim's effect and draws
    OUTPUT/claims.json  list, weights, settings, what was not measured, effects, verdicts

``Evidence`` of a finished run is read back by ``read_evidence``, which refuses another list's.

Paper: nothing of this.
"""

import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from perco_lite.claims.dated import DatedClaim, DatedList, check_made_with
from perco_lite.claims.decide import Decision, decide
from perco_lite.claims.effects import DRAWS, Drawn, Want, measures
from perco_lite.claims.photos import find_photos, named_set
from perco_lite.claims.plan import Job, plan, seconds_of, why_not
from perco_lite.claims.store import Key, Store, read_about
from perco_lite.claims.trained import ShortTraining, forget
from perco_lite.claims.work import Bench, work_through
from perco_lite.codec import PercoCodec
from perco_lite.evaluation.evaluate import code_commit
from perco_lite.files import whole, write_whole
from perco_lite.loading import device_name, weights_digest

Say = Callable[[str], None]


@dataclass(frozen=True)
class Evidence:
    """What a run found: decisions by id, of the paper's claims and of ours; and its circumstances.

    ``about["missing"]``: why a claim was not measured, by id.
    """

    claims: dict[str, Decision]
    ours: dict[str, Decision]
    about: dict


class Run:
    """One list measured by one codec; everything that can be known beforehand is known."""

    def __init__(
        self,
        dated: DatedList,
        codec: PercoCodec,
        output: str | Path,
        names: Iterable[str] = (),
        limit: int = 0,
        crop: int = 0,
        how: ShortTraining | None = None,
        draws: int = DRAWS,
    ):
        """``names``: of claims, default all. A short run has a ``limit`` to the photos of each
        folder, or of each photo its middle ``crop`` pixels; 0 = all.

        Raises before any work: ``ValueError`` for an unknown claim or an output of another list,
        other weights or lengths; ``OSError`` where nothing can be written.
        """
        self.dated, self.codec, self.draws = dated, codec, draws
        self.limit, self.crop = limit, crop
        self.how = how or ShortTraining()
        if limit == 1 or self.how.seeds < 2 or draws < 40 * len(dated.claims):
            raise ValueError(
                f"got {limit} photos, {self.how.seeds} seeds and {draws} draws, expected 2 photos "
                f"or more (0 = all), 2 seeds or more and {40 * len(dated.claims)} draws or more"
            )
        every = {claim.id: claim for claim in (*dated.claims, *dated.ours)}
        self.names = list(dict.fromkeys(names)) or list(every)
        if unknown := [name for name in self.names if name not in every]:
            raise ValueError(f"got claim {unknown[0]!r}, expected some of {', '.join(every)}")
        self.measures = measures(self.how.seeds)
        chosen = [every[name] for name in self.names]
        self.sets = tuple(dict.fromkeys(named_set(claim.photos)[0] for claim in chosen))
        lengths = {f"training_{name}": value for name, value in self.how._asdict().items()}
        self.store = Store(output, dated, weights_digest(codec), lengths | {"crop": crop})
        self.photos = find_photos(self.sets, limit, crop)
        self.missing = why_not(chosen, self.measures, self.photos, codec, limit)
        self.claims = [claim for claim in chosen if claim.id not in self.missing]

    def wants(self, claim: DatedClaim) -> tuple[Want, ...]:
        return self.measures[claim.id].everything

    def open(self, command: str, look: bool = False) -> list[Job]:
        """Open the store; the jobs that are left. ``look``: leave no new file behind."""
        self.store.open(command, look)
        wants = [want for claim in self.claims for want in self.wants(claim)]
        return plan(wants, self.photos, self.store, self.how)

    def tell(self, jobs: list[Job], processes: int, say: Say) -> None:
        """The plan: what cannot be measured, and per claim what is to be made in which time."""
        for name, reason in self.missing.items():
            say(f"not measured: {name} ({reason})")
        made: set[Key] = set()
        for claim in self.claims:
            rows, seconds = 0, 0.0
            for job in plan(self.wants(claim), self.photos, self.store, self.how):
                fresh = [
                    task
                    for folder, number, tasks in job.photos
                    for task in tasks
                    if (key := (f"{folder} {number}", *task[:2])) not in made and not made.add(key)
                ]
                own = sum(map(seconds_of, fresh))
                all_of_it = sum(seconds_of(task) for *_, tasks in job.photos for task in tasks)
                rows, seconds = rows + len(fresh), seconds + own
                seconds += (job.seconds - all_of_it) if job.training and fresh else 0
            say(f"{claim.id}: {rows} rows to make, about {_minutes(seconds / processes)}")
        whole_time = sum(job.seconds for job in jobs) / processes
        say(f"in all about {_minutes(whole_time)}, {processes} at a time; a row is made once")

    def measure(
        self, jobs: list[Job], processes=1, weights=None, device=None, quiet=False
    ) -> list[tuple[Key, str]]:
        """Do the jobs, storing rows as they come; (key, error) of what failed."""
        folder = self.store.folder / "trainings"
        bench = Bench(self.codec, self.photos, folder, self.how)
        own = weights, device, (self.sets, self.limit, self.crop)
        done = work_through(jobs, bench, processes, *own)
        failed, total = [], sum(job.seconds for job in jobs)
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} to go"
        with tqdm(total=total, desc="claims", bar_format=form, disable=quiet) as bar:
            for job, rows in done:
                before, share = len(failed), job.seconds / sum(len(t) for *_, t in job.photos)
                for row in rows:
                    if row.error:
                        failed.append((row.key, row.error))
                    else:
                        self.store.add(row.key, row.figures, row.features)
                    bar.update(share)
                if job.training and len(failed) == before:
                    forget(folder, *job.training[:2])
        return failed

    def effects(self) -> dict[str, np.ndarray]:
        """The effect of each claim of which everything is there; why not, in ``missing``."""
        drawn, effects = Drawn(self.store, self.photos, self.draws), {}
        for claim in self.claims:
            lacking = {
                key
                for want in self.wants(claim)
                for name in drawn.names(want.photos)
                if self.store.lacks(key := (name, *want[1:3]), (want.figure,))
            }
            if lacking:
                example = " ".join(filter(None, sorted(lacking)[0]))
                self.missing[claim.id] = f"{len(lacking)} rows could not be made, as {example}"
                continue
            effect, (low, high) = self.measures[claim.id].effect(drawn), claim.possible
            effects[claim.id] = np.nan_to_num(effect, nan=low, neginf=low, posinf=high)
        return effects

    def finish(self, effects: Mapping[str, np.ndarray], command: str) -> Evidence:
        """Write CSV, effects, JSON; the decisions."""
        self.store.close()
        folder = self.store.folder
        with whole(folder / "effects.npz") as fresh, fresh.open("wb") as stream:
            np.savez_compressed(stream, **effects)
        about = self.store.about | {
            "command": command,
            "commit": code_commit() or "",
            "date": time.strftime("%Y-%m-%d"),
            "photos": {name: len(found) for name, found in self.photos.items()},
            "limit": self.limit,
            "draws": self.draws,
            "device": device_name(),
            "versions": {"python": platform.python_version()} | {n: version(n) for n in _LIBRARIES},
            "missing": self.missing,
        }
        evidence = _decided(self.dated, effects, about)
        about["decisions"] = decision_rows(evidence)
        text = json.dumps(about, indent=1, allow_nan=False)
        write_whole(folder / "claims.json", f"{text}\n".encode())
        return evidence


_LIBRARIES = ("torch", "diffusers", "torchmetrics", "numpy", "pillow")


def read_evidence(folder: str | Path, dated: DatedList) -> Evidence:
    """A finished run, decided by ``dated``; refuses results of another list, or of none.

    Raises ``FileNotFoundError`` that says how to make them, ``ValueError`` for others.
    """
    folder = Path(folder)
    if not (folder / "claims.json").is_file():
        raise FileNotFoundError(f"no claims.json in {folder}; `perco claims -o {folder}` makes it")
    about = read_about(folder / "claims.json")
    check_made_with(about, dated)
    with np.load(folder / "effects.npz", allow_pickle=False) as file:
        return _decided(dated, dict(file), about)


def _decided(dated: DatedList, effects: Mapping[str, np.ndarray], about: dict) -> Evidence:
    """Claims of the paper and ours, each corrected among their own."""
    several = []
    for claims in (dated.claims, dated.ours):
        own = {claim.id: effects[claim.id] for claim in claims if claim.id in effects}
        several.append(decide(claims, own))
    return Evidence(*several, about)


def decision_rows(evidence: Evidence) -> list[dict]:
    """Decisions as JSON-ready values, null where nothing was measured."""
    rows = []
    for ours, decisions in ((False, evidence.claims), (True, evidence.ours)):
        for name, one in decisions.items():
            reason = evidence.about["missing"].get(name, "not asked for")
            note = reason if one.effect is None else one.note
            row = {"id": name, "ours": ours, "verdict": one.verdict, "effect": one.effect}
            row |= {"interval": one.interval and list(one.interval), "p": one.p, "note": note}
            rows.append(row | {"unit": one.claim.unit, "matters": one.claim.matters})
    return rows


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds / 60)} min" if seconds > 90 else f"{seconds:.0f} s"
