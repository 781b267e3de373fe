"""The training loop, on a toy stage: resume, schedule, checkpoints, EMA, faults, two processes."""

import json
import math
import os
import shutil
import sys
import types
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from conftest import run_two_processes
from perco_lite import __version__
from perco_lite.training.loop import (
    TrainingSettings,
    build_optimizer,
    learning_rate_factor,
    step_seed,
)
from tests.training.conftest import ToyStage, rows, run


def losses(output) -> list[tuple]:
    return [(r["step"], r["loss"], r["twice"], r["lr"], r["grad_norm"]) for r in rows(output)]


def weights(output, file="weights/toy.safetensors") -> dict:
    return load_file(output / file)


def assert_same(one: dict, other: dict):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


# --- resume ---


def test_slices_of_time_repeat_the_uninterrupted_run(tmp_path):
    whole = run(tmp_path / "whole")
    done = []
    while not done or done[-1]["steps"] < 8:
        done.append(run(tmp_path / "slices", minutes=1e-7))  # over after one step
    assert [summary["steps"] for summary in done] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert losses(tmp_path / "slices") == losses(tmp_path / "whole")
    for file in ("weights/toy.safetensors", "checkpoint/model.safetensors"):
        assert_same(weights(tmp_path / "slices", file), weights(tmp_path / "whole", file))
    assert done[-1]["samples"] == whole["samples"] == 32
    assert done[-1]["seconds"] >= done[0]["seconds"]


def test_steps_after_the_last_checkpoint_are_repeated_once(tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "cut", minutes=1e-7)

    def interrupt(step):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", ToyStage(interrupt))
    assert [row["step"] for row in rows(tmp_path / "cut")] == list("12345")
    stage = ToyStage()
    run(tmp_path / "cut", stage)
    assert len(stage.seen) == 7  # steps 2 to 8
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_run_killed_before_its_first_step_can_start_again(tmp_path):
    (tmp_path / "log.csv").touch()
    run(tmp_path, steps=2)
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2"]


def test_a_finished_run_is_left_as_it_is(tmp_path):
    run(tmp_path)
    before = weights(tmp_path)
    stage = ToyStage()
    assert run(tmp_path, stage)["steps"] == 8
    assert not stage.seen and len(rows(tmp_path)) == 8
    assert_same(weights(tmp_path), before)
    assert_same(stage.module.state_dict(), weights(tmp_path, "checkpoint/model.safetensors"))


def test_seed_and_step_decide_what_is_drawn(tmp_path):
    run(tmp_path / "a", steps=2)
    run(tmp_path / "b", steps=2, seed=1)
    assert losses(tmp_path / "a")[0] != losses(tmp_path / "b")[0]
    seeds = {step_seed(s, step, p) for s in range(3) for step in range(200) for p in range(4)}
    assert len(seeds) == 3 * 200 * 4


def test_a_checkpoint_of_0_1_0_resumes_or_says_what_to_do(tmp_path):
    """Its counter did not say who wrote it."""
    run(tmp_path, minutes=1e-7)
    counter = tmp_path / "checkpoint" / "custom_checkpoint_1.pkl"
    state = torch.load(counter, weights_only=True)
    assert state.pop("version") == __version__
    torch.save(state, counter)
    assert run(tmp_path, minutes=1e-7)["steps"] == 2
    torch.save(state, counter)
    stage = ToyStage()
    stage.module.idle = torch.nn.Linear(3, 2)  # as another release, or another option, has it
    with pytest.raises(ValueError, match=r"checkpoint does not fit .*idle.*perco_lite==0\.1\.0"):
        run(tmp_path, stage)


# --- schedule and learning ---


def test_learning_rate_by_hand(tmp_path):
    settings = TrainingSettings(output="", steps=110, warmup_steps=10)
    expected = {0: 0.1, 4: 0.5, 9: 1, 10: 1, 35: (1 + math.sqrt(0.5)) / 2, 60: 0.5, 110: 0, 999: 0}
    for step, factor in expected.items():
        assert learning_rate_factor(step, settings) == pytest.approx(factor, abs=1e-9), step
    no_warmup = TrainingSettings(output="", steps=10, warmup_steps=0)
    assert [learning_rate_factor(s, no_warmup) for s in (0, 5)] == pytest.approx([1, 0.5])

    run(tmp_path, steps=6, minutes=1e-7)
    run(tmp_path, steps=6)  # a slice does not change the schedule
    rates = [float(row["lr"]) for row in rows(tmp_path)]
    cosine = [0.5 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert rates == pytest.approx([0.025, 0.05, *(0.05 * c for c in cosine)], rel=1e-4)


def test_loss_falls_and_the_summary_tells(tmp_path):
    summary = run(tmp_path, steps=120, batch_size=16)
    values = [float(row["loss"]) for row in rows(tmp_path)]
    assert sum(values[-10:]) < 0.1 * sum(values[:10])
    assert all(
        float(r["twice"]) == pytest.approx(2 * float(r["loss"]), rel=1e-4) for r in rows(tmp_path)
    )
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["samples"] == 120 * 16 and summary["settings"]["learning_rate"] == 0.05
    assert "cpu" in summary["device"] or "cuda" in summary["device"]


def test_weights_not_in_use_stay(tmp_path):
    stage = ToyStage()
    before = stage.module.idle.weight.clone()
    stage.module.idle.requires_grad_(False)
    run(tmp_path, stage, steps=3)
    assert torch.equal(stage.module.idle.weight, before)
    assert torch.equal(weights(tmp_path)["idle.weight"], before)


def test_ema_is_what_is_exported(tmp_path):
    stage = ToyStage()
    run(tmp_path, stage, ema_decay=0.6)
    live = stage.module.layer.weight.detach()
    expected = None
    for number, after in enumerate([*stage.seen[1:], live], start=1):
        decay = min(0.6, 1 - number**-0.75)  # the warm-up forgets the random start
        expected = after if expected is None else decay * expected + (1 - decay) * after
    exported = weights(tmp_path)["layer.weight"]
    torch.testing.assert_close(exported, expected)
    assert not torch.allclose(exported, live)
    assert torch.equal(weights(tmp_path, "checkpoint/model.safetensors")["layer.weight"], live)


# --- what is on disk ---


def test_nothing_unfinished_is_left(tmp_path):
    run(tmp_path, checkpoint_minutes=1e-9)  # replaces everything after every step
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"checkpoint", "weights", "log.csv", "preview.png", "summary.json"}
    assert (tmp_path / "preview.png").stat().st_size == 12


def test_checkpoints_and_previews_do_not_change_what_is_learned(tmp_path):
    run(tmp_path / "often", checkpoint_minutes=1e-9)
    run(tmp_path / "once")
    assert losses(tmp_path / "often") == losses(tmp_path / "once")
    assert_same(weights(tmp_path / "often"), weights(tmp_path / "once"))


def test_an_export_that_fails_leaves_the_last_one(tmp_path):
    run(tmp_path, minutes=1e-7)
    before = weights(tmp_path)

    class Broken(ToyStage):
        def export(self, folder):
            folder.mkdir(parents=True)
            (folder / "toy.safetensors").write_bytes(b"half a fi")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        run(tmp_path, Broken())
    assert_same(weights(tmp_path), before)


class Killed(BaseException):
    """As a process that is killed: nothing is tidied up behind it."""


class HalfSaved(ToyStage):
    def export(self, folder):
        folder.mkdir(parents=True)
        (folder / "toy.safetensors").write_bytes(b"half a fi")
        raise Killed


def kill_at(monkeypatch, number: int) -> list:
    """Raise ``Killed`` before the ``number``-th rename or removal, or half through saving."""
    seen, save_state = [], Accelerator.save_state

    def counted(action):
        def act(*given, **options):
            seen.append(action)
            if len(seen) == number:
                raise Killed
            return action(*given, **options)

        return act

    def half(self, folder):
        seen.append(save_state)
        save_state(self, folder)
        if len(seen) == number:
            (Path(folder) / "custom_checkpoint_1.pkl").unlink()
            (Path(folder) / "optimizer.bin").write_bytes(b"half")
            raise Killed

    monkeypatch.setattr(Path, "rename", counted(Path.rename))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    monkeypatch.setattr(Accelerator, "save_state", half)
    return seen


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_run_that_is_killed_anywhere_while_it_saves_goes_on(tmp_path, first, last):
    """At its first checkpoint, a later one, the last one: at most that slice is repeated."""
    whole, steps = tmp_path / "whole", 2 if last else 4
    if first and last:
        steps = 1
    run(whole, steps=steps)
    for number in range(1, 20):
        cut = tmp_path / str(number)
        if not first:
            run(cut, steps=steps, minutes=1e-7)
        with pytest.MonkeyPatch.context() as patch:
            seen = kill_at(patch, number)
            with suppress(Killed):
                run(cut, steps=steps, minutes=1e-7)
        if len(seen) < number:
            break
        stage = ToyStage()
        run(cut, stage, steps=steps)
        assert first or len(stage.seen) < steps, "it began anew"
        assert losses(cut) == losses(whole), number
        assert_same(weights(cut), weights(whole))
        names = {path.name for path in cut.iterdir()}
        assert names == {"checkpoint", "weights", "log.csv", "preview.png", "summary.json"}
    assert number > 7


def test_weights_that_were_half_written_come_again(tmp_path):
    run(tmp_path / "whole", steps=2)
    with pytest.raises(Killed):
        run(tmp_path / "cut", HalfSaved(), steps=2)
    stage = ToyStage()
    run(tmp_path / "cut", stage, steps=2)
    assert not stage.seen
    assert_same(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin", "custom_checkpoint_1.pkl"])
def test_a_checkpoint_with_a_cut_file_leaves_the_one_before_it_in_use(tmp_path, file, size):
    run(tmp_path / "whole")
    for _ in range(3):
        run(tmp_path / "cut", minutes=1e-7)
    os.truncate(tmp_path / "cut" / "checkpoint" / file, size)
    stage = ToyStage()
    with pytest.warns(UserWarning, match=r"checkpoint does not fit .*; going on from") as caught:
        run(tmp_path / "cut", stage)
    assert len(stage.seen) == 6 and losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(str(caught[0].message)) < 800 and "\n" not in str(caught[0].message)
    os.truncate(tmp_path / "cut" / "checkpoint" / file, size)
    with pytest.raises(ValueError, match="checkpoint does not fit .*it is damaged"):
        run(tmp_path / "cut", steps=9)  # none is left: better an error than to begin anew


NO_SPACE = OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [
        NO_SPACE,
        SafetensorError("I/O error"),
        RuntimeError("enforce fail at inline_container"),
        None,
    ],
)
def test_a_full_disk_at_a_checkpoint_leaves_the_one_before_it_in_use(tmp_path, monkeypatch, error):
    run(tmp_path / "whole")
    run(tmp_path / "full", minutes=1e-7)

    def save_state(self, folder):
        Path(folder).mkdir()
        (Path(folder) / "model.safetensors").touch()
        if error:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr(Accelerator, "save_state", save_state)
        with pytest.raises(OSError, match="cannot write .*checkpoint .*make room and run again"):
            run(tmp_path / "full", minutes=1e-7)
    assert not (tmp_path / "full" / "checkpoint.new").exists()
    stage = ToyStage()
    run(tmp_path / "full", stage)
    assert len(stage.seen) == 7 and losses(tmp_path / "full") == losses(tmp_path / "whole")


def test_changed_options_are_named_with_both_values(tmp_path):
    run(tmp_path, minutes=1e-7)
    with pytest.warns(UserWarning, match=r"step 1 .*: --learning-rate was 0.05, is 0.01; to begin"):
        run(tmp_path, minutes=1e-7, learning_rate=0.01)
    stage = ToyStage()
    stage.module.idle = torch.nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"does not fit .*--data was None, is xxx.*-o$") as caught:
        run(tmp_path, stage, minutes=1e-7, learning_rate=0.01, data="x" * 9999)
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_log_that_was_cut_is_mended(tmp_path):
    run(tmp_path, minutes=1e-7)
    with (tmp_path / "log.csv").open("a") as file:
        file.write("1,0.")
    run(tmp_path)
    assert [row["step"] for row in rows(tmp_path)] == list("12345678")


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(tmp_path):
    run(tmp_path / "whole")
    run(tmp_path / "bad", minutes=1e-7)
    before = weights(tmp_path / "bad", "checkpoint/model.safetensors")
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 4; lower the learning rate"):
        run(tmp_path / "bad", ToyStage(poison=3), checkpoint_minutes=60)
    assert_same(weights(tmp_path / "bad", "checkpoint/model.safetensors"), before)
    run(tmp_path / "bad")
    assert losses(tmp_path / "bad") == losses(tmp_path / "whole")


# --- optimizers and schedules ---


def test_eight_bit_adam_is_the_librarys(monkeypatch, tmp_path):
    made = []

    class AdamW8bit(torch.optim.AdamW):
        def __init__(self, parameters, **options):
            made.append(options)
            super().__init__(parameters, **options)

    for name, module in {
        "bitsandbytes": types.ModuleType("bitsandbytes"),
        "bitsandbytes.optim": types.SimpleNamespace(AdamW8bit=AdamW8bit),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    run(tmp_path / "small", optimizer="adamw8bit")
    run(tmp_path / "usual")
    assert made[0]["weight_decay"] == 0.01 and made[0]["lr"] == 0.05
    assert [r["loss"] for r in rows(tmp_path / "small")] == [
        r["loss"] for r in rows(tmp_path / "usual")
    ]


def test_eight_bit_adam_that_is_not_installed_is_named(monkeypatch):
    for name in ("bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    settings = TrainingSettings(output="", optimizer="adamw8bit")
    with pytest.raises(ImportError, match=r"needs bitsandbytes: pip install 'perco_lite\[train\]'"):
        build_optimizer([nn.Parameter(torch.zeros(3))], settings)


def test_the_librarys_own_eight_bit_adam_learns_and_resumes(tmp_path):
    pytest.importorskip("bitsandbytes", minversion="0.49")  # older ones need a GPU
    weight = nn.Parameter(torch.ones(8192))
    settings = TrainingSettings(output="", optimizer="adamw8bit", learning_rate=0.01)
    optimizer = build_optimizer([weight], settings)
    for _ in range(20):
        weight.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert weight.abs().max() < 0.9
    assert optimizer.state[weight]["state1"].dtype == torch.uint8
    run(tmp_path / "whole", optimizer="adamw8bit")
    run(tmp_path / "cut", optimizer="adamw8bit", minutes=1e-7)
    run(tmp_path / "cut", optimizer="adamw8bit")
    losses = [[r["loss"] for r in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_a_constant_learning_rate_after_the_warm_up(tmp_path):
    run(tmp_path, lr_schedule="constant", warmup_steps=4, steps=6)
    rates = [float(row["lr"]) for row in rows(tmp_path)]
    assert rates == pytest.approx([0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05])
    settings = TrainingSettings(output="", steps=10, warmup_steps=0, lr_schedule="constant")
    assert learning_rate_factor(9, settings) == 1


@pytest.mark.parametrize("option", ["lr_schedule", "optimizer", "mixed_precision"])
def test_other_choices_are_explained(tmp_path, option):
    with pytest.raises(ValueError, match=f"{option} is 'sgd', expected one of"):
        run(tmp_path / "out", **{option: "sgd"})
    assert not (tmp_path / "out").exists()


# --- TensorBoard ---


def test_tensorboard_has_the_rows_of_the_log_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = {"tensorboard": True, "steps": 6}
    run(tmp_path, **told, minutes=1e-7)

    def interrupt(step):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # steps 2 to 4 leave no checkpoint, and come again
        run(tmp_path, ToyStage(interrupt), **told)
    run(tmp_path, **told)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = {event.step: event.value for event in events.Scalars("loss")}
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert losses == pytest.approx({int(r["step"]): float(r["loss"]) for r in rows(tmp_path)}, 1e-5)
    assert {"lr", "grad_norm", "twice"} <= set(events.Tags()["scalars"])


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"TensorBoard is not installed: pip install 'perco_lite"):
        run(tmp_path, tensorboard=True)


# --- several processes ---

TRAIN_IN_TWO = """
if rank:  # by this clock no checkpoint is due, by the other's one at every step
    clock = time.monotonic
    time.monotonic = lambda: clock() / 1000
stage = ToyStage()
summary = run(sys.argv[1], stage, checkpoint_minutes=1e-4)
told = {"weight": stage.module.layer.weight.tolist(), "drawn": len(stage.drawn), **summary}
pathlib.Path(sys.argv[1], f"rank{rank}.json").write_text(json.dumps(told))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would share one GPU")
def test_two_processes_train_one_model(tmp_path):
    """`idle` has no part in the loss, as the U-Net has none in the first steps of stage 2."""
    imports = "import json, pathlib, time; from tests.training.conftest import ToyStage, run"
    run_two_processes(imports, TRAIN_IN_TWO, tmp_path)
    one, other = (json.loads((tmp_path / f"rank{i}.json").read_text()) for i in range(2))
    assert one["weight"] == other["weight"]
    assert one["processes"] == 2 and one["samples"] == 32
    assert one["drawn"] == other["drawn"] == 2  # of a batch of four
    assert [row["step"] for row in rows(tmp_path)] == list("12345678")
    trained = weights(tmp_path, "checkpoint/model.safetensors")
    found = [value.tolist() for name, value in trained.items() if name.endswith("layer.weight")]
    assert found == [one["weight"]]
