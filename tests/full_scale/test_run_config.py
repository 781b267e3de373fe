"""Configs: the shipped ones fit the command, options win over a file, mistakes are named."""

import json
import warnings
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from perco_lite.cli.main import app
from perco_lite.full_scale import training as base_recipe
from perco_lite.full_scale.run_config import FOLDER, config_names, read_run_config
from perco_lite.training import autoencoder, codec, text_encoder
from perco_lite.training.settings import RENAMED
from perco_lite.training.shards import find_training_data

KNOWN = {p.name for p in get_command(app).commands["train"].commands["codec"].params}


@pytest.fixture
def run(monkeypatch):
    """Run `perco train codec`, and give the options that the recipe got."""
    got = {}

    def note(kind):
        return lambda **options: got.update(kind=kind, **options) or {}

    monkeypatch.setattr(base_recipe, "train_base_recipe", note("base"))
    monkeypatch.setattr(codec, "train_codec_recipe", note("lite"))

    def run(*arguments, code=0):
        got.clear()
        result = CliRunner().invoke(app, ["train", "codec", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return dict(got) if code == 0 else result.output

    return run


def write(tmp_path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["paper", "single-gpu", "t4"])
def test_shipped_configs_can_be_run(run, name):
    assert name in config_names() and len(config_names()) == 3
    options = run("--config", name, "--data", "photos")
    config = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert options["kind"] == "base" and options["base"] == "auto"
    assert config.keys() == read_run_config(name, KNOWN).keys()
    assert {key: options[key] for key in config} == config
    assert options["batch_size"] % options["accumulation"] == 0
    assert set(options) - {"kind"} == KNOWN - {"config", "help"} - {
        "autoencoder", "text", "start", "freeze_codes", "conditioner_warmup_steps",
        "residual",
    }  # fmt: skip


def test_the_paper_is_the_default_for_a_base_and_says_what_the_paper_says(run):
    options = run("--base", "some/model", "--steps", 7)
    expected = {"steps": 7, "batch_size": 160, "learning_rate": 1e-4, "warmup_steps": 10_000}
    expected |= {"weight_decay": 0.01, "text_dropout": 0.1, "timesteps": 50, "crop": 64}
    expected |= {"layers": "linear", "base": "some/model", "lr_schedule": "constant", "revive": 0.0}
    assert {key: options[key] for key in expected} == expected
    assert int(read_run_config("paper", KNOWN)["steps"]) == 281_250  # five epochs of nine million


@pytest.mark.parametrize("command", ["autoencoder", "text", "codec"])
def test_urls_of_shards_arrive_whole(monkeypatch, command):
    got = {}
    for module, name in ((autoencoder, "autoencoder"), (text_encoder, "text"), (codec, "codec")):
        name = f"train_{name}_recipe"
        monkeypatch.setattr(module, name, lambda **options: got.update(options) or {})
    url = "https://example.org/train-{000..009}.tar"
    assert CliRunner().invoke(app, ["train", command, "--data", url]).exit_code == 0
    assert got["data"] == url == find_training_data(url)


def test_without_a_base_nothing_has_changed(run):
    options = run()
    assert options["kind"] == "lite" and options["rates"] == "0.0019,0.0098,0.0313,0.1250"
    expected = {"steps": 4000, "conditioner_warmup_steps": 600, "batch_size": 16}
    expected |= {"learning_rate": 8e-4, "crop": 24}
    assert {key: options[key] for key in expected} == expected
    assert not {"layers", "captions", "base", "revive"} & set(options)


def test_options_win_over_the_file_wherever_they_stand(run, tmp_path):
    path = write(tmp_path, "steps: 5\nbatch-size: 6\nrates: ['0.0313', '0.1250']\ntensorboard: yes")
    for order in (("--steps", 9, "--config", path), ("--config", path, "--steps", 9)):
        options = run(*order)
        assert (options["steps"], options["batch_size"]) == (9, 6)
        assert options["rates"] == "0.0313,0.1250" and options["tensorboard"] is True
    for order in (("--base", "b", "--config", path), ("--config", path, "--base", "b")):
        options = run(*order)
        assert (options["kind"], options["steps"], options["batch_size"]) == ("base", 5, 6)
        assert options["learning_rate"] == 8e-4, "a file takes the place of the paper's recipe"


@pytest.mark.parametrize(
    "text, message",
    [
        ("batch-sze: 3", "unknown option 'batch-sze'; did you mean batch_size"),
        ("zzzzzz: 3", "unknown option 'zzzzzz'; known: accumulation"),
        ("config: t4", "unknown option 'config'"),
        ("steps: {a: 1}", "steps is {'a': '1'}, expected a number"),
        ("steps:", "steps is '', expected a number"),
        ("steps: yes", "Invalid value for '--steps'"),
        ("steps: 1:00", "Invalid value for '--steps'"),
        ("minutes: no", "Invalid value for '--minutes'"),
        ("batch_size: 0", "Invalid value for '--batch-size'"),
        ("x" * 999 + ": 1", "known: accumulation"),
        ("- steps", "expected lines of `option: value`"),
        ("steps: [", "is no YAML file"),
        ("steps: many", "Invalid value for '--steps'"),
        ("layers: lora", "--layers: only with --base"),
        ("base: auto\nalone: 5", "--conditioner-warmup-steps: not with --base"),
    ],
)
def test_mistakes_in_a_file_are_named(run, tmp_path, text, message):
    output = " ".join(run("--config", write(tmp_path, text), code=2).replace("│", " ").split())
    assert message in output
    assert "no config t5; give a YAML file, or one of paper, single-gpu, t4" in run(
        "--config", "t5", code=2
    )


def test_values_mean_what_is_written(run, tmp_path):
    """Not what YAML 1.1 makes of them: a boolean, another number, a date."""
    lines = {"mixed_precision": "no", "rates": "0.1250", "data": "0123", "output": "2026-11-28"}
    lines |= {"steps": "010", "tensorboard": "on", "gradient_checkpointing": "off"}
    options = run("--config", write(tmp_path, "\ufeff" + "\n".join(map(": ".join, lines.items()))))
    assert options["mixed_precision"] == "no" and options["rates"] == "0.1250"
    assert options["data"] == "0123" and options["output"] == Path("2026-11-28")
    assert options["steps"] == 10 and options["tensorboard"] is True
    assert options["gradient_checkpointing"] is False
    assert run("--config", write(tmp_path, "base: 2.10\nlayers: off"))["base"] == "2.10"
    assert run("--config", write(tmp_path, "rates: [0.0310, 0.1250]"))["rates"] == "0.0310,0.1250"


def test_old_names_of_options_are_taken_with_a_notice(run, tmp_path):
    """Until 0.3: on the command line, in both spellings, and in a YAML file."""
    assert RENAMED == {"alone": "conditioner_warmup_steps", "decay": "lr_schedule"}
    path = write(tmp_path, "alone: 5\ndecay: constant")
    for arguments in (("--alone", 5, "--decay=constant"), ("--config", path)):
        result = CliRunner().invoke(app, ["train", "codec", *map(str, arguments)])
        options = run(*arguments)
        assert (options["conditioner_warmup_steps"], options["lr_schedule"]) == (5, "constant")
        assert result.stderr.splitlines() == [
            "notice: --alone is called --conditioner-warmup-steps now; 0.3 drops the old name",
            "notice: --decay is called --lr-schedule now; 0.3 drops the old name",
        ]
    assert not CliRunner().invoke(app, ["train", "codec", "--lr-schedule", "constant"]).stderr


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 20.00 GB"),
        MemoryError("20.00"),
    ],
)
def test_too_little_memory_says_what_to_lower(monkeypatch, error):
    output = train(monkeypatch, error).output
    assert "raise --accumulation" in output and "--gradient-checkpointing" in output
    assert "20.00" not in output and output.strip().count("\n") == 0


@pytest.mark.parametrize("error", [KeyError("x" * 9999), ZeroDivisionError("a\nb"), OSError("c")])
def test_whatever_ends_a_training_is_told_in_one_bounded_line(monkeypatch, error):
    output = train(monkeypatch, error).output
    assert output.startswith("error: ") and output.count("\n") == 1 and len(output) < 1100
    assert type(error).__name__ in output or isinstance(error, OSError)


def test_warnings_are_lines_too_and_the_summary_is_printed(monkeypatch):
    result = train(monkeypatch, None)
    assert result.stderr.splitlines() == ["warning: a shard is broken"], result.output
    assert json.loads(result.stdout) == {"steps": 3}


def train(monkeypatch, error: Exception | None):
    """The command around a training that warns, or fails."""

    def recipe(**options):
        if error:
            raise error
        warnings.warn("a shard is broken", stacklevel=2)
        return {"steps": 3}

    monkeypatch.setattr(codec, "train_codec_recipe", recipe)
    result = CliRunner().invoke(app, ["train", "codec"])
    assert result.exit_code == (2 if error else 0)
    return result
