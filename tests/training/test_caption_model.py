"""A table from a handful of sentences; the same one twice."""

import subprocess
import sys

import numpy as np
import pytest

from perco_lite.coding.caption_model import CaptionModel, arrays_id
from perco_lite.training.caption_model import build_caption_model, read_sentences, train_captions

SENTENCES = ["A dog runs.", "a dog runs fast", "A cat sleeps.", "The dog sleeps."] * 3


def test_a_table_knows_what_it_read():
    model = build_caption_model(SENTENCES)
    assert model.words[:2] == [" a", " dog"] and " fast" in model.words
    for text in [*SENTENCES, "A dog sleeps on Ömer's bed!", ""]:
        assert model.decode(model.encode(text)) == text
    assert len(model.encode("A dog runs.")) < len(model.encode("A cow swims."))
    assert model.styles.tolist() == [4, 1, 1, 10], "one more than seen: any style can be said"


def test_every_text_can_be_said_whatever_it_read():
    model = build_caption_model(["b", "c"])  # nothing twice: no vocabulary at all
    assert model.words == []
    for text in ("a b c.", "ÿ" * 20, ""):
        assert model.decode(model.encode(text)) == text
    again = CaptionModel.from_arrays(model.arrays())
    assert again.words == [] and again.encode("a b") == model.encode("a b")


def write(folder, name, lines):
    (folder / name).write_text("\n".join(lines) + "\n\n", encoding="utf-8")


def test_training_is_deterministic_and_reads_train_files_only(tmp_path):
    write(tmp_path, "a_train.txt", SENTENCES[:5])
    write(tmp_path, "b_train.txt", SENTENCES[5:])
    write(tmp_path, "heldout.txt", ["A secret."] * 9)
    code = (
        "import sys; from pathlib import Path\n"
        "from perco_lite.training.caption_model import train_captions\n"
        "train_captions(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    out = tmp_path / "other.npz"
    subprocess.run([sys.executable, "-c", code, tmp_path, out], check=True, timeout=300)
    summary = train_captions(tmp_path, tmp_path / "new" / "table.npz")
    assert summary["sentences"] == 12 and summary["bytes"] == out.stat().st_size
    assert (tmp_path / "new" / "table.npz").read_bytes() == out.read_bytes()
    with np.load(out, allow_pickle=False) as stored:
        arrays = dict(stored)
    assert f"{arrays_id(arrays):#06x}" == summary["table_id"]
    assert " secret" not in CaptionModel.from_arrays(arrays).words


def test_missing_or_foreign_text_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*_train.txt in .*give a folder"):
        train_captions(tmp_path, tmp_path / "t.npz")
    (tmp_path / "x_train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="x_train.txt is not UTF-8"):
        read_sentences([tmp_path / "x_train.txt"])
    write(tmp_path, "x_train.txt", ["only one"])
    with pytest.raises(ValueError, match="got 1 sentences"):
        train_captions(tmp_path, tmp_path / "t.npz")
    assert not (tmp_path / "t.npz").exists()
