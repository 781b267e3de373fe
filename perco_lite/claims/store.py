"""What was measured, kept row by row: nothing is made twice, nothing of another list is taken.

    (photo, what, rate) ──add──► rows.sqlite, at the end rows.csv: figures, and how they were made
                            └──► seen/WHAT/RATE/PHOTO.npz: what KID, FID, mIoU are computed from
    OUTPUT/run.json: list, weights, lengths of trainings, of all rows

Each row says which list (its hash), weights (their digest), commit and command it is of. Rows of
another list, of other weights or trainings of another length are refused, before any work.

Paper: nothing of this.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from perco_lite.claims.dated import DatedList, check_made_with
from perco_lite.claims.eyes import FEATURES, FIGURES
from perco_lite.evaluation.evaluate import code_commit
from perco_lite.evaluation.table import ResultTable, check_writable, differences
from perco_lite.files import whole, write_whole

MADE_BY = "perco claims"
OWN = ("bytes", "zlib_bytes", "captions", "saving", "v_loss")  # figures of no picture
COLUMNS = ("photo", "codec", "rate", *OWN, *FIGURES, *FEATURES, "seconds")
COLUMNS += ("claims_sha256", "weights", "commit", "command")

Key = tuple[str, str, str]  # photo, what was made of it (column "codec"), rate


class Store:
    """Rows and features in one folder; ``about`` is what all rows have in common."""

    def __init__(self, folder: str | Path, dated: DatedList, weights: str, lengths: Mapping):
        """Raise ``OSError``, or ``ValueError`` for what is not ours, or of other things."""
        self.folder = Path(folder)
        check_writable(self.folder / "run.json")
        self.about = {"made_by": MADE_BY, "dated": dated.dated, "claims_sha256": dated.sha256}
        self.about |= {"weights": weights, **lengths}
        _check(self.folder / "run.json", dated, self.about)
        self.table = ResultTable(self.folder / "rows.csv", COLUMNS)
        self.table.check()
        self.rows: dict[Key, dict[str, str]] = {}
        self.stamp: dict[str, str] = {}

    def open(self, command: str, look: bool = False) -> None:
        """Read what is there, and say in run.json what is being made; ``look``: write nothing."""
        if look and not (self.table.path.exists() or self.table.store.exists()):
            return
        if not look:
            write_whole(self.folder / "run.json", _json(self.about))
        self.table.open()
        self.rows = {(row["photo"], row["codec"], row["rate"]): row for row in self.table.rows()}
        self.stamp = {name: self.about[name] for name in ("claims_sha256", "weights")}
        self.stamp |= {"commit": code_commit() or "", "command": command}

    def lacks(self, key: Key, names: Iterable[str]) -> tuple[str, ...]:
        """Which of these columns a row does not have yet; all, where there is no row."""
        row = self.rows.get(key, {})
        return tuple(
            name
            for name in names
            if not row.get(name) or (name in FEATURES and not (self.folder / row[name]).is_file())
        )

    def add(self, key: Key, figures: Mapping, features: Mapping[str, np.ndarray]) -> None:
        """Write a row; figures that it had before stay."""
        row = self.rows.get(key, {}) | self.stamp
        row |= dict(zip(("photo", "codec", "rate"), key, strict=True))
        row |= {name: f"{value:.9g}" for name, value in figures.items()}
        for name, values in features.items():
            photo, made, rate = key
            place = Path("seen", made.replace(", ", "-"), rate or "all", f"{photo}-{name}.npy")
            (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
            with whole(self.folder / place) as fresh, fresh.open("wb") as stream:
                np.save(stream, values)
            row[name] = place.as_posix()
        self.table.append(row)
        self.rows[key] = row

    def figure(self, key: Key, name: str) -> float:
        return float(self.rows[key][name])

    def feature(self, key: Key, name: str) -> np.ndarray:
        return np.load(self.folder / self.rows[key][name])

    def look_away(self) -> None:
        """Let go of the rows, as they were found."""
        self.table.close(remove=self.table.made)

    def close(self) -> None:
        """Write the CSV; the sqlite beside it goes."""
        self.table.write()
        self.table.close(remove=True)


def read_about(path: Path) -> dict:
    """What a JSON file of ours says; ``ValueError`` for another's."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        if about["made_by"] != MADE_BY:
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not from {MADE_BY}; name another folder") from error
    return about


def _check(path: Path, dated: DatedList, about: dict) -> None:
    if not path.exists():
        return
    before = read_about(path)
    check_made_with(before, dated)
    if differ := differences(before, about):
        raise ValueError(
            f"{path.parent} was measured otherwise ({differ}); nothing was written: "
            "name another folder"
        )


def _json(about: Mapping) -> bytes:
    return (json.dumps(about, indent=1) + "\n").encode()
