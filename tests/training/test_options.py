"""Options of the training loop: optimizers, schedules, TensorBoard, timesteps, checkpointing."""

import sys
import types

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from conftest import build_tiny_codec
from perco_lite.captions import tokenize
from perco_lite.training.codec import CodecLoss
from perco_lite.training.loop import TrainingSettings, build_optimizer, learning_rate_factor
from tests.training.conftest import ToyStage, rows, run

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
    run(tmp_path, lr_schedule="constant", warmup_steps=4)
    rates = [float(row["lr"]) for row in rows(tmp_path)]
    assert rates == pytest.approx([0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05])
    settings = TrainingSettings(output="", steps=10, warmup_steps=0, lr_schedule="constant")
    assert learning_rate_factor(9, settings) == 1


@pytest.mark.parametrize("option", ["lr_schedule", "optimizer"])
def test_other_choices_are_explained(tmp_path, option):
    with pytest.raises(ValueError, match=f"{option} is 'sgd', expected one of"):
        run(tmp_path / "out", **{option: "sgd"})
    assert not (tmp_path / "out").exists()


# --- TensorBoard ---


def test_tensorboard_has_the_rows_of_the_log_once(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path, tensorboard=True, minutes=1e-7)

    def interrupt(step):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # steps 2 to 4 leave no checkpoint, and come again
        run(tmp_path, ToyStage(interrupt), tensorboard=True)
    run(tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = {event.step: event.value for event in events.Scalars("loss")}
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert losses == pytest.approx({int(r["step"]): float(r["loss"]) for r in rows(tmp_path)}, 1e-5)
    assert {"lr", "grad_norm", "twice"} <= set(events.Tags()["scalars"])


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"TensorBoard is not installed: pip install 'perco_lite"):
        run(tmp_path, tensorboard=True)


# --- the codec's objective ---


def batch(codec, count=256):
    return {
        "latents": torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(2)),
        "token_ids": tokenize(codec.tokenizer, ["a red barn"]).repeat(count, 1),
        "rate": torch.tensor(0),
    }


def test_timesteps_lie_on_the_samplers_grid():
    codec = build_tiny_codec()
    codec.scheduler.set_timesteps(50)
    drawn, _, _ = CodecLoss(codec, timesteps=50).draw(torch.zeros(2000, 4, 1, 1))
    assert set(drawn.tolist()) == set(codec.scheduler.timesteps.tolist())
    every, _, _ = CodecLoss(codec).draw(torch.zeros(2000, 4, 1, 1))
    assert every.min() < 5 and every.max() > 994 and len(set((every % 20).tolist())) == 20
    with pytest.raises(ValueError, match="timesteps is 30, expected a number that divides 1000"):
        CodecLoss(codec, timesteps=30)


def test_gradient_checkpointing_changes_no_gradient(monkeypatch):
    gradients, calls = [], []
    for checkpointing in (False, True):
        codec = build_tiny_codec()
        if checkpointing:
            codec.unet.enable_gradient_checkpointing()
        loss = CodecLoss(codec).train()
        monkeypatch.setattr(
            torch.utils.checkpoint,
            "checkpoint",
            lambda *args, **kwargs: calls.append(1) or checkpoint(*args, **kwargs),
        )
        torch.manual_seed(0)
        loss(**batch(codec, 4))["loss"].backward()
        assert bool(calls) is checkpointing
        gradients.append([p.grad for p in loss.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 50
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_photos_are_encoded_where_no_latents_are_given():
    codec = build_tiny_codec()
    loss = CodecLoss(codec).eval()
    photos = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = codec.autoencoder.encode(photos)
    results = []
    for given in (latents, photos):
        torch.manual_seed(1)
        results.append(loss(**{**batch(codec, 2), "latents": given})["loss"])
    torch.testing.assert_close(*results)
