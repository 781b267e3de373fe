"""How well the denoiser predicts a photo under one caption or another: its v-loss.

    latents, condition, noise at several levels: the same ─┬─► U-Net ──► mean square error a text
    texts ─────────────────────────────────────────────────┘

The v-loss is the objective itself and sees effects that no picture shows.

Paper: PerCo, Sec. 3.3 (the objective); it publishes none of its values.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perco_lite.captions import embed_captions
from perco_lite.codec import PercoCodec
from perco_lite.rates import RATES, get_rate
from perco_lite.unet import predict_velocity


@torch.no_grad()
def velocity_losses(
    codec: PercoCodec,
    latents: Tensor,
    condition: Tensor,
    texts: Sequence[str],
    rate: str,
    seed: int | torch.Generator,
    levels: Sequence[int] = range(199, 1000, 200),
) -> list[float]:
    """v-loss of one photo (1,4,h',w') under its condition (1,C,h',w'), for each of several texts.

    Mean over the noise ``levels``. Latents and noise (of ``seed``, or a CPU generator) are the same
    for all texts, so that differences between them have little variance.
    """
    if isinstance(seed, int):
        seed = torch.Generator().manual_seed(seed)
    timesteps = torch.tensor(levels)
    noise = torch.randn((len(levels), *latents.shape[1:]), generator=seed).to(latents)
    many, count = latents.expand_as(noise), len(texts) * len(levels)
    noisy = codec.scheduler.add_noise(many, noise, timesteps)
    target = codec.scheduler.get_velocity(many, noise, timesteps)
    velocity = predict_velocity(
        codec.unet,
        noisy.repeat(len(texts), 1, 1, 1),
        timesteps.repeat(len(texts)).to(latents.device),
        condition.expand(count, -1, -1, -1),
        embed_captions(codec.tokenizer, codec.text_encoder, list(texts)).repeat_interleave(
            len(levels), 0
        ),
        torch.full((count,), RATES.index(get_rate(rate)), device=latents.device),
    )
    errors = F.mse_loss(velocity, target.repeat(len(texts), 1, 1, 1), reduction="none")
    return errors.mean((1, 2, 3)).view(len(texts), -1).mean(1).tolist()
