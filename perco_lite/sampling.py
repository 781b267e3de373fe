"""The denoising loop and classifier-free guidance, in the open; and its short form, few steps.

    noise (B,4,h',w') ──► for t = 999 … 0:  U-Net(latents, condition, caption)  ─┐
                           ▲                U-Net(latents, condition, "")        ├─ guidance
                           └── scheduler.step ◄──────────────────────────────────┘
    after the last step: latents (B,4,h',w')

Few steps, for a U-Net trained to paint clean latents at once (``training.few_steps``): after each
guess new noise is added, less every time. Multistep consistency sampling (Song et al., 2023,
algorithm 1).

Paper: PerCo, Sec. 4.1 and appendix A (DDIM; 20 steps, 5 from 0.05 bpp up; guidance on the text
only: both passes see the local condition). It has no few steps.
Differs from the paper: an optional anchor (ours, after ILVR, Choi et al. 2021). A small model's
samples drift in colour over flat areas; the anchor holds their means over 32 pixels to those of the
estimate that the bits themselves imply, and leaves everything finer to the noise.

Taught in notebooks 08 and 09.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import index

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from perco_lite.captions import embed_captions
from perco_lite.condition import coarse
from perco_lite.rates import RATES, get_rate
from perco_lite.tiling import Tiling, map_tiles
from perco_lite.unet import add_linear, predict_velocity, split_velocity

DEFAULT_STEPS = 20  # of the paper's loop
DEFAULT_ANCHOR = 1.0  # of the loop; 0 = off, as in the paper


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
    num_inference_steps: int | Sequence[int] = DEFAULT_STEPS,
    guidance_scale: float = 1.0,
    estimate: Tensor | None = None,
    anchor: float = 0.0,
    tiling: Tiling | None = None,
    variance: Tensor | None = None,
) -> Iterator[Step]:
    """Yield the state after every step; the last one's ``latents`` are the result.

    Args:
        scheduler: any of diffusers' for v-prediction; a copy of it is used, so that calls at the
            same time do not disturb each other.
        noise: (B,4,h',w'), standard normal; for few steps (B,N,4,h',w'), one for each of them.
        num_inference_steps: a number, or the timesteps of few steps, falling.
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
    #   variance             of the estimate's errors (B,): the U-Net adds to what it says
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
            velocity = guide(*velocity.chunk(2), guidance_scale)  # type: ignore[call-arg]
        alpha_bar = scheduler.alphas_cumprod[int(timestep)].to(noisy)
        velocity = add_linear(velocity, noisy, alpha_bar, estimate, variance)
        if estimate is not None and anchor:
            velocity = anchor_velocity(velocity, noisy, alpha_bar, estimate, anchor)
        return velocity

    if isinstance(num_inference_steps, int):
        scheduler = copy.deepcopy(scheduler)
        yield from many_steps(predict, noise, num_inference_steps, scheduler)
    else:
        yield from few_steps(predict, noise, num_inference_steps, scheduler.alphas_cumprod)


def many_steps(
    predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, count: int, scheduler
) -> Iterator[Step]:
    """The paper's loop: a little less noise at each step; noise (B,4,h',w').

    ``predict(noisy, timestep)`` gives the velocity (B,4,h',w'); the ``scheduler`` is changed.
    """
    latents = noise * start_schedule(scheduler, count, noise.device)
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


def few_steps(
    predict: Callable[[Tensor, int], Tensor],
    noise: Tensor,
    timesteps: Sequence[int],
    alphas_cumprod: Tensor,
) -> Iterator[Step]:
    """Clean latents guessed, noised again and guessed anew at each timestep; noise (B,N,4,h',w').

    ``predict(noisy, timestep)`` gives the velocity (B,4,h',w').
    """
    clean = torch.zeros_like(noise[:, 0])
    for number, timestep in enumerate(timesteps):
        alpha_bar = alphas_cumprod[timestep].to(noise)
        noisy = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise[:, number]
        velocity = predict(noisy, timestep)
        clean, _ = split_velocity(noisy, velocity, alpha_bar)
        yield Step(number, timestep, clean, velocity)


def choose_steps(
    own: Mapping[str, Sequence[int]] | None,
    rate: str,
    steps: int | None = None,
    sampler: str | None = None,
) -> int | tuple[int, ...]:
    """How a rate is painted: the timesteps of few steps, or the number of the paper's loop.

    Args:
        own: timesteps by rate that the weights were made for; None or nothing where they were not.
        steps: how many; None = what the weights were made for, else ``DEFAULT_STEPS``.
        sampler: "fast", "paper", or None = fast where the weights were made for that many steps.
    Raises:
        ValueError: no step, another sampler, or "fast" with weights that have none.
    """
    made = tuple((own or {}).get(rate, ()))
    if steps is not None and steps < 1:
        raise ValueError(f"num_inference_steps is {steps}, expected 1 to 1000; 20 is usual")
    if sampler not in (None, "fast", "paper"):
        raise ValueError(f"got sampler {sampler!r:.60}, expected fast, paper or None")
    if sampler == "fast" and not made:
        raise ValueError(
            f"these weights were not trained to paint {rate} in few steps; take sampler='paper' "
            "(--sampler paper)"
        )
    if not made or sampler == "paper" or (sampler is None and (steps or 1) > len(made)):
        return DEFAULT_STEPS if steps is None else steps
    return made[:steps] if steps is None or steps <= len(made) else tuple(spread_steps(steps))


def spread_steps(count: int, longest: int = 1000) -> list[int]:
    """Timesteps of ``count`` few steps: evenly from the last one, pure noise, down."""
    return [round(longest * (count - i) / count) - 1 for i in range(count)]


def paint_latents(
    codec,
    condition: Tensor,
    captions: Sequence[str],
    rates: Sequence[str],
    seeds: list[int | torch.Generator],
    steps: int | tuple[int, ...],
    guidance_scale: float | None = None,
    anchor: float | None = None,
    temperature: float | None = None,
) -> Tensor:
    """Latents (B,4,h',w') that a ``PercoCodec`` paints from conditions (B,C,h',w') and captions.

    ``steps``: a number, or few steps' timesteps. None: what suits these weights and steps.
    """
    count = steps if isinstance(steps, int) else len(steps)
    fast = not isinstance(steps, int)
    if not isinstance(steps, int):  # here, and not where they are chosen: that is asked of twice
        made = min(len(codec.config.few_steps[rate]) for rate in rates)
        if len(steps) > made:
            warnings.warn(
                f"{len(steps)} fast steps are more than the {made} that these weights were made "
                f"for at {rates[0]}; sampler='paper' is made for more",
                stacklevel=2,
            )
    if anchor is None:  # few steps are trained with neither
        anchor = 0.0 if fast else DEFAULT_ANCHOR
    if temperature is None:
        temperature = 1.0 if fast else codec.config.temperature
    guidance_scale = codec.config.guidance_scale if guidance_scale is None else guidance_scale
    condition = condition.to(codec._execution_device, codec.unet.dtype)
    shape = codec.autoencoder.config.latent_channels, *condition.shape[-2:]
    noise = temperature * draw_noise((count, *shape) if fast else shape, seeds)
    embeddings = embed_captions(codec.tokenizer, codec.text_encoder, [*captions, ""])
    rate_ids = [RATES.index(get_rate(name)) for name in rates]
    numbers = torch.tensor(rate_ids, device=condition.device)
    inputs = noise.to(condition), condition, embeddings[:-1], embeddings[-1:], numbers
    estimate, variance = codec.conditioner.prior(condition, rates)
    options = steps, guidance_scale, estimate, anchor, codec.tiling, variance
    with codec.progress_bar(total=count) as bar:
        for step in denoise(codec.unet, codec.scheduler, *inputs, *options):
            latents = step.latents
            bar.update()
    return latents
