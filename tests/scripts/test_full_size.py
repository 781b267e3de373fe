"""The real sizes, tried at tiny ones: every stage, in order, and what is told of it."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from perco_lite.coding.bitstream import unpack
from perco_lite.full_scale import memory, training
from tests.training.conftest import fresh_accelerator  # noqa: F401


@pytest.fixture
def script(load_script):
    return load_script("full_size")


@pytest.fixture
def in_process(script, monkeypatch):
    """Stages run here, not each in a process of its own; their names so far."""
    ran = []

    def run(command):
        ran.append(command[command.index("--stage") + 1])
        return SimpleNamespace(returncode=script.main(command[2:]))

    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=run))
    return ran


def test_every_stage_at_tiny_sizes(script, in_process, tmp_path, capsys, load_script, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setattr(training, "preview_sheet", None)  # the script has one of its own
    assert script.main(["--sizes", "tiny", "-o", str(tmp_path), "--keep"]) == 0
    assert tuple(in_process) == script.STAGES
    report = json.loads((tmp_path / "report.json").read_text())
    assert tuple(report["stages"]) == script.STAGES and report["sizes"] == "tiny"
    for row in report["stages"].values():
        assert 0 < row["seconds"] <= row["whole_seconds"] and 0.05 < row["peak_gib"] < 64
    train = report["stages"]["train"]
    assert 0.05 < train["step_peak_gib"] <= train["peak_gib"]
    data = (tmp_path / "one.perco").read_bytes()
    assert report["stages"]["compress"]["bytes"] == len(data)
    assert unpack(data).caption == script.CAPTION and unpack(data).width == 768
    assert (
        report["stages"]["denoise"]["computed_gib"] < 1 > report["stages"]["train"]["computed_gib"]
    )
    assert (tmp_path / "train" / "weights" / "unet").is_dir(), "the real training saves"
    told = capsys.readouterr().out
    assert all(stage in told for stage in script.STAGES) and "computed" in told
    # again: nothing is run twice, and what is large goes
    assert script.main(["--sizes", "tiny", "-o", str(tmp_path)]) == 0
    assert tuple(in_process) == script.STAGES
    assert not (tmp_path / "sd").exists() and (tmp_path / "report.json").exists()
    text = load_script("full_scale_page").full_size_text(report)
    assert len(text.splitlines()) == 2 + len(script.STAGES) + 2 and "tiny sizes, float32" in text
    assert "when it saves |" in text.splitlines()[-3]


def test_a_stage_that_fails_is_named(script, tmp_path, capsys, monkeypatch):
    failed = subprocess.CompletedProcess([], -9)
    monkeypatch.setattr(script.subprocess, "run", lambda command: failed)
    assert script.main(["--sizes", "tiny", "-o", str(tmp_path)]) == 1
    assert "build failed (exit code -9)" in capsys.readouterr().err


def test_full_sizes_are_stable_diffusions(script):
    parts = memory.build_parts((script.RATE,), **script.sizes("full"))
    whole = sum(memory.count_parameters(part) for part in parts.values())
    assert 1.28e9 < whole < 1.32e9
    assert script.computed("full", "bfloat16") == pytest.approx(3.0, abs=0.1), "as the page has it"
