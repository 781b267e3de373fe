"""Closed-loop encoding: choose indices by what they decode to, not by the nearest code alone.

    latents ──► hyper-encoder ──► indices ──► condition decoder ──► estimate of the latents
       ▲                                                                 │
       └── plus what the estimate's local means miss ◄───────────────────┘   every fourth index, in
                                                                             turn

A convolution gives equal features wherever a wall or a sky is equal, so that all its indices err in
the same way: the wall's colour is off. Here neighbours make up for each other, as dots of ink do.
And where an index prior codes them, a bit has a price: of two codes about as near, the likelier one
is sent (rate-distortion optimised quantization; Chou, Lookabaugh & Gray, 1989).

The decoder needs not know: the file's format is the same.

Paper: none; PerCo takes the nearest code. Video coders call it closed-loop coding, halftoning
calls it error diffusion (Floyd & Steinberg, 1976).

Taught in notebooks 06 and 13.
"""

import math
from dataclasses import fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from perco_lite.coding.index_prior import WEIGHT_BITS, IndexPrior, grid_contexts
from perco_lite.condition import LocalConditioner, coarse
from perco_lite.rates import RatePoint, get_rate
from perco_lite.vector_quantizer import VECTORS_AT_ONCE, Price, turns

CELL = 3  # latents: colours must be right over 24×24 pixels
# of a bit, in cosine similarity, by stride; set so that Kodak's files have at most 90, 365, 1,115
# and 4,440 bytes in the mean
BIT_PRICES = {64: 0.02, 32: 0.025, 16: 0.033, 8: 0.056}
PAID_WEIGHT = 6.0  # of the price paid around an index, against the mean error; tried from 0 to 12
MEANS_WEIGHT = 4.0  # of the local mean's squared error, against that of the latents themselves


@torch.no_grad()
def refine(
    conditioner: LocalConditioner,
    latents: Tensor,
    rate: str,
    rounds: int | None = None,
    price: Price | None = None,
) -> Tensor:
    """Indices (B,h,w) of latents (B,4,h',w'), improved in a number of ``rounds``; 0 = nearest code.

    ``rounds``: None = ``default_rounds``. ``price``: of each code (``bit_price``); none = no code
    costs more than another.

    A change is kept only where it brings the estimate closer to the latents, in itself and in its
    local means, and is worth the bits it costs more; the photo's sum of both never rises. A round
    costs one pass of the hyper-encoder and two of the condition decoder. Weights without one (see
    ``LocalConditioner.estimate``) keep the nearest codes.
    Raises ValueError for a negative number of rounds or a rate that is not served.
    """
    rounds = default_rounds(rate) if rounds is None else rounds
    if rounds < 0:
        raise ValueError(f"got {rounds} rounds, expected 0 (nearest code) or more")
    indices = conditioner.encode(latents, rate, price)
    if not rounds:
        return indices
    estimate = conditioner.estimate(conditioner.decode(indices, rate))
    if estimate is None:  # nothing to close the loop with, as in the paper
        return indices
    h, w = indices.shape[-2:]
    error = local_error(latents - estimate, (h, w))
    weight = PAID_WEIGHT * error.mean((1, 2), keepdim=True)
    error = error + weight * paid(indices, price)
    phases = 2 if rounds < 4 else 4
    turn = turns(h, w, phases).to(latents.device)
    for number in range(rounds):
        # neighbours must not all answer the same call: they would overshoot together
        pushed = conditioner.encode(latents + coarse(latents - estimate, CELL), rate, price)
        tried = torch.where(turn == number % phases, pushed, indices)
        difference = latents - conditioner.estimate(conditioner.decode(tried, rate))
        tried_error = local_error(difference, (h, w)) + weight * paid(tried, price)
        better = tried_error < error
        kept = torch.where(better, tried, indices)
        kept_estimate = conditioner.estimate(conditioner.decode(kept, rate))
        kept_error = local_error(latents - kept_estimate, (h, w)) + weight * paid(kept, price)
        # kept and dropped changes meet at their borders; together they may not be an improvement
        improved = (kept_error.mean((1, 2)) < error.mean((1, 2))).view(-1, 1, 1)
        indices = torch.where(improved, kept, indices)
        estimate = torch.where(improved[..., None], kept_estimate, estimate)
        error = torch.where(improved, kept_error, error)
    return indices


def bit_price(
    prior: IndexPrior | None, rate: RatePoint, weight: float | None = None
) -> Price | None:
    """Price of a code where ``prior`` codes it: its bits, times ``weight`` of similarity a bit.

    ``weight``: None = ``BIT_PRICES``. None, for no price, without a prior or with a weight of 0.
    What an index does to the price of those after it is not counted.
    Raises ValueError for a weight that is negative or not finite.
    """
    weight = BIT_PRICES[rate.stride] if weight is None else weight
    if not 0 <= weight < math.inf:
        raise ValueError(f"got {weight} for a bit, expected 0 (no price) or more; 0.02 is usual")
    if prior is None or not weight:
        return None

    def price(indices: Tensor, places: Tensor) -> Tensor:
        size, chosen = prior.codebook_size, places.cpu().numpy()
        contexts = [grid_contexts(grid, size)[chosen] for grid in indices.cpu().numpy()]
        bits = code_bits(prior, np.concatenate(contexts)).view(len(contexts), -1, size)
        return weight * bits.to(indices.device)

    return price


def paid(indices: Tensor, price: Price | None) -> Tensor:
    """What indices (B,h,w) cost around each of them, in units of similarity, (B,h,w)."""
    if price is None:
        return torch.zeros(indices.shape, device=indices.device)
    places = torch.arange(indices[0].numel(), device=indices.device)
    codes = indices.flatten(1)
    costs = [
        price(indices, some).gather(2, codes[:, some, None])[..., 0]
        for some in places.split(max(1, VECTORS_AT_ONCE // len(indices)))
    ]
    return around(torch.cat(costs, 1).view(indices.shape))


def around(values: Tensor) -> Tensor:
    """Means over each index and its neighbours, (B,h,w) -> same."""
    return F.avg_pool2d(values[:, None], 3, 1, 1, count_include_pad=False)[:, 0]


def code_bits(prior: IndexPrior, contexts: np.ndarray) -> Tensor:
    """What each code would cost at places with ``grid_contexts`` (n,7): (n,K) float32, bits.

    For choosing; what a file costs is decided in whole numbers, by ``IndexPrior.walk``.
    """
    weights = (
        torch.from_numpy(getattr(prior, field.name)).float() / (1 << WEIGHT_BITS)
        for field in fields(prior)
    )
    in_nats = math.log(2) * prior_logits(torch.from_numpy(contexts), *weights)
    return -in_nats.log_softmax(dim=1) / math.log(2)


def prior_logits(
    contexts: Tensor,
    tables: Tensor,
    bands: Tensor,
    hidden: Tensor,
    hidden_bias: Tensor,
    out: Tensor,
    out_bias: Tensor,
    more: Tensor | None = None,
) -> Tensor:
    """The network of ``IndexPrior`` in floats: contexts (n,7) -> logits (n,K), weights as there.

    ``more`` (n,D) is added inside.
    """
    inside = bands[contexts[:, -1]]
    for table, codes in zip(tables, contexts.T[:-1], strict=True):
        inside = inside + table[codes]
    inside = F.relu(inside if more is None else inside + more)
    inside = inside + F.relu(inside @ hidden + hidden_bias)
    return inside @ out + out_bias


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
    return around(per_index[:, 0])
