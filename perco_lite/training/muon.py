"""Muon: steps whose matrices push every direction equally hard; a third of AdamW's steps here.

    gradient ──► momentum ──► flattened to a matrix ──► nearest orthogonal matrix ──► step
    biases, embeddings and layers with few channels ──► AdamW

Paper: none; PerCo trains with AdamW. Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon),
with the step size of Liu et al. 2025 (arXiv 2502.16982), so that AdamW's learning rates serve.
Differs from torch.optim.Muon (PyTorch 2.9 and later): convolutions are taken too, as matrices with
a row for each output channel, and what Muon is not for goes to AdamW in the same optimizer.
"""

import torch
from torch import Tensor, nn

from perco_lite.training.settings import TrainingSettings

SMALLEST_SIDE = 48  # of a matrix that Muon takes: with fewer directions AdamW is as good
TOGETHER = 8  # matrices of one shape: small ones alone take twice as long and more on a CPU
# of the polynomial x ↦ ax + bx³ + cx⁵ that brings singular values in (0,1] close to 1 in five steps
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def build_optimizer(parameters: list[nn.Parameter], settings: TrainingSettings):
    """One of CHOICES; ImportError names the extra where 8-bit AdamW is not installed."""
    options = {"lr": settings.learning_rate, "betas": (0.9, 0.99)}
    options |= {"weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    if settings.optimizer == "muon":
        return Muon(parameters, **options)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ImportError(
            "8-bit AdamW needs bitsandbytes: pip install 'perco_lite[train]', or train with "
            "--optimizer adamw, which takes six bytes more per trained weight"
        ) from error
    return AdamW8bit(parameters, **options)


class Muon(torch.optim.AdamW):
    """Muon for large matrices and convolutions, AdamW with ``betas`` for everything else.

    ``lr`` and ``weight_decay`` (decoupled, as in AdamW) are those of both; ``momentum`` is Muon's.
    """

    def __init__(
        self,
        params: list[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        momentum: float = 0.95,
    ):
        params = list(params)
        groups = [
            {"params": [p for p in params if not is_matrix(p)], "matrices": False},
            {"params": [p for p in params if is_matrix(p)], "matrices": True},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay)
        for group in self.param_groups:
            group["momentum"] = momentum

    @torch.no_grad()
    def step(self, closure=None):
        """One step of every parameter that has a gradient; ``closure`` as in any optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        try:  # AdamW's own step, over its own groups
            self.param_groups = [group for group in groups if not group["matrices"]]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            alike: dict[torch.Size, list] = {}
            for parameter in group["params"] if group["matrices"] else []:
                if parameter.grad is not None:
                    ahead = self._average(parameter, group["momentum"])
                    alike.setdefault(ahead.shape, []).append((parameter, ahead))
            for some in alike.values():
                for first in range(0, len(some), TOGETHER):
                    _step_matrices(some[first : first + TOGETHER], group)
        return loss

    def _average(self, parameter: Tensor, momentum: float) -> Tensor:
        """Nesterov: where the average will be after one more gradient like this one; a matrix."""
        state = self.state[parameter]
        if not state:
            state["average"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # AdamW looks for it when it is loaded
        state["average"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["average"], momentum).flatten(1)


def _step_matrices(some: list[tuple[Tensor, Tensor]], group: dict) -> None:
    steps = orthogonal(torch.stack([ahead for _, ahead in some]))
    # entries of an orthogonal matrix are the smaller the longer its sides; AdamW's steps have
    # entries of about 0.2, whatever the shape
    size = 0.2 * max(steps.shape[1:]) ** 0.5
    for (parameter, _), step in zip(some, steps, strict=True):
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(step.view_as(parameter), alpha=-group["lr"] * size)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon takes a parameter: ``SMALLEST_SIDE`` rows and columns or more when flattened."""
    return parameter.ndim > 1 and min(len(parameter), parameter[0].numel()) >= SMALLEST_SIDE


def orthogonal(
    matrix: Tensor, ns_steps: int = 5, ns_coefficients: tuple = NS_COEFFICIENTS
) -> Tensor:
    """Roughly the orthogonal matrix nearest to each (…,m,n): singular values of 0.7 to 1.2.

    By Newton-Schulz steps, products of matrices only, in bfloat16: which way to go is enough.
    """
    a, b, c = ns_coefficients
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.bfloat16().reshape(-1, *matrix.shape[-2:])
    x = x.mT.contiguous() if tall else x  # products of the shorter side
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    for _ in range(ns_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).reshape(matrix.shape).to(matrix.dtype)
