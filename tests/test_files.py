"""Bytes on disk, whole or not at all; tables; what went wrong, in one line."""

import errno
import os

import pytest

from perco_lite.files import (
    MAX_PERCO_BYTES,
    explain,
    printable,
    read_perco,
    write_csv,
    write_whole,
)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full")])
def test_nothing_half_written(tmp_path, monkeypatch, stop):
    target = tmp_path / "new" / "a.png"
    write_whole(target, b"old")

    def fail(*args):
        raise stop

    monkeypatch.setattr(type(target), "replace", fail)
    with pytest.raises(type(stop)) as caught:
        write_whole(target, b"new and longer")
    assert os.listdir(target.parent) == ["a.png"] and target.read_bytes() == b"old"
    reason = f"cannot write {target} (disk full); name another output with -o"
    assert str(caught.value) == (reason if isinstance(stop, OSError) else "")


def test_a_place_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "taken.png").mkdir()
    for target in (tmp_path / "file" / "a.png", tmp_path / "taken.png"):
        with pytest.raises(OSError, match=f"cannot write {target}") as caught:
            write_whole(target, b"data")
        assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "taken.png"]


def test_no_more_is_read_than_a_file_can_have(tmp_path):
    path = tmp_path / "big.perco"
    path.write_bytes(b"\xb1" * MAX_PERCO_BYTES)
    assert len(read_perco(path)) == MAX_PERCO_BYTES
    with path.open("ab") as stream:
        stream.truncate(2**40)  # a hole: takes no room on the disk, but would in memory
    with pytest.raises(ValueError, match="not a .perco file"):
        read_perco(path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (ValueError(), "ValueError"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough"),
        (RuntimeError("CUDA out of memory. Tried to"), "not enough memory"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_one_line_for_each_error(error, message):
    assert explain(error).startswith(message) and "\n" not in explain(error)


def test_a_table_has_every_column_that_a_row_has(tmp_path):
    path = tmp_path / "new" / "table.csv"
    rows = [{"photo": "a, b", "psnr": 1 / 3}, {"photo": "c", "psnr": None, "x": float("inf")}]
    write_csv(path, rows)
    assert path.read_bytes() == b'photo,psnr,x\n"a, b",0.3333333333333333,\nc,,inf\n'
    write_csv(path, rows, ("x", "psnr"), digits=3)
    assert path.read_bytes() == b"x,psnr\n,0.333\ninf,\n"
    write_csv(path, [dict(enumerate((None, 1, "a", 0.1234567, float("inf"))))], digits=6)
    assert path.read_bytes() == b"0,1,2,3,4\n,1,a,0.123457,inf\n"
    with pytest.raises(OSError, match="cannot write"):
        write_csv(path / "a.csv", rows)


def test_two_containers_with_one_process_id_write_into_one_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    names, real = [], type(tmp_path).replace

    def replace(self, target):
        names.append(self.name)
        if len(names) == 1:
            write_whole(tmp_path / "b", b"of the other container, meanwhile")
        return real(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", replace)
    write_whole(tmp_path / "a", b"ours")
    assert (tmp_path / "a").read_bytes() == b"ours" and len(set(names)) == 2
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_text_is_printed_as_one_safe_bounded_line():
    assert printable("caf\xe9 \u732b \x1b[31m\x9bJ\u202e\n\udce9") == (
        "caf\xe9 \u732b \\x1b[31m\\x9bJ\\u202e\\n\\udce9"
    )
    for text in ("a" * 10**6, "\x1b" * 10**6):
        short = printable(f"start {text} end", 100)
        assert len(short) == 100 and short.startswith("start") and short.endswith(" end")
    assert len(explain(ValueError("x" * 10**6))) < 700
    assert explain(KeyError("x")) == "KeyError: 'x'"
