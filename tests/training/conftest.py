"""What the tests of training/ share: a toy stage, photos of waves, a fresh accelerator."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from perco_lite.training.loop import TrainingSettings, train


class ToyLoss(nn.Module):
    """Learn the sum of three numbers through noise, drawn as the stages draw theirs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.idle = nn.Linear(3, 1), nn.Linear(3, 1)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += self.training
        target = x.sum(1, keepdim=True) + 0.1 * torch.randn(len(x), 1, device=x.device)
        loss = (self.layer(x) - target).square().mean()
        return {"loss": loss, "twice": 2 * loss.detach()}


class ToyStage:
    """``fault(step)`` is called before every batch and may raise."""

    def __init__(self, fault=lambda step: None, poison=None):
        self.module, self.fault, self.poison = ToyLoss(), fault, poison
        self.seen, self.drawn = [], None  # the live weights before each step, the last batch

    def batch(self, step, count, generator, number):
        self.fault(step)
        self.seen.append(self.module.layer.weight.detach().clone())
        x = torch.randn(count, 3, generator=generator)
        self.drawn = x
        return {"x": x * math.nan if step == self.poison else x}

    def export(self, folder: Path):
        assert not self.module.training
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.module.state_dict(), folder / "toy.safetensors")

    def preview(self, path: Path):
        path.write_bytes(torch.rand(3).numpy().tobytes())  # draws, as decoding a photo may


@pytest.fixture(autouse=True)
def fresh_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)  # else one precision for all tests


def waves(width: int, height: int, seed: int) -> Image.Image:
    """A photo of sorts: coloured waves."""
    random = np.random.default_rng(seed)
    down, right = np.mgrid[0:height, 0:width]
    waves = [np.sin(down * a + right * b + c) for a, b, c in random.uniform(0, 0.3, (3, 3))]
    return Image.fromarray(((np.stack(waves, -1) + 1) * 127).astype(np.uint8))


def run(output, stage=None, **changes):
    settings = {"steps": 8, "batch_size": 4, "warmup_steps": 2, "learning_rate": 0.05, **changes}
    return train(stage or ToyStage(), TrainingSettings(output=str(output), **settings))


def rows(output) -> list[dict]:
    """log.csv, without the seconds, which no two runs share."""
    with (output / "log.csv").open(newline="") as file:
        return [{n: v for n, v in row.items() if n != "seconds"} for row in csv.DictReader(file)]
