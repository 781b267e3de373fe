"""The table of an evaluation and the files beside it; nothing of somebody else's is written over.

    rows ──append──► out.sqlite: one a (photo, codec, rate), of any number of processes
    end ──write──► out.csv, in order, whole or not at all           out.json: settings, summary
                                                     out_pictures/CODEC/RATE/PHOTO.png

After a crash the rows that were made are in out.sqlite; those of a finished table are in out.csv,
and more can be added to both. Rows are read a photo at a time.

Paper: nothing of this.
Differs from the paper: PerCo (SD)'s evaluation goes on from the last photo and writes its settings
nowhere.
"""

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from perco_lite.evaluation.codecs import DEFAULT_CODECS
from perco_lite.files import fresh_name, whole, write_csv, write_whole

MADE_BY = "perco evaluate"  # says that a JSON file is ours, and may be written over
KEY = ("photo", "codec", "rate")
UNTOUCHED = "nothing was written: name another output"
_ERRORS = "surrogateescape"  # names of photos need not be text

Row = dict[str, str]


class ResultTable:
    """Rows with fixed columns, among them KEY; all cells are text, "" where there is nothing."""

    def __init__(self, path: str | Path, columns: Iterable[str]):
        self.path, self.columns = Path(path), tuple(columns)
        self.store = self.path.with_suffix(".sqlite")
        self.made = False  # the store, by this run
        self._marks = f"VALUES ({', '.join('?' * len(self.columns))})"
        self._connection: sqlite3.Connection | None = None

    def check(self) -> None:
        """Raise ``ValueError`` if the file or the store is not a table with these columns."""
        if self.path.exists():
            header = ",".join(self.columns) + "\n"
            with self.path.open(encoding="utf-8", errors="replace", newline="") as stream:
                first = stream.readline(len(header) + 2000)
            if not header.startswith(first):  # ours, perhaps cut within its first line
                self._check_columns(self.path, next(csv.reader([first.rstrip("\r\n")]), []))
        if self.store.exists():
            found = []
            with suppress(sqlite3.DatabaseError):
                found = [name for _, name, *_ in self._run("PRAGMA table_info(rows)")]
            self._check_columns(self.store, found)

    def _check_columns(self, file: Path, found: list[str]) -> None:
        if tuple(found) == self.columns:
            return
        missing = [name for name in self.columns if name not in found][:4]
        extra = [repr(name[:40]) for name in found if name not in self.columns][:4]
        what = f"no column {', '.join(missing)}" if missing else "other columns"
        what += f"; unknown: {', '.join(extra)}" if extra else ""
        raise ValueError(
            f"{file} is another table ({what}); nothing was written: give another output, or the "
            "same metrics as when it was made"
        )

    def open(self) -> None:
        """Make the store, with the rows of the file, unless a run left one; one process does."""
        if self.store.exists():
            return
        names = ", ".join(f'"{name}"' for name in self.columns)
        with whole(self.store) as fresh:
            try:
                with closing(sqlite3.connect(fresh)) as store, store:
                    store.execute(f"CREATE TABLE rows ({names}, PRIMARY KEY ({', '.join(KEY)}))")
                    store.executemany(f"INSERT OR IGNORE INTO rows {self._marks}", self._read())
            except sqlite3.OperationalError as error:
                raise OSError(str(error)) from error
        self.made = True

    def _read(self) -> Iterator[list[bytes]]:
        """Cells of the file's rows; a last line without an end was torn by a crash."""
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8", errors=_ERRORS, newline="") as stream:
            lines = csv.reader(line for line in stream if line.endswith("\n"))
            for number, cells in enumerate(lines, 1):
                if len(cells) != len(self.columns):
                    raise ValueError(
                        f"{self.path}, line {number}: got {len(cells)} cells, expected "
                        f"{len(self.columns)}; delete that line and run again"
                    )
                if number > 1:
                    yield [cell.encode("utf-8", _ERRORS) for cell in cells]

    def _run(self, command: str, cells: Iterable[str] = ()) -> Iterator[tuple]:
        """Run SQL; cells are kept as bytes, for not every name is text."""
        if self._connection is None:
            self._connection = sqlite3.connect(self.store, timeout=600, isolation_level=None)
            self._connection.execute("PRAGMA synchronous=OFF")  # safe from our crash, not the OS's
        for row in self._connection.execute(command, [c.encode("utf-8", _ERRORS) for c in cells]):
            yield tuple(c.decode("utf-8", _ERRORS) if isinstance(c, bytes) else c for c in row)

    def append(self, row: Row) -> None:
        """Write one row: what comes after cannot lose it. A cell may have no line break."""
        unknown = set(row) - set(self.columns)
        if unknown:
            raise ValueError(f"got columns {sorted(unknown)}, expected some of {self.columns}")
        cells = [row.get(name, "") for name in self.columns]
        if broken := [cell for cell in cells if {"\n", "\r"} & set(cell)]:
            raise ValueError(f"got {broken[0]!r}, expected no line break; rename the photo")
        try:
            list(self._run(f"INSERT OR REPLACE INTO rows {self._marks}", cells))
        except sqlite3.OperationalError as error:
            raise OSError(f"cannot write {self.store} ({error})") from error

    def distinct(self, *columns: str) -> Iterator[tuple[str, ...]]:
        """What occurs in these columns, each combination once."""
        return self._run(f"SELECT DISTINCT {', '.join(columns)} FROM rows ORDER BY {columns[0]}")

    def done(self, photo: str) -> set[tuple[str, str]]:
        """Codecs and rates of the rows of one photo."""
        return set(self._run("SELECT codec, rate FROM rows WHERE photo = ?", [photo]))

    def rows(self) -> Iterator[Row]:
        """All rows: photos by name, codecs as they are known, rates from low to high."""
        for photo in self.distinct("photo"):
            found = self._run("SELECT * FROM rows WHERE photo = ?", photo)
            rows = [dict(zip(self.columns, cells, strict=True)) for cells in found]
            yield from sorted(rows, key=_place)

    def keep_set(self, key: str, value: str) -> None:
        """Keep what was found of a set of rows, for a run that goes on after a crash."""
        list(self._sets("INSERT OR REPLACE INTO sets VALUES (?, ?)", [key, value]))

    def kept_set(self, key: str) -> str | None:
        """What was kept under ``key``."""
        return next((v for (v,) in self._sets("SELECT value FROM sets WHERE key = ?", [key])), None)

    def _sets(self, command: str, cells: list[str]) -> Iterator[tuple]:
        list(self._run("CREATE TABLE IF NOT EXISTS sets (key PRIMARY KEY, value)"))
        return self._run(command, cells)

    def write(self) -> None:
        """Write the CSV, whole or not at all."""
        write_csv(self.path, self.rows(), self.columns)

    def close(self, remove: bool = False) -> None:
        """Let go of the store; ``remove`` it where the CSV has what is in it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if remove:
            self.store.unlink(missing_ok=True)


def _place(row: Row) -> tuple:
    codec, rate = row["codec"], row["rate"]
    rank = (*DEFAULT_CODECS, codec).index(codec)
    number = float(rate.removesuffix("bpp").removeprefix("q") or 0)
    return rank, codec, rate.endswith("bpp"), number


class EvaluationFiles:
    """Where an evaluation writes: NAME.csv, NAME.sqlite, NAME.json and NAME_pictures/."""

    def __init__(self, table: Path):
        self.table = table
        self.summary = table.with_suffix(".json")
        self.store = table.with_suffix(".sqlite")  # as ResultTable's
        self.pictures = table.with_name(f"{table.stem}_pictures")
        self.previous: dict = {}

    def picture(self, codec: str, rate: str, photo: str) -> Path:
        """PNG of what a codec made of a photo."""
        return self.pictures / codec / (rate or "all") / f"{photo}.png"

    def check(self) -> None:
        """Refuse what cannot be written (``OSError``) or is not ours (``ValueError``)."""
        if self.table.suffix != ".csv":
            raise ValueError(f"got output {self.table}, expected a name ending in .csv")
        for path in (self.table, self.summary):
            check_writable(path)
        unknown, foreign = f"and no {self.summary.name} says that it is from {MADE_BY}", ""
        if self.summary.exists():
            with suppress(ValueError, OSError):
                self.previous = json.loads(self.summary.read_text(encoding="utf-8"))
            if not isinstance(self.previous, dict) or self.previous.get("made_by") != MADE_BY:
                foreign = f"{self.summary} is not from {MADE_BY}"
        elif self.store.exists():
            foreign = f"{self.store} is there, {unknown}"
        elif self.pictures.exists() and any(self.pictures.iterdir()):
            foreign = f"{self.pictures} is not empty, {unknown}"
        if foreign:
            raise ValueError(f"{foreign}; {UNTOUCHED}")

    def other_settings(self, settings: dict) -> str:
        """What to say of a table that was made with others."""
        what = differences(self.previous.get("settings", {}), settings) or "their record is lost"
        return f"{self.table} was made with other settings ({what}); {UNTOUCHED}"

    def start(self, settings: dict) -> None:
        """Leave word of what is being made, for a run that goes on after a crash."""
        about = {"made_by": MADE_BY, "finished": False, "settings": settings}
        self.write({**about, **{k: v for k, v in self.previous.items() if k not in about}})

    def write(self, about: dict) -> None:
        """Write the JSON, whole or not at all."""
        text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(self.summary, text.encode("utf-8", _ERRORS))


def differences(before: Mapping, now: Mapping) -> str:
    """What of ``now`` was otherwise ``before``, for a message; empty where nothing was."""
    differ = [name for name in now if before.get(name) != now[name]]
    return "; ".join(f"{name}: was {before.get(name)}, is {now[name]}" for name in differ)


def check_writable(path: Path) -> None:
    """Raise ``OSError`` if no file can be made, or added to, at ``path``; leaves none behind."""
    try:
        if path.parent.exists() and not path.parent.is_dir():
            raise NotADirectoryError(f"cannot write {path}: {path.parent} is a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file in it, such as out.csv")
        # under a name of its own: another process of this run would take an empty file for a table
        probe = path if path.exists() else fresh_name(path)
        with probe.open("ab"):
            pass
        if probe != path:
            probe.unlink(missing_ok=True)
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(f"cannot write {path} ({error.strerror}); name another output") from error
