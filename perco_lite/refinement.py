"""Closed-loop encoding: choose indices by what they decode to, not by the nearest code alone.

    latents ──► hyper-encoder ──► indices ──► condition decoder ──► estimate of the latents
       ▲                                                                 │
       └── plus what the estimate's local means miss ◄───────────────────┘   every fourth index, in
                                                                             turn

A convolution gives equal features wherever a wall or a sky is equal, so that all its indices err in
the same way: the wall's colour is off. Here neighbours make up for each other, as dots of ink do.
The decoder needs not know: the file's format is the same. So is its size with the uniform code; an
index prior may foresee these indices a little better or worse than nearest codes.

Paper: none; PerCo takes the nearest code. Video coders call it closed-loop coding, halftoning
calls it error diffusion (Floyd & Steinberg, 1976).

Taught in notebook 13.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from perco_lite.condition import LocalConditioner, coarse
from perco_lite.rates import get_rate

CELL = 3  # latents: colours must be right over 24×24 pixels
MEANS_WEIGHT = 4.0  # of the local mean's squared error, against that of the latents themselves


@torch.no_grad()
def refine(conditioner: LocalConditioner, latents: Tensor, rate: str, rounds: int) -> Tensor:
    """Indices (B,h,w) of latents (B,4,h',w'), improved in a number of ``rounds``; 0 = nearest code.

    A change is kept only where it brings the estimate closer to the latents, in itself and in its
    local means; the whole photo's error never rises. A round costs one pass of the hyper-encoder
    and two of the condition decoder. Weights without one (see ``LocalConditioner.estimate``) keep
    the nearest codes.
    Raises ValueError for a negative number of rounds or a rate that is not served.
    """
    if rounds < 0:
        raise ValueError(f"got {rounds} rounds, expected 0 (nearest code) or more")
    indices = conditioner.encode(latents, rate)
    if not rounds:
        return indices
    estimate = conditioner.estimate(conditioner.decode(indices, rate))
    if estimate is None:  # nothing to close the loop with, as in the paper
        return indices
    error = local_error(latents - estimate, indices.shape[-2:])
    phases = 2 if rounds < 4 else 4
    h, w = indices.shape[-2:]
    turns = _turns(h, w, phases).to(latents.device)
    for number in range(rounds):
        # neighbours must not all answer the same call: they would overshoot together
        pushed = conditioner.encode(latents + coarse(latents - estimate, CELL), rate)
        tried = torch.where(turns == number % phases, pushed, indices)
        difference = latents - conditioner.estimate(conditioner.decode(tried, rate))
        better = local_error(difference, indices.shape[-2:]) < error
        kept = torch.where(better, tried, indices)
        kept_estimate = conditioner.estimate(conditioner.decode(kept, rate))
        kept_error = local_error(latents - kept_estimate, indices.shape[-2:])
        # kept and dropped changes meet at their borders; together they may not be an improvement
        improved = (kept_error.mean((1, 2)) < error.mean((1, 2))).view(-1, 1, 1)
        indices = torch.where(improved, kept, indices)
        estimate = torch.where(improved[..., None], kept_estimate, estimate)
        error = torch.where(improved, kept_error, error)
    return indices


def default_rounds(rate: str) -> int:
    """Rounds that a 768×512 photo has time for in half a second; four let every index move.

    At the finest grid a round is dearest and needed least.
    """
    return 2 if get_rate(rate).stride == 8 else 4


def local_error(difference: Tensor, grid: tuple[int, int]) -> Tensor:
    """Squared error around each index, local means included: (B,C,h',w') -> (B,h,w)."""
    window = 2 * CELL - 1
    means = F.avg_pool2d(difference, window, 1, CELL - 1, count_include_pad=False)
    squares = (difference**2 + MEANS_WEIGHT * means**2).mean(1, keepdim=True)
    per_index = F.avg_pool2d(squares, difference.shape[-1] // grid[1])
    return F.avg_pool2d(per_index, 3, 1, 1, count_include_pad=False)[:, 0]


def _turns(h: int, w: int, phases: int) -> Tensor:
    """Which of 2 or 4 turns each index has: a checkerboard, or its colours split once more."""
    i, j = torch.arange(h)[:, None], torch.arange(w)
    checkerboard = (i + j) % 2
    return checkerboard if phases == 2 else 2 * checkerboard + i % 2
