"""scripts/caption_coders.py: every coder on few captions; what is missing is named."""

import csv
import sys

import pytest

CAPTIONS = ["A dog runs.", "A cat on a bed", "two dogs on a beach"]


def test_coders_of_captions(tmp_path, capsys, monkeypatch, load_script):
    coders = load_script("caption_coders")
    assert coders.huffman(["ab"])("ab") == 1 and coders.huffman(["ab"])("é") >= 2
    (tmp_path / "captions").mkdir()
    held = tmp_path / "captions" / "coco_heldout.txt"
    held.write_text("\n".join(CAPTIONS) + "\n")
    (tmp_path / "captions" / "a_train.txt").write_text("A dog on a bed.\n" * 20)
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))

    def missing(train):
        raise ImportError("no zstandard here")

    monkeypatch.setitem(coders.CODERS, "zstd 22, trained dictionary", missing)
    monkeypatch.setattr(sys, "argv", ["caption_coders", "-o", str(tmp_path / "out.csv")])
    coders.main()
    said = capsys.readouterr().out
    assert "not measured: no zstandard here" in said and "round trip checked" in said
    rows = {r["coder"]: r for r in csv.DictReader((tmp_path / "out.csv").open())}
    assert rows["zstd 22, trained dictionary"]["bits_per_character"] == ""
    mean = sum(map(len, CAPTIONS)) / 3
    assert float(rows["UTF-8"]["bytes_per_caption"]) == pytest.approx(mean, abs=1e-3)
    ours = rows["caption table, ours"], rows["zlib -9 (the paper)"]
    assert float(ours[0]["bits_per_character"]) < 0.25 * float(ours[1]["bits_per_character"])
