"""The denoising loop and classifier-free guidance, in the open.

    noise (B,4,h',w') ──► for t = 999 … 0:  U-Net(latents, condition, caption)  ─┐
                           ▲                U-Net(latents, condition, "")        ├─ guidance
                           └── scheduler.step ◄──────────────────────────────────┘
    after the last step: latents (B,4,h',w')

Paper: PerCo, Sec. 4.1 and appendix A (DDIM; 20 steps, 5 from 0.05 bpp up; guidance on the text
only: both passes see the local condition).
Differs from the paper: an optional anchor (ours, after ILVR, Choi et al. 2021). A small model's
samples drift in colour over flat areas; the anchor holds their means over 32 pixels to those of the
estimate that the bits themselves imply, and leaves everything finer to the noise.

Taught in notebooks 08 and 09.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from operator import index

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from perco_lite.condition import coarse
from perco_lite.tiling import Tiling, map_tiles
from perco_lite.unet import predict_velocity, split_velocity


@dataclass(frozen=True)
class Step:
    """State after one step: its number from 0, its timestep, and the latents (B,4,h',w')."""

    number: int
    timestep: int
    latents: Tensor
    velocity: Tensor


def draw_noise(shape: tuple[int, ...], seeds: list[int | torch.Generator]) -> Tensor:
    """Noise (B,*shape), drawn on the CPU so that every device starts from the same numbers.

    Each item has its own seed (or CPU generator), so that a photo's result does not depend on the
    batch it is in.
    """
    kind = torch.Generator
    generators = [s if isinstance(s, kind) else kind().manual_seed(index(s)) for s in seeds]
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def guide(with_text: Tensor, without_text: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans, 2022): 1 is plain, more goes beyond."""
    return without_text + guidance_scale * (with_text - without_text)


def anchor_velocity(
    velocity: Tensor, noisy: Tensor, alpha_bar: Tensor, estimate: Tensor, anchor: float
) -> Tensor:
    """Change a velocity so that the clean latents it implies have the estimate's coarse means."""
    clean, _ = split_velocity(noisy, velocity, alpha_bar)
    correction = coarse(estimate - clean)
    # x0 = √ᾱ x − √(1−ᾱ) v, so that x0 moves by −√(1−ᾱ) times what v moves by
    return velocity - anchor * correction / (1 - alpha_bar).sqrt()


@torch.no_grad()
def denoise(
    unet: UNet2DConditionModel,
    scheduler,
    noise: Tensor,
    condition: Tensor,
    text_embeddings: Tensor,
    empty_embeddings: Tensor,
    rate_ids: Tensor,
    num_inference_steps: int = 20,
    guidance_scale: float = 1.0,
    estimate: Tensor | None = None,
    anchor: float = 0.0,
    tiling: Tiling | None = None,
) -> Iterator[Step]:
    """Yield the state after every step; the last one's ``latents`` are the result.

    Args:
        scheduler: any of diffusers' for v-prediction; a copy of it is used, so that calls at the
            same time do not disturb each other.
        noise: (B,4,h',w'), standard normal.
        condition: (B,C,h',w').
        text_embeddings: (B,T,channels) of the captions; ``empty_embeddings`` (1,T,channels) of "".
        rate_ids: (B,) int64.
    Raises:
        ValueError: fewer than 1 or more than 1000 steps.
    """
    # what the options change of predict(), one line each:
    #   guidance_scale ≠ 1   two U-Net passes instead of one: with the caption, and with ""
    #   estimate, anchor     means over 32 pixels pulled to the estimate's (B,4,h',w'), 0 … 1
    #   tiling               where it applies, the U-Net sees a tile at a time; all else is whole
    guided = guidance_scale != 1
    if guided:
        condition, rate_ids = torch.cat([condition] * 2), torch.cat([rate_ids] * 2)
        text_embeddings = torch.cat([text_embeddings, empty_embeddings.expand_as(text_embeddings)])

    def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
        def look(noisy: Tensor, condition: Tensor) -> Tensor:
            return predict_velocity(unet, noisy, timestep, condition, text_embeddings, rate_ids)

        inputs = torch.cat([noisy, noisy]) if guided else noisy
        velocity = map_tiles(tiling, look, inputs, condition)
        if guided:
            velocity = guide(*velocity.chunk(2), guidance_scale)
        if estimate is not None and anchor:
            alpha_bar = scheduler.alphas_cumprod[int(timestep)].to(noisy)
            velocity = anchor_velocity(velocity, noisy, alpha_bar, estimate, anchor)
        return velocity

    scheduler = copy.deepcopy(scheduler)
    latents = noise * start_schedule(scheduler, num_inference_steps, noise.device)
    # for some counts (61, 103, …) diffusers rounds "trailing" steps to one more, at timestep -1
    for number, timestep in enumerate(scheduler.timesteps[scheduler.timesteps >= 0]):
        noisy = scheduler.scale_model_input(latents, timestep)
        velocity = predict(noisy, timestep)
        latents = scheduler.step(velocity, timestep, latents).prev_sample
        yield Step(number, int(timestep), latents, velocity)


def start_schedule(scheduler, num_inference_steps: int, device) -> Tensor | float:
    """Set a scheduler's timesteps; returns the standard deviation its first noise must have."""
    longest = scheduler.config.num_train_timesteps
    if not 1 <= num_inference_steps <= longest:
        raise ValueError(
            f"num_inference_steps is {num_inference_steps}, expected 1 to {longest}; 20 is usual"
        )
    scheduler.set_timesteps(num_inference_steps, device=device)
    return scheduler.init_noise_sigma
