"""A table that grows by whole rows: crashes, parts of processes, foreign files."""

import csv

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perco_lite.evaluation.table import ResultTable, check_writable

COLUMNS = ("photo", "codec", "rate", "note")


def row(photo, codec="jpeg", rate="0.1", note=""):
    return {"photo": photo, "codec": codec, "rate": rate, "note": note}


@pytest.fixture
def table(tmp_path):
    return ResultTable(tmp_path / "out.csv", COLUMNS)


def test_rows_come_back_as_they_went_in(table):
    rows = [row("a, b.png", note='"quoted"'), row("b.png"), row("ü\udcff.png", rate="")]
    for one in rows:
        table.append(one)
    assert list(table.rows()) == rows
    lines = table.path.read_bytes().split(b"\n")
    assert lines[0] == b"photo,codec,rate,note" and lines[-1] == b"" and len(lines) == 5


def test_what_a_row_may_not_hold(table):
    with pytest.raises(ValueError, match="rename the photo"):
        table.append(row("a\nb.png"))
    with pytest.raises(ValueError, match=r"got columns \['speed'\]"):
        table.append({**row("a"), "speed": "1"})
    assert not table.path.exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 200))
def test_a_crash_at_any_byte_loses_at_most_the_last_row(table, cut):
    table.path.unlink(missing_ok=True)
    for name in ("a", "b", "c"):
        table.append(row(name))
    whole = table.path.read_bytes()
    table.path.write_bytes(whole[:cut])
    table.check()
    table.repair()
    left = [r["photo"] for r in table.rows()]
    complete = whole[:cut].count(b"\n") - 1
    assert left == ["a", "b", "c"][: max(0, complete)]
    for name in ("a", "b", "c")[len(left) :]:
        table.append(row(name))
    assert table.path.read_bytes() == whole


def test_a_long_torn_line_is_cut(table):
    table.append(row("a"))
    whole = table.path.read_bytes()
    table.path.write_bytes(whole + b"x" * 10_000)
    table.repair()
    assert table.path.read_bytes() == whole


def test_parts_are_taken_in_once(table):
    table.append(row("a"))
    for process, names in ((0, "bd"), (1, "ac")):
        part = ResultTable(table.path, COLUMNS, process)
        for name in names:
            part.append(row(name))
    torn = ResultTable(table.path, COLUMNS, 1).target
    torn.write_bytes(torn.read_bytes() + b"e,jpeg")
    other = table.path.with_name("out2.part0.csv")
    other.write_text("somebody else's\n")
    table.repair()
    assert [r["photo"] for r in table.rows()] == ["a", "b", "d", "c"]
    table.sort(lambda r: r["photo"])
    assert [r["photo"] for r in table.rows()] == ["a", "b", "c", "d"]
    assert sorted(f.name for f in table.path.parent.iterdir()) == ["out.csv", "out2.part0.csv"]


def test_sorting_a_sorted_file_leaves_it_alone(table):
    for name in "ab":
        table.append(row(name))
    before = table.path.stat()
    table.sort(lambda r: r["photo"])
    assert table.path.stat().st_ino == before.st_ino
    ResultTable(table.path.with_name("none.csv"), COLUMNS).sort(lambda r: r["photo"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,price\ntea,3\n", "no column photo, codec, rate, note; unknown: 'name', 'price'"),
        ("photo,codec,rate,note,fid\n", "other columns; unknown: 'fid'"),
        ("photo,codec\n", "no column rate, note"),
        ("a shopping list", "is another table"),
    ],
)
def test_another_table_is_refused_and_left(table, content, words):
    table.path.write_text(content)
    for refuse in (table.check, table.repair):
        with pytest.raises(ValueError, match=words):
            refuse()
    assert table.path.read_text() == content


def test_bytes_that_are_no_text_are_refused(table):
    table.path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(ValueError, match="is another table"):
        table.check()


def test_a_damaged_line_is_named(table):
    table.append(row("a"))
    with table.path.open("a") as stream:
        csv.writer(stream).writerow(["b", "jpeg"])
    with pytest.raises(ValueError, match="line 3: got 2 cells, expected 4"):
        list(table.rows())


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
