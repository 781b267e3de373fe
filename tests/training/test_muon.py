"""Muon: against PyTorch's own on matrices, AdamW on the rest, convolutions as matrices."""

import pytest
import torch
from torch import nn

from perco_lite.training.loop import TrainingSettings, build_optimizer
from perco_lite.training.muon import Muon, is_matrix, orthogonal
from tests.training.conftest import rows, run


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 64), (64, 200), (200, 64)])
def test_equal_to_pytorchs_step_by_step(shape):
    library = getattr(torch.optim, "Muon", None)
    if library is None:
        pytest.skip("PyTorch before 2.9 has no Muon")
    ours, theirs = (nn.Parameter(draw(*shape)) for _ in range(2))
    settings = {"lr": 0.02, "weight_decay": 0.03, "momentum": 0.9}
    one = Muon([ours], **settings)
    other = library([theirs], adjust_lr_fn="match_rms_adamw", **settings)
    for step in range(6):
        for parameter, optimizer in ((ours, one), (theirs, other)):
            parameter.grad = draw(*shape, seed=1 + step)
            optimizer.step()
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - draw(*shape)).abs().mean() > 0.01


def test_orthogonal_has_even_singular_values_and_the_same_directions():
    matrix = draw(60, 300) * torch.logspace(-1, 1, 60)[:, None]
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.6 and values.max() < 1.25
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ v
    cosine = (nearest * orthogonal(matrix)).sum() / nearest.norm() / orthogonal(matrix).norm()
    assert cosine > 0.97
    assert orthogonal(torch.zeros(50, 50)).abs().max() == 0


def test_a_convolution_steps_like_its_matrix():
    conv, matrix = nn.Parameter(draw(64, 10, 3, 3)), nn.Parameter(draw(64, 10, 3, 3).flatten(1))
    for parameter in (conv, matrix):
        optimizer = Muon([parameter], lr=0.01)
        parameter.grad = draw(64, 10, 3, 3, seed=1).view_as(parameter)
        optimizer.step()
    assert torch.equal(conv.flatten(1), matrix)
    laid = nn.Parameter(draw(64, 10, 3, 3).contiguous(memory_format=torch.channels_last))
    optimizer = Muon([laid], lr=0.01)
    laid.grad = draw(64, 10, 3, 3, seed=1).contiguous(memory_format=torch.channels_last)
    optimizer.step()
    assert torch.equal(laid, conv)


def test_the_rest_is_adamws():
    shapes = [(64, 64), (7,), (4, 64), (48, 5, 3, 3), (8, 48)]
    kinds = [is_matrix(torch.zeros(shape)) for shape in shapes]
    assert kinds == [True, False, False, False, False]
    ours, theirs = ([nn.Parameter(draw(*shape)) for shape in shapes] for _ in range(2))
    settings = {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
    one, other = Muon(ours, **settings), torch.optim.AdamW(theirs, **settings)
    for step in range(4):
        for parameters, optimizer in ((ours, one), (theirs, other)):
            for parameter in parameters:
                parameter.grad = draw(*parameter.shape, seed=step)
            optimizer.step()
    same = [torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)]
    assert same == [False, True, True, True, True]


def test_without_a_gradient_nothing_moves_and_a_closure_is_called():
    parameters = [nn.Parameter(draw(64, 64)), nn.Parameter(draw(3))]
    optimizer = Muon(parameters, lr=0.1)
    assert optimizer.step(lambda: 5.0) == 5.0
    assert torch.equal(parameters[0], draw(64, 64)) and torch.equal(parameters[1], draw(3))


def test_the_loop_builds_it_with_its_settings():
    settings = TrainingSettings("", optimizer="muon", learning_rate=0.3, weight_decay=0.2)
    optimizer = build_optimizer([nn.Parameter(draw(64, 64)), nn.Parameter(draw(3))], settings)
    assert isinstance(optimizer, Muon)
    assert [(g["lr"], g["weight_decay"], g["matrices"]) for g in optimizer.param_groups] == [
        (0.3, 0.2, False),
        (0.3, 0.2, True),
    ]


def test_a_cut_run_resumes_exactly(tmp_path):
    run(tmp_path / "whole", stage=MatrixStage(), optimizer="muon")
    run(tmp_path / "cut", stage=MatrixStage(), optimizer="muon", minutes=1e-7)
    assert len(rows(tmp_path / "cut")) < 6
    run(tmp_path / "cut", stage=MatrixStage(), optimizer="muon")
    losses = [[r["loss"] for r in rows(tmp_path / name)] for name in ("whole", "cut")]
    assert losses[0] == losses[1] and float(losses[0][-1]) < float(losses[0][0])


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(50, 50)

    def forward(self, x):
        return {"loss": (self.layer(x) - x).square().mean()}


class MatrixStage:
    """A linear layer that learns to repeat its input."""

    def __init__(self):
        self.module = Regression()

    def batch(self, step, count, generator, number):
        return {"x": torch.randn(count, 50, generator=generator)}

    def export(self, folder):
        folder.mkdir()

    def preview(self, path):
        pass
