"""Two processes (gloo, CPU) learn what one learns from the doubled batch: losses and codebooks."""

import os
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from conftest import build_tiny_codec, run_two_processes
from perco_lite.training.codec import CodecLoss, CodecStage
from perco_lite.training.latents import LatentStore
from perco_lite.training.loop import TrainingSettings, step_seed, train
from tests.training.conftest import rows

SEED = 3
TOLERANCE = 2e-4  # relative: sums over ranks are added up in another order


class HalvesLoss(CodecLoss):
    """One process that draws for its batch what two draw for their halves."""

    def forward(self, latents, token_ids, rate, step):
        self.step = step
        return super().forward(latents, token_ids, rate, step)

    def draw(self, latents):
        draws = []
        for part, half in enumerate(latents.chunk(2)):
            torch.manual_seed(step_seed(SEED, self.step, part))
            draws.append(super().draw(half))
        return tuple(map(torch.cat, zip(*draws, strict=True)))


class Halves(CodecStage):
    def batch(self, step, count, generator, number=0):
        halves = [
            super(Halves, self).batch(
                step, count // 2, torch.Generator().manual_seed(step_seed(SEED, step, part))
            )
            for part in range(2)
        ]
        both = {name: torch.cat([h[name] for h in halves]) for name in ("latents", "token_ids")}
        return {**both, "rate": halves[0]["rate"], "step": step}


def make_stage(loss=CodecLoss, stage=CodecStage) -> CodecStage:
    """Codes start at random and none is revived: both would be drawn from rank 0's vectors."""
    codec = build_tiny_codec()
    for branch in codec.conditioner.branches.values():
        branch.quantizer.initialised.fill_(True)
    random = torch.Generator().manual_seed(1)
    latents = [torch.randn(4, 12, 16, generator=random).half() for _ in range(5)]
    store = LatentStore(latents, list(range(5)), torch.ones(5))
    captions = [["a red barn"], ["two dogs", "a green field"], [], ["a wave"], ["food"]]
    objective = loss(codec, revive=0.0, conditioner_warmup_steps=1)
    return stage(codec, objective, store, captions, crop=8)


def run(output, stage=None, **changes) -> dict:
    settings = {"steps": 5, "batch_size": 8, "warmup_steps": 2, "learning_rate": 2e-3}
    settings |= {"seed": SEED, **changes}
    return train(stage or make_stage(), TrainingSettings(output=str(output), **settings))


def losses(output) -> torch.Tensor:
    names = ("loss", "regression", "coarse", "velocity", "grad_norm")
    return torch.tensor([[float(row[n]) for n in names] for row in rows(Path(output))])


def learned(output) -> dict[str, torch.Tensor]:
    weights = load_file(Path(output) / "checkpoint" / "model.safetensors")
    return {name.removeprefix("module."): value for name, value in weights.items()}


def assert_same_training(one, other):
    torch.testing.assert_close(losses(one), losses(other), rtol=TOLERANCE, atol=TOLERANCE)
    start = make_stage().module.state_dict()
    ours, theirs = learned(one), learned(other)
    books = [name for name in ours if name.endswith(("codebook", "cluster_size", "vector_sum"))]
    assert len(books) == 12 and ours.keys() == theirs.keys()
    for name in books:
        assert (ours[name] - start[name]).abs().max() > 0.01, f"{name} did not move"
        torch.testing.assert_close(ours[name], theirs[name], rtol=TOLERANCE, atol=TOLERANCE)
    for name in ours:  # Adam divides by the size of a gradient, noise too
        torch.testing.assert_close(ours[name], theirs[name], rtol=0.01, atol=2e-3)


@pytest.fixture(scope="module")
def doubled(tmp_path_factory):
    """One process, batch 8."""
    output = tmp_path_factory.mktemp("doubled")
    run(output, make_stage(HalvesLoss, Halves))
    AcceleratorState._reset_state(reset_partial_state=True)
    return output


def test_two_passes_learn_what_the_doubled_batch_does(doubled, tmp_path):
    run(tmp_path, accumulation=2)
    assert_same_training(tmp_path, doubled)


def test_one_pass_less_learns_something_else(doubled, tmp_path):
    run(tmp_path, batch_size=4, steps=2)
    assert not torch.allclose(losses(tmp_path), losses(doubled)[:2], rtol=0.01)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would share one GPU")
def test_two_processes_learn_what_the_doubled_batch_does(doubled, tmp_path):
    run_two_processes(
        "from tests.training.test_distributed import run",
        'assert run(sys.argv[1])["processes"] == 2',
        tmp_path,
    )
    assert_same_training(tmp_path, doubled)


def test_a_batch_that_does_not_divide_is_explained(tmp_path):
    with pytest.raises(ValueError, match="batch_size 8 does not divide over 1 processes with acc"):
        run(tmp_path, accumulation=3)
