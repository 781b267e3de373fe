"""scripts/captioner_scores.py: a row for each writer, on photos of our own."""

import csv
import json
import sys

import numpy as np
import pytest

from conftest import make_photo
from perco_lite.coding.caption_model import bundled
from perco_lite.training.caption_photos import cache_features

TEXTS = ["A dog runs on the grass.", "A brown dog is running.", "The dog runs."]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three photos with three captions each, for measuring; two of them to learn from, too."""
    for name, count in (("val", 3), ("train", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            make_photo(seed=number).save(tmp_path / name / f"{number}.png")
        captions = {f"{n}.png": [f"Number {n} of {name}.", *TEXTS] for n in range(count)}
        (tmp_path / name / "captions.json").write_text(json.dumps(captions))
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    return tmp_path


def test_a_row_for_each_writer(photos, captioner, load_script, monkeypatch, capsys, tmp_path):
    captioner.save_pretrained(tmp_path / "c")
    cache_features(captioner.eyes, photos / "train", tmp_path / "f")
    script = load_script("captioner_scores")
    folders = {"--captioner": "c", "--features": "f", "-o": "o.csv"}
    options = [part for name, path in folders.items() for part in (name, tmp_path / path)]
    monkeypatch.setattr(sys, "argv", ["captioner_scores", *map(str, options)])
    script.main()
    said = capsys.readouterr().out
    assert "CIDEr-D" in said and ("most alike: 0.99" in said or "most alike: 1.0" in said)
    rows = {row["writer"]: row for row in csv.DictReader((tmp_path / "o.csv").open())}
    assert list(rows)[1:] == [
        "of the nearest training photo",
        "ours, greedy",
        "ours, 5 beams",
        "people, against the other four",
    ]
    assert all(int(row["photos"]) == 3 for row in rows.values())
    every = [f"Number {n} of val." for n in range(3)] + TEXTS * 3
    costs = [len(bundled().encode(text)) for text in every]
    people = rows["people, against the other four"]
    assert float(people["bytes"]) == pytest.approx(np.mean(costs), rel=1e-3)
    assert float(rows["ours, greedy"]["cpu_seconds"]) > 0


def test_the_nearest_photo_is_the_same_photo(photos, captioner, load_script, tmp_path):
    script = load_script("captioner_scores")
    known = cache_features(captioner.eyes, photos / "train", tmp_path / "f")
    measured = list(script.read_training_photos(photos / "val"))[:2]
    near = script.nearest(script.see(captioner, measured), known)
    assert near == ["Number 0 of train.", "Number 1 of train."]


def test_no_photos_is_said(load_script, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["captioner_scores"])
    with pytest.raises(SystemExit):
        load_script("captioner_scores").main()
    assert "PERCO_LITE_DATA has no val/" in capsys.readouterr().err
