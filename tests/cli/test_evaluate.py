"""`perco evaluate` as its users run it, in one process and in two."""

import json
import os
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from conftest import make_photo, read_table, run_two_processes
from perco_lite import loading
from perco_lite.cli import evaluate as evaluate_cli
from perco_lite.evaluation.codecs import DEFAULT_CODECS
from perco_lite.evaluation.codecs.ours import Decoding
from perco_lite.evaluation.datasets import open_dataset
from perco_lite.evaluation.evaluate import evaluate
from perco_lite.evaluation.metrics import realism

QUICK = ("--metrics", "psnr", "--steps", 2)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(5):
        make_photo(seed=seed).save(folder / f"{seed}.png")
    (folder / "captions.json").write_text(json.dumps({f"{n}.png": "two dogs" for n in range(5)}))
    return folder


@pytest.fixture
def perco(perco, tiny_codec, monkeypatch):
    """Run the command in this process, its weights already loaded: (exit code, stdout, stderr)."""
    monkeypatch.setattr(loading, "load_codec", lambda weights=None, device=None: tiny_codec)
    return partial(perco, "evaluate")


def test_table_summary_and_pictures(perco, folder, tmp_path):
    output = tmp_path / "made" / "out.csv"
    code, out, err = perco(folder, "-o", output, "--photos", 2, *QUICK, "--rates", "0.0019,0.0098")
    assert code == 0, err
    rows = read_table(output)
    assert {row["codec"] for row in rows} == set(DEFAULT_CODECS)
    assert len(rows) == 2 * (9 * 2 + 1) and {row["steps"] for row in rows} == {"2", ""}
    summary = json.loads(output.with_suffix(".json").read_text())
    assert summary["finished"] and "evaluate" not in summary["notes"]
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["codec", "rate", "photos", "reached", "bytes"]
    assert len(lines) == 1 + 19 + 1 and lines[-1].endswith("out.json")
    perco_line = next(line.split() for line in lines if line.startswith("perco "))
    assert perco_line[:3] == ["perco", "0.0019", "2"]
    assert len(list((tmp_path / "made" / "out_pictures").rglob("*.png"))) == len(rows)


def test_what_was_not_measured_is_named(perco, tiny_codec, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_codec.conditioner, "estimate", lambda condition: None)
    common = (folder, "-o", tmp_path / "o.csv", *QUICK, "--photos", 1, "--rates", "0.0019")
    code, out, err = perco(*common, "--codecs", "perco,perco-estimate")
    assert code == 0 and {row["codec"] for row in read_table(tmp_path / "o.csv")} == {"perco"}
    line = "not measured: perco-estimate (these weights estimate nothing"
    assert line in out and line in err


def test_json_and_every_option(perco, folder, tmp_path):
    (tmp_path / "list.txt").write_text("3.png\n1.png\n2.png\n")
    (tmp_path / "c.json").write_text(json.dumps({"1.png": "given", "9.png": "nobody's"}))
    options = "--codecs perco,webp --rates 0.0019 --ladder 2 --photos 2 --resize 64x40 --guidance 2"
    options += " --temperature 0.5 --anchor 0 --seed 7 --batch 1 --no-keep --json"
    files = ("--list", tmp_path / "list.txt", "--captions", tmp_path / "c.json")
    code, out, err = perco(folder, "-o", tmp_path / "o.csv", *QUICK, *files, *options.split())
    assert code == 0, err
    summary = json.loads(out)
    assert summary == json.loads((tmp_path / "o.json").read_text())
    assert summary["settings"]["resize"] == "squashed to 64x40, Pillow bicubic"
    rows = read_table(tmp_path / "o.csv")
    points = [(r["photo"], r["codec"], r["rate"]) for r in rows]
    assert points == [
        (photo, codec, rate)
        for photo in ("1.png", "2.png")
        for codec, rate in (("perco", "0.0019"), ("webp", "0.0019"), ("webp", "2bpp"))
    ]
    how = [rows[0][n] for n in ("guidance", "temperature", "anchor", "seed", "width", "height")]
    assert how == ["2", "0.5", "0", "7", "64", "40"]
    assert "note: 1 of 2 photos have no caption (2.png)" in err
    assert "captions for 1 photos that do not exist (9.png)" in err
    assert not (tmp_path / "o_pictures").exists()


def refused(result, *words):
    code, out, err = result
    last = err.splitlines()[-1]
    assert (code, out) == (2, "") and last.startswith("error: "), err
    for word in words:
        assert word in last


def test_one_line_for_what_is_wrong(perco, folder, tmp_path):
    good = (folder, "-o", tmp_path / "o.csv", *QUICK)
    refused(perco("nowhere", *good[1:]), "no folder at nowhere; give a folder of photos, or one")
    for option, value, words in (
        ("--codecs", "gif", "got codec 'gif'"),
        ("--codecs", ",", "got nothing in --codecs"),
        ("--metrics", "beauty", "got metric 'beauty'"),
        ("--rates", "7", "got rate '7'"),
        ("--ladder", "much", "got 'much' in --ladder"),
        ("--resize", "big", "got resize rule 'big'"),
        ("--captions", tmp_path / "no.json", "no captions at"),
        ("--anchor", 2, "got anchor 2"),
        ("--rounds", -1, "got -1 rounds"),
    ):
        refused(perco(*good, option, value), words)
    refused(perco("coco30k", "--folder", folder, *good[1:]), "no list of names at")
    refused(perco(folder, "-o", tmp_path / "o.txt"), "expected a name ending in .csv")
    refused(perco(folder, "-o", tmp_path), "is a folder; name a file")
    refused(perco(folder, "-o", folder / "0.png" / "o.csv"), "cannot write")
    assert not list(tmp_path.glob("o*"))


def test_an_output_that_cannot_be_written_is_told_before_torch_is_loaded(folder):
    code = (
        "import sys; from perco_lite.cli.main import app\n"
        "try: app(['evaluate', 'nowhere', '-o', sys.argv[1]])\n"
        "except SystemExit as stop: sys.exit(stop.code + 100 * ('torch' in sys.modules))"
    )
    target = folder / "0.png" / "o.csv"
    done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: cannot write"), done.stderr


def test_photos_that_fail_make_the_exit_code_two(perco, folder, tmp_path):
    (folder / "bad.png").write_bytes(b"no photo")
    common = (folder, "-o", tmp_path / "o.csv", *QUICK, "--codecs", "jpeg", "--rates", "0.0019")
    code, out, err = perco(*common)
    assert code == 2 and len(read_table(tmp_path / "o.csv")) == 5
    assert "error: bad.png: " in err.splitlines()[-1] and "no image that Pillow knows" in err


def test_a_gpu_for_each_process(monkeypatch):
    """Where several processes share a machine, each loads the weights onto its own device."""
    asked = []
    monkeypatch.setattr(loading, "load_codec", lambda weights, device: asked.append(device))
    for several in (1, 8):
        state = SimpleNamespace(num_processes=several, device=torch.device("cuda:3"))
        monkeypatch.setattr("perco_lite.evaluation.evaluate.processes", lambda device, s=state: s)
        evaluate_cli._load(None, None, ["perco+steps=20"])
        evaluate_cli._load(None, "cpu", ["jpeg", "control-other-texture"])
        assert evaluate_cli._load(None, None, ["jpeg", "control-tiles"]) is None
    assert asked == [None, "cpu", "cuda:3", "cpu"]


class Colours(torch.nn.Module):
    """In the place of Inception: means and spreads of the channels, (B,3,H,W) -> (B,6)."""

    protocol = "colours"

    def forward(self, batch):
        pixels = batch.float().flatten(2)
        return torch.cat([pixels.mean(2), pixels.std(2)], 1)


def measure_shard(folder, output, weights):
    """Measure as one of the processes of a run, or as the only one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(realism, "load_inception", lambda resize: Colours())
        summary = evaluate(
            open_dataset(str(folder)),
            output,
            ("perco", "autoencoder", "webp"),
            ("psnr", "kid"),
            ("0.0019", "0.0313"),
            loading.load_codec(str(weights), "cpu"),
            decoding=Decoding(steps=2),
            batch=2,
            quiet=True,
            say=lambda line: None,
        )
    if int(os.environ.get("RANK", 0)) == 0:
        assert summary["photos"] == 5
        assert summary["processes"] == int(os.environ.get("WORLD_SIZE", 1))
    else:
        assert summary == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_make_the_table_of_one(folder, tiny_weights, tmp_path):
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:200])  # both go on without it
    measure_shard(folder, tmp_path / "1.csv", tiny_weights)
    run_two_processes(
        "import pathlib; from tests.cli.test_evaluate import measure_shard",
        "measure_shard(*map(pathlib.Path, sys.argv[1:]))",
        *(folder, tmp_path / "2.csv", tiny_weights),
    )
    tables, sets = [], []
    for output in (tmp_path / "1.csv", tmp_path / "2.csv"):
        tables.append(read_table(output, seconds=False))
        summary = json.loads(output.with_suffix(".json").read_text())
        assert [one["photo"] for one in summary["skipped"]] == ["2.png"]
        sets.append([result["kid"] for result in summary["results"]])
    assert sets[0] == sets[1] and len(sets[0]) == 5 and all("value" in kid for kid in sets[0])
    assert len(tables[0]) == 4 * 5 and tables[0] == tables[1]
    assert not list(tmp_path.glob(".*part*")) and not list(tmp_path.glob("*.sqlite"))


def test_a_line_break_in_a_name_stops_nobody(perco, folder, tmp_path):
    (folder / "0.png").rename(folder / "0\n.png")
    (folder / "gone.png").symlink_to("nowhere")
    code, out, err = perco(folder, "-o", tmp_path / "a.csv", "--codecs", "jpeg", *QUICK)
    assert code == 2 and "its name has a line break; rename it" in err and "gone.png" in err
    assert {row["photo"] for row in read_table(tmp_path / "a.csv")} == {f"{n}.png" for n in "1234"}


def test_controls_are_measured_and_judge_the_measures(perco, folder, tmp_path):
    common = (folder, "-o", tmp_path / "o.csv", *QUICK, "--photos", 3, "--rates", "0.0019")
    code, out, err = perco(*common, "--codecs", "perco-estimate", "--controls")
    assert code == 0, err
    codecs = {row["codec"] for row in read_table(tmp_path / "o.csv")}
    assert {"control-blur-1", "control-tiles", "control-other-texture"} < codecs
    (line,) = [line for line in out.splitlines() if line.startswith("controls: ")]
    assert line.startswith("controls: psnr: knows ")
    code, out, err = perco(*common, "--codecs", "perco-estimate", "--controls", "--json")
    assert code == 0 and json.loads(out)["controls"][0] == line.removeprefix("controls: ")
