"""scripts/caption_in_prior.py: what each code costs, on few small photos and a tiny codec."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_photo, read_table
from perco_lite.training.index_prior import fit_prior, prior_bits

RATE = "0.0313"


@pytest.fixture(scope="module")
def script(load_script):
    yield load_script("caption_in_prior")
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def ready(script, tiny_codec, tmp_path, monkeypatch):
    """Photos of 64x64 as all four sets, four steps of training, one rate."""
    for name, count in (("kodak", 2), ("coco_eval", 2), ("train", 4), ("val", 3)):
        (tmp_path / name).mkdir()
        for i in range(count):
            make_photo(64, 64, count + 10 * i, (4, 4)).save(tmp_path / name / f"{i}.png")
        texts = {f"{i}.png": [f"a dog number {i}", "two dogs"] for i in range(count)}
        (tmp_path / name / "captions.json").write_text(json.dumps(texts))
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(script, "load_codec", lambda device: tiny_codec)
    monkeypatch.setattr(type(tiny_codec), "rates", (RATE,))
    for name, value in (("STEPS", 4), ("BATCH", 32), ("WORDS_SEEN", 1), ("EVERY", 1)):
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "CAPTION_RATES", (RATE,))

    def run(*arguments):
        output = tmp_path / "made.csv"
        words = ["x", "--cache", str(tmp_path / "cache"), "-o", str(output), *arguments]
        monkeypatch.setattr(sys, "argv", words)
        script.main()
        return read_table(output)

    return run


def grid_of(codec, path):
    return codec.encode(Image.open(path), RATE)[0].numpy().astype(np.int64)


def test_the_table(ready, script, tiny_codec, tmp_path, monkeypatch, capsys):
    rows = ready()
    assert "not measured: no index prior for these weights" in capsys.readouterr().out
    by = {(row["photos"], row["code"]): row for row in rows}
    assert by["kodak", "uniform"]["bits"] == "8" and by["kodak", "uniform"]["bytes_saved"] == "0"
    assert int(by["kodak", "uniform"]["count"]) == 2 and rows[0]["command"].startswith("python scr")
    grids = [grid_of(tiny_codec, tmp_path / "kodak" / f"{i}.png") for i in (0, 1)]
    train = [grid_of(tiny_codec, tmp_path / "train" / f"{i}.png") for i in range(4)]
    own = np.bincount(np.concatenate(grids).ravel(), minlength=256)
    share = own[own > 0] / own.sum()
    entropy = -(share * np.log2(share)).sum()
    assert float(by["kodak", "order 0, these photos"]["bits"]) == pytest.approx(entropy, rel=1e-5)
    counts = np.bincount(np.concatenate(train).ravel(), minlength=256) + 1
    expected = np.mean([np.log2(counts.sum() / counts[grid]).mean() for grid in grids])
    line = by["kodak", "order 0, training photos"]
    assert float(line["bits"]) == pytest.approx(expected, rel=1e-5)
    assert float(line["bytes_saved"]) == pytest.approx((8 - expected) * grids[0].size / 8, rel=1e-4)
    values = {name: float(by["val", f"experiment: {name}"]["bits"]) for name in (
        "neighbours and height", "and the caption", "gain of the caption over none")}  # fmt: skip
    gain = values["neighbours and height"] - values["and the caption"]
    assert values["gain of the caption over none"] == pytest.approx(gain, abs=1e-4)
    table = (tmp_path / "made.csv").read_bytes()
    kept = (tmp_path / "cache" / f"grids_{RATE}.npz").stat().st_mtime_ns
    prior, _ = fit_prior(train, 256, steps=2)
    assert ready() == rows and (tmp_path / "made.csv").read_bytes() == table, "the same again"
    assert (tmp_path / "cache" / f"grids_{RATE}.npz").stat().st_mtime_ns == kept
    monkeypatch.setattr(script, "find_prior", lambda model, rate: prior)
    by = {(row["photos"], row["code"]): row for row in ready()}
    line = by["kodak", "prior: neighbours and height"]
    assert float(line["bits"]) == pytest.approx(prior_bits(prior, grids), rel=1e-5)
    assert float(line["file_bytes"]) > grids[0].size


def test_without_captions_the_network_is_the_priors(script):
    from perco_lite.training.index_prior import PriorNetwork

    torch.manual_seed(0)
    ours = script.CaptionedNetwork(8, words=3)
    theirs = PriorNetwork(8)
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if "words" not in k})
    contexts = torch.randint(0, 8, (5, 7))
    text = torch.tensor([[1, 2] + [0] * 22] * 5)
    assert torch.equal(ours(contexts), theirs(contexts))
    assert torch.equal(ours(contexts, text), theirs(contexts)), "words start at zero"
    with torch.no_grad():
        ours.words.weight[1] = 1.0
    assert not torch.allclose(ours(contexts, text), theirs(contexts))


def test_grids_of_other_weights_are_made_anew(ready, script, tiny_codec, tmp_path):
    path = tmp_path / "cache" / f"grids_{RATE}.npz"
    path.parent.mkdir()
    shapes, photos = np.array([[1, 2]]), np.array([[0, 8]])
    flat = np.array([5, 5], np.int16)
    data = str(tmp_path / "train")
    np.savez(path, flat=flat, shapes=shapes, photos=photos)
    grids, numbers = script.training_grids(tiny_codec, RATE, path.parent, data)
    assert grids[0].tolist() == [[5, 5]] and numbers == [0], "a cache that was named is used"
    np.savez(path, flat=flat, shapes=shapes, photos=photos, model_id=tiny_codec.model_id ^ 1)
    grids, numbers = script.training_grids(tiny_codec, RATE, path.parent, data)
    assert len(grids) == 4 and numbers == [0, 1, 2, 3]
    assert math.isclose(script.made_by(path), tiny_codec.model_id)


def test_words(script):
    numbers = script.word_numbers([["A dog.", "a dog runs"]] * 3)
    assert set(numbers) == {"a", "dog"} and min(numbers.values()) == 1
    ids = script.numbered("A cat, a dog", numbers)
    assert ids[:3] == [numbers["a"], numbers["a"], numbers["dog"]] and ids[3:] == [0] * 21
