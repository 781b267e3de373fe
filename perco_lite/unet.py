"""Denoiser: the local condition as extra input channels, the caption by cross-attention.

    noisy latents (B,4,h',w') ─┐
    condition (B,C,h',w') ─────┴─ concat ──► (2×2 patches) ──► U-Net ──► velocity (B,4,h',w')
                                   timestep, rate (class) ──►  │  ◄── text_embeddings (B,T,C)

Paper: PerCo, Sec. 3.2 (concatenation, cross-attention); v-prediction (Salimans & Ho, 2022).
Differs from the paper: 10 M parameters trained from nothing, working on patches of 2×2 latents (as
diffusion transformers do), which takes the costliest level of the U-Net away; one U-Net for all
rates, told the rate by a class embedding (the paper trains one model per rate); the caption also
joins the time embedding (as in SDXL); zero-terminal SNR
(Lin et al., 2023), without which a sampler that starts from pure noise cannot paint black or white.
Weights may be such that the U-Net adds to the best linear denoiser around the bits' estimate
(``linear_velocity``) and need not repeat it.

Taught in notebook 08.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from perco_lite.captions import embed_captions
from perco_lite.rates import RATES, get_rate


def build_unet(
    condition_channels: int,
    text_channels: int,
    latent_channels: int = 4,
    patch: int = 2,
    widths: tuple[int, ...] = (128, 192),
    layers_per_block: int = 1,
    heads: int = 6,
    norm_groups: int = 16,
) -> UNet2DConditionModel:
    """The lite denoiser: attention only at the coarsest of its levels, where it is cheap.

    ``patch`` is the side in latents of what the U-Net sees as one position; 1 as in the paper.
    """
    plain = len(widths) - 1
    unet = UNet2DConditionModel(
        sample_size=None,
        in_channels=patch**2 * (latent_channels + condition_channels),
        out_channels=patch**2 * latent_channels,
        block_out_channels=widths,
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * plain,
        cross_attention_dim=text_channels,
        attention_head_dim=heads,  # diffusers' name for the number of heads
        norm_num_groups=norm_groups,
        num_class_embeds=len(RATES),
        # the caption's gist also joins the time embedding, which every block sees: cross-attention
        # alone, at one level of a small network, learned to ignore the caption
        addition_embed_type="text",
        addition_embed_type_num_heads=heads,
    )
    torch.nn.init.zeros_(unet.add_embedding.norm2.weight)  # silent at first
    return unet


def start_silent(unet: UNet2DConditionModel) -> None:
    """Let a U-Net say nothing at first, in place, where it adds to ``linear_velocity``."""
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction and zero-terminal SNR."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",  # so that sampling starts at the step where SNR is zero
        clip_sample=False,
        set_alpha_to_one=True,
    )


def predict_velocity(
    unet: UNet2DConditionModel,
    noisy_latents: Tensor,
    timestep: Tensor | int,
    condition: Tensor,
    text_embeddings: Tensor,
    rate_ids: Tensor,
) -> Tensor:
    """One U-Net pass.

    Args:
        noisy_latents: (B,4,h',w').
        timestep: (B,) or one number in 0..999.
        condition: (B,C,h',w'), the local condition.
        text_embeddings: (B,T,channels), the global condition.
        rate_ids: (B,) int64, positions in ``RATES``.
    Returns:
        velocity (B,4,h',w').
    Raises:
        ValueError: condition and latents differ in size.
    """
    if condition.shape[-2:] != noisy_latents.shape[-2:]:
        raise ValueError(
            f"condition is {tuple(condition.shape[-2:])}, latents are "
            f"{tuple(noisy_latents.shape[-2:])}, expected the same height and width; decode the "
            "indices of the same photo at the same rate"
        )
    height, width = noisy_latents.shape[-2:]
    # the patch follows from the channels, so that a U-Net loaded from disk needs no extra setting
    patch = math.isqrt(unet.config.out_channels // noisy_latents.shape[1])
    both = torch.cat([noisy_latents, condition], dim=1)
    both = F.pad(both, (0, -width % patch, 0, -height % patch), mode="replicate")
    velocity = unet(
        F.pixel_unshuffle(both, patch),
        timestep,
        encoder_hidden_states=text_embeddings,
        class_labels=rate_ids,
    ).sample
    return F.pixel_shuffle(velocity, patch)[..., :height, :width]


@torch.no_grad()
def velocity_losses(
    codec,
    latents: Tensor,
    condition: Tensor,
    texts: Sequence[str],
    rate: str,
    seed: int | torch.Generator,
    levels: Sequence[int] = range(199, 1000, 200),
) -> list[float]:
    """How well a ``PercoCodec`` predicts one photo under each of several captions: its v-loss.

    The objective itself, which sees effects that no picture shows. Latents (1,4,h',w'), condition
    (1,C,h',w'). Mean over the noise ``levels``; the noise (of ``seed``, or a CPU generator) is the
    same for all texts, so that differences between them have little variance.
    """
    if isinstance(seed, int):
        seed = torch.Generator().manual_seed(seed)
    unet, count, timesteps = codec.unet, len(levels), torch.tensor(levels)
    prior = codec.conditioner.prior(condition, [rate])
    alpha_bar = codec.scheduler.alphas_cumprod[timesteps].to(latents)
    noise = torch.randn((count, *latents.shape[1:]), generator=seed).to(latents)
    many = latents.expand_as(noise)
    noisy = codec.scheduler.add_noise(many, noise, timesteps)
    target = codec.scheduler.get_velocity(many, noise, timesteps)
    rates = torch.full((count,), RATES.index(get_rate(rate)), device=latents.device)
    losses = []
    for text in embed_captions(codec.tokenizer, codec.text_encoder, list(texts)):
        text, same = text.expand(count, -1, -1), condition.expand(count, -1, -1, -1)
        velocity = predict_velocity(unet, noisy, timesteps.to(noisy.device), same, text, rates)
        velocity = add_linear(velocity, noisy, alpha_bar, *prior)
        losses.append(F.mse_loss(velocity, target).item())
    return losses


def linear_velocity(noisy: Tensor, alpha_bar: Tensor, estimate: Tensor, variance: Tensor) -> Tensor:
    """Velocity (B,4,h',w') of the best linear denoiser around an estimate of the clean latents.

    If these are the estimate (B,4,h',w') plus independent errors of a ``variance`` (B,), the best
    guess of them is the estimate, and the more of ``noisy - √ᾱ estimate`` the less noise there is.
    What a U-Net adds to it is all that it has to learn: the estimate need not pass through it, and
    a small one answers better. After the preconditioning of Karras et al. (2022), whose estimate
    is zero. ``alpha_bar``: () or (B,).
    """
    alpha_bar, variance = alpha_bar.reshape(-1, 1, 1, 1), variance.reshape(-1, 1, 1, 1)
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    away = (noisy - alpha * estimate) / (alpha_bar * variance + 1 - alpha_bar)
    clean, noise = estimate + alpha * variance * away, sigma * away
    return alpha * noise - sigma * clean


def add_linear(
    velocity: Tensor,
    noisy: Tensor,
    alpha_bar: Tensor,
    estimate: Tensor | None,
    variance: Tensor | None,
) -> Tensor:
    """A U-Net's output plus ``linear_velocity``; alone for weights that have no ``variance``."""
    if variance is None:
        return velocity
    return velocity + linear_velocity(noisy, alpha_bar, estimate, variance)


def split_velocity(noisy: Tensor, velocity: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Clean latents and noise of a velocity: x0 = √ᾱ x − √(1−ᾱ) v, ε = √ᾱ v + √(1−ᾱ) x."""
    alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    return alpha * noisy - sigma * velocity, alpha * velocity + sigma * noisy
