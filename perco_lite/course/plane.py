"""A world of pictures of two pixels: notebook 07 builds it, notebook 10 paints it in one step.

    which of eight places? ──draw_world──► pictures (N,2), and a bit (N,1): is it an upper one?
    Painter.fit: predicts the velocity at 1,000 noise levels, those of the real codec
        .follow: DDIM in many steps     .few: the codec's own few steps     score: how good are they

Paper: nothing on this; its loss and its schedule, on two pixels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perco_lite.sampling import few_steps, spread_steps
from perco_lite.unet import build_scheduler, split_velocity

ANGLES = math.pi / 8 + math.pi / 4 * torch.arange(8)
CENTRES = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)  # of the eight clouds (8,2)
WIDTH = 96  # of all layers


class Score(NamedTuple):
    """``error``: mean squared distance; ``real``: share in the right clouds; of 8 ``visited``."""

    error: float
    real: float
    visited: int

    def __str__(self) -> str:
        return f"error {self.error:.2f}, real {self.real:4.0%}, clouds visited {self.visited} of 8"


def draw_world(count: int) -> tuple[Tensor, Tensor]:
    """Pictures (count,2) of this world, and the bit (count,1) that is sent of each."""
    which = torch.randint(8, (count,))
    return CENTRES[which] + 0.05 * torch.randn(count, 2), (which < 4).float()[:, None]


def network(inputs: int, outputs: int) -> nn.Sequential:
    """Three hidden layers, some twenty thousand weights."""
    sizes = [inputs, WIDTH, WIDTH, WIDTH]
    pairs = zip(sizes, sizes[1:], strict=False)
    layers = [layer for a, b in pairs for layer in (nn.Linear(a, b), nn.SiLU())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, outputs))


def waves(x: Tensor) -> Tensor:
    """(N,C) to (N,5C): a small network sees fine differences only if they are made large."""
    return torch.cat([x, *(wave(k * x) for k in (2, 5) for wave in (torch.sin, torch.cos))], dim=1)


class Painter(nn.Module):
    """A diffusion model of this world; untrained until ``fit``."""

    def __init__(self):
        super().__init__()
        self.layers = network(5 * 3 + 1, 2)
        self.alphas = build_scheduler().alphas_cumprod

    def velocity(self, noisy: Tensor, timestep: Tensor | int, bit: Tensor) -> Tensor:
        """What it answers to noisy pictures (N,2) of a ``timestep``, one or (N,)."""
        share = torch.as_tensor(timestep / 999).expand(len(noisy)).view(-1, 1)
        return self.layers(torch.cat([waves(torch.cat([noisy, share], dim=1)), bit], dim=1))

    def guess(self, noisy: Tensor, timestep: int, bit: Tensor) -> Tensor:
        """The clean pictures (N,2) that it believes in."""
        velocity = self.velocity(noisy, timestep, bit)
        return split_velocity(noisy, velocity, self.alphas[timestep])[0]

    def fit(self, steps: int, batch: int = 256, learning_rate: float = 4e-3) -> "Painter":
        """Train by squared error of the velocity; some 500 steps a second on one core."""
        optimizer = torch.optim.Adam(self.parameters(), lr=learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            clean, bit = draw_world(batch)
            noise, t = torch.randn_like(clean), torch.randint(0, 1000, (batch,))
            alpha, sigma = self.alphas[t, None].sqrt(), (1 - self.alphas[t, None]).sqrt()
            velocity = self.velocity(alpha * clean + sigma * noise, t, bit)
            optimizer.zero_grad()
            F.mse_loss(velocity, alpha * noise - sigma * clean).backward()
            optimizer.step()
            decay.step()
        return self

    @torch.no_grad()
    def follow(self, noise: Tensor, bit: Tensor, steps: int = 20) -> Tensor:
        """Where the DDIM path of each noise (N,2) ends: pictures (N,2)."""
        times, x = spread_steps(steps), noise
        for now, after in zip(times, [*times[1:], None], strict=True):
            level = self.alphas[now]
            lower = torch.tensor(1.0) if after is None else self.alphas[after]
            clean = self.guess(x, now, bit)
            noise = (x - level.sqrt() * clean) / (1 - level).sqrt()
            x = lower.sqrt() * clean + (1 - lower).sqrt() * noise
        return x

    def few(self, noise: Tensor, bit: Tensor, times: Sequence[int]) -> Tensor:
        """Pictures (N,2) guessed, noised again and guessed anew; noise (N,len(times),2)."""
        steps = few_steps(lambda x, t: self.velocity(x, t, bit), noise, times, self.alphas)
        return list(steps)[-1].latents


def score(painted: Tensor, clean: Tensor, bit: Tensor) -> Score:
    """How pictures (N,2), painted for the bits (N,1) of ``clean`` ones, are to be judged.

    Real is what lies within 0.2 of a cloud of the half that the bit names; visited is a cloud with
    more than one picture in fifty.
    """
    away = torch.cdist(painted, CENTRES)
    nearest = away.argmin(dim=1)
    real = (away.amin(dim=1) < 0.2) & ((nearest < 4) == (bit[:, 0] == 1))
    counts = torch.bincount(nearest[real], minlength=8)
    error = (painted - clean).square().sum(dim=1).mean().item()
    return Score(error, real.float().mean().item(), int((counts > 0.02 * len(painted)).sum()))
