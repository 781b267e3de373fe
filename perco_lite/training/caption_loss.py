"""The caption's turn in stage 3: the v-loss with a photo's own caption, and with another's.

    noised latents ─┬─ own caption ─────► v-loss ─┬─► to be small
                    └─ another photo's ─► v-loss ─┴─► to be larger by a margin

Beside a grid of 96 codes a caption says so little that the v-loss alone leaves it unheard: the
embeddings of all captions become equal. What the second term asks for cannot be had by a network
that does not read. Both are computed on the same noise, so that their difference has little
variance; the margin keeps the network from painting another's caption badly for its own sake.

Paper: none; PerCo's text encoder is CLIP's, trained by others on 400 million captions. A hinge
between a right and a wrong caption is that of Reed et al., 2016, there in a discriminator.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from perco_lite.captions import embed
from perco_lite.rates import RatePoint
from perco_lite.training.codec import CodecLoss

MARGIN = 0.01  # of v-loss; a tenth of that is what captions gave in stage 2
HEARD = 0.3  # weight of ``unheard``; at 1, another's caption got worse, and one's own hardly better


def caption_loss(
    diffusion: CodecLoss, latents: Tensor, token_ids: Tensor, condition: Tensor, rate: RatePoint
) -> dict[str, Tensor]:
    """``velocity``, the v-loss of latents (B,4,s,s) with their captions' token ids (B,T), and
    ``unheard``: by how much another's caption is less than the margin worse.

    Another's is that of the photo before in the batch, so there must be two; ValueError if not.
    """
    if len(latents) < 2:
        raise ValueError(f"got {len(latents)} photo, expected at least 2 to compare captions")
    timestep, noise, _ = diffusion.draw(latents)
    noisy = diffusion.scheduler.add_noise(latents, noise, timestep)
    target = diffusion.scheduler.get_velocity(latents, noise, timestep)
    text = embed(diffusion.text_encoder, token_ids)
    twice = [torch.cat([one, one]) for one in (noisy, timestep, condition)]
    velocity = diffusion.predict(*twice, torch.cat([text, text.roll(1, 0)]), rate)
    own, other = (F.mse_loss(one, target) for one in velocity.float().chunk(2))
    return {"velocity": own, "unheard": F.relu(MARGIN + own - other)}
