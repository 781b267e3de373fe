"""A table that grows by whole rows: crashes, several processes, tables of others."""

import csv
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perco_lite.evaluation.table import ResultTable, check_writable

COLUMNS = ("photo", "codec", "rate", "note")


def row(photo, codec="jpeg", rate="0.1", note=""):
    return {"photo": photo, "codec": codec, "rate": rate, "note": note}


@pytest.fixture
def table(tmp_path):
    return start(tmp_path / "out.csv")


def start(path):
    table = ResultTable(path, COLUMNS)
    table.check()
    table.open()
    return table


def finish(table):
    table.write()
    table.close(remove=True)
    return [file.name for file in sorted(table.path.parent.iterdir())]


def test_rows_come_back_as_they_went_in(table):
    rows = [row("a, b.png", note='"quoted"'), row("b.png"), row("ü\udcff.png", rate="")]
    for one in rows:
        table.append(one)
    assert list(table.rows()) == rows
    assert finish(table) == ["out.csv"]
    lines = table.path.read_bytes().split(b"\n")
    assert lines[0] == b"photo,codec,rate,note" and lines[-1] == b"" and len(lines) == 5
    assert list(start(table.path).rows()) == rows


def test_rows_are_in_order_and_none_is_there_twice(table):
    rates = ["0.0019", "0.1", "0.05bpp", "10bpp"]
    wanted = [row("a", codec, rate) for codec in ("perco", "jpeg", "vtm") for rate in rates]
    wanted += [row("a", "hyperprior", f"q{n}") for n in (2, 10)] + [row("b")]
    wanted.sort(key=lambda r: (r["photo"], r["codec"] == "vtm"))  # unknown ones last, by name
    for one in wanted[::-1]:
        table.append(one)
    table.append(row("b", note="again"))
    *rows, last = table.rows()
    assert rows == wanted[:-1] and last["note"] == "again"
    assert table.done("a") == {(r["codec"], r["rate"]) for r in rows}
    assert table.done("c") == set()
    assert set(table.distinct("codec", "note")) >= {("jpeg", "again"), ("vtm", "")}


def test_what_a_row_may_not_hold(table):
    with pytest.raises(ValueError, match="rename the photo"):
        table.append(row("a\nb.png"))
    with pytest.raises(ValueError, match=r"got columns \['speed'\]"):
        table.append({**row("a"), "speed": "1"})
    assert list(table.rows()) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 60))
def test_a_file_cut_at_any_byte_loses_at_most_the_last_row(table, cut):
    """Releases before 0.2 added to the CSV row by row."""
    for name in ("a", "b", "c"):
        table.append(row(name))
    finish(table)
    whole = table.path.read_bytes()
    table.path.write_bytes(whole[:cut])
    table.check()
    table.open()
    left = [r["photo"] for r in table.rows()]
    complete = whole[:cut].count(b"\n") - 1
    assert left == ["a", "b", "c"][: max(0, complete)]
    for name in ("a", "b", "c")[len(left) :]:
        table.append(row(name))
    finish(table)
    assert table.path.read_bytes() == whole
    table.open()


APPEND = """
import os, signal, sys
from perco_lite.evaluation.table import ResultTable
table = ResultTable(sys.argv[1], ("photo", "codec", "rate", "note"))
for number in range(50):
    table.append({"photo": f"{sys.argv[2]}{number:02d}", "codec": "jpeg", "rate": "0.1"})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_that_are_killed_lose_no_row(table):
    command = [sys.executable, "-c", APPEND, str(table.path)]
    both = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [process.wait(timeout=60) for process in both] == [-signal.SIGKILL] * 2
    names = [r["photo"] for r in start(table.path).rows()]
    assert names == [f"{name}{number:02d}" for name in "ab" for number in range(50)]


BYTES = bytes(range(256)) * 20


@pytest.mark.parametrize("name", ["out.csv", "out.sqlite"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name,price\ntea,3\n", "no column photo, codec, rate, note; unknown: 'name', 'price'"),
        (b"photo,codec,rate,note,fid\n", "other columns; unknown: 'fid'"),
        (b"photo,codec\n", "no column rate, note"),
        (b"a shopping list", "is another table"),
        (BYTES, "is another table"),
    ],
)
def test_another_table_is_refused_and_left(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words if name == "out.csv" else "is another table"):
        start(tmp_path / "out.csv")
    assert (tmp_path / name).read_bytes() == content and os.listdir(tmp_path) == [name]


def test_a_store_with_other_columns_is_refused(table):
    with pytest.raises(ValueError, match="out.sqlite is another table .*unknown: 'note'"):
        ResultTable(table.path, COLUMNS[:-1]).check()


def test_a_damaged_line_is_named(table):
    table.append(row("a"))
    finish(table)
    with table.path.open("a") as stream:
        csv.writer(stream).writerow(["b", "jpeg"])
    with pytest.raises(ValueError, match="line 3: got 2 cells, expected 4"):
        start(table.path)
    assert os.listdir(table.path.parent) == ["out.csv"]


def test_writable_or_not(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "out.csv")
    assert list((tmp_path / "new").iterdir()) == []
    kept = tmp_path / "kept.csv"
    kept.write_text("x")
    check_writable(kept)
    assert kept.read_text() == "x"
    with pytest.raises(OSError, match="is a folder; name a file"):
        check_writable(tmp_path)
    with pytest.raises(OSError, match=r"cannot write .*out.csv: .*kept.csv is a file"):
        check_writable(kept / "out.csv")

    def full(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.open", full)
    with pytest.raises(OSError, match=r"o.csv \(No space left on device\); name another output"):
        check_writable(tmp_path / "o.csv")


def test_a_look_at_what_can_be_written_is_seen_by_nobody(tmp_path, monkeypatch):
    output, real = tmp_path / "a.csv", type(tmp_path).open

    def spy(self, *args, **kwargs):
        assert self.name.startswith(".perco_lite-"), "another process would take it for a table"
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), "open", spy)
    check_writable(output)
    assert list(tmp_path.iterdir()) == []
