"""A table on disk that grows by whole rows, survives a crash, and is never mixed with another.

    rows ──append, flush──► out.csv              (one process)
         └────────────────► out.part0.csv, …     (several: one file each)
    next start: torn last lines cut, parts taken in ──► keys of rows that need not be made again
    end: parts taken in, rows sorted, written whole

A row is one line, so that half a line can be told from a whole one. Rows are read one at a time;
for sorting, only their keys and places in the file are kept.

Paper: nothing of this.
Differs from the paper: PerCo (SD)'s evaluation goes on from the last photo; here, from any gap.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

Row = dict[str, str]


class ResultTable:
    """Rows of one CSV file with fixed columns; all cells are text, "" where there is nothing."""

    def __init__(self, path: str | Path, columns: Iterable[str], process: int | None = None):
        """``process``: append to this process's part instead of the file itself."""
        self.path = Path(path)
        self.columns = tuple(columns)
        self.target = self.path if process is None else self._part(process)

    def _part(self, process: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.part{process}{self.path.suffix}")

    def parts(self) -> list[Path]:
        """Files that the processes of an unfinished run left."""
        return sorted(
            file
            for file in self.path.parent.glob("*.part*" + self.path.suffix)
            if file.name.startswith(f"{self.path.stem}.part")
            and file.name[len(self.path.stem) + 5 : -len(self.path.suffix)].isdigit()
        )

    def check(self) -> None:
        """Raise ``ValueError`` if the file or a part is not a table with these columns."""
        for file in [self.path, *self.parts()]:
            if file.exists():
                self._check(file)

    def _check(self, file: Path) -> None:
        header = self._line(self.columns)
        with file.open("rb") as stream:
            start = stream.read(len(header) + 4096)
        if header.startswith(start):
            return  # ours, perhaps cut within its first line
        if start.startswith(header):
            return
        first = start.split(b"\n")[0].decode("utf-8", "replace").rstrip("\r")
        found = next(csv.reader([first[:2000]]), [])
        missing = [name for name in self.columns if name not in found]
        extra = [name for name in found if name not in self.columns]
        what = f"no column {', '.join(missing[:4])}" if missing else "other columns"
        what += f"; unknown: {', '.join(repr(name[:40]) for name in extra[:4])}" if extra else ""
        raise ValueError(
            f"{file} is another table ({what}); nothing was written: give another output, or the "
            "same metrics as when it was made"
        )

    def repair(self) -> None:
        """Cut off torn last lines and take in the parts of an earlier run; only one process may."""
        for file in [self.path, *self.parts()]:
            if file.exists():
                self._check(file)
                _cut_torn_line(file)
        parts = self.parts()
        if parts:
            known = {row_key(row) for row in self.rows()}
            for part in parts:
                rows = [row for row in self._rows(part) if row_key(row) not in known]
                known.update(map(row_key, rows))
                self._append(self.path, rows)
            for part in parts:
                part.unlink()

    def rows(self) -> Iterator[Row]:
        """Rows of the file (not the parts); ``ValueError`` names a line that is damaged."""
        return self._rows(self.path)

    def _rows(self, file: Path) -> Iterator[Row]:
        if not file.exists():
            return
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            for number, cells in enumerate(csv.reader(stream), 1):
                if number == 1:
                    continue
                if len(cells) != len(self.columns):
                    raise ValueError(
                        f"{file}, line {number}: got {len(cells)} cells, expected "
                        f"{len(self.columns)}; delete that line and run again"
                    )
                yield dict(zip(self.columns, cells, strict=True))

    def append(self, row: Row) -> None:
        """Write one row and hand it to the system: what comes after cannot lose it."""
        self._append(self.target, [row])

    def _append(self, file: Path, rows: list[Row]) -> None:
        lines = [self._line([row.get(name, "") for name in self.columns]) for row in rows]
        unknown = {name for row in rows for name in row} - set(self.columns)
        if unknown:
            raise ValueError(f"got columns {sorted(unknown)}, expected some of {self.columns}")
        try:
            with file.open("ab") as stream:
                if stream.tell() == 0:
                    stream.write(self._line(self.columns))
                stream.write(b"".join(lines))
        except OSError as error:
            raise OSError(f"cannot write {file} ({error.strerror or error})") from error

    def sort(self, order: Callable[[Row], tuple]) -> None:
        """Bring the rows of the file into ``order``, whole or not at all."""
        if not self.path.exists():
            return
        places = []
        with self.path.open("rb") as stream:
            stream.readline()
            while True:
                place = stream.tell()
                line = stream.readline()
                if not line:
                    break
                cells = next(csv.reader([line.decode("utf-8", "surrogateescape")]))
                places.append((order(dict(zip(self.columns, cells, strict=True))), place))
            if places == sorted(places):
                return
            fresh = self.path.with_name(f".perco_lite-{os.getpid()}.part")
            try:
                with fresh.open("wb") as sorted_file:
                    sorted_file.write(self._line(self.columns))
                    for _, place in sorted(places):
                        stream.seek(place)
                        sorted_file.write(stream.readline())
                fresh.replace(self.path)
            finally:
                fresh.unlink(missing_ok=True)

    def _line(self, cells: Iterable[str]) -> bytes:
        cells = list(cells)
        for cell in cells:
            if "\n" in cell or "\r" in cell:
                raise ValueError(f"got {cell!r}, expected no line break; rename the photo")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        return text.getvalue().encode("utf-8", "surrogateescape")


def row_key(row: Row) -> tuple[str, str, str]:
    """What a row is about: photo, codec, rate."""
    return row["photo"], row["codec"], row["rate"]


def check_writable(path: Path) -> None:
    """Raise ``OSError`` if no file can be made, or added to, at ``path``; leaves none behind."""
    try:
        if path.parent.exists() and not path.parent.is_dir():
            raise NotADirectoryError(f"cannot write {path}: {path.parent} is a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a file in it, such as out.csv")
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            path.unlink(missing_ok=True)
    except OSError as error:
        if error.strerror is None:
            raise
        raise OSError(f"cannot write {path} ({error.strerror}); name another output") from error


def _cut_torn_line(file: Path) -> None:
    """Drop what follows the last line break: a crash came before the rest of that row."""
    with file.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:  # backwards in blocks, for the file may be long
            start = max(0, keep - 4096)
            stream.seek(start)
            block = stream.read(keep - start)
            if b"\n" in block:
                keep = start + block.rindex(b"\n") + 1
                break
            keep = start
        if keep < end:
            stream.truncate(keep)
