"""A small diffusion model that obeys: notebook 08 builds it, notebook 09 guides it.

    bits (B,1,4,4) say where, a word (B,) says which colour, noise decides the stripes' direction
    draw_world ──► pictures (B,3,8,8) in [-1,1] ──Toy.fit──► Toy.paint ──► read_back, direction

The U-Net, the schedule and the denoising loop are those of the real codec.

Paper: Sec. 3.2 and 3.3, in miniature.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perco_lite.sampling import denoise, draw_noise
from perco_lite.unet import build_scheduler, build_unet, predict_velocity

WORDS = ("", "red", "green", "blue", "white")
COLOURS = torch.tensor([[1, 0.1, 0.1], [0.1, 0.8, 0.2], [0.2, 0.3, 1], [1, 1, 1]])
HIDDEN = 0.1  # share of words that training hides, so that the empty word is learned as well


def enlarge(x: Tensor, times: float = 2.0) -> Tensor:
    """Repeat each value of (B,C,h,w), as the paper enlarges its grid."""
    return F.interpolate(x, scale_factor=times)


def draw_world(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (count,3,8,8) in [-1,1], their bits (count,1,4,4) and words (count,), 1 to 4."""
    bits = (torch.rand(count, 1, 4, 4) < 0.4).float()
    words = torch.randint(1, len(WORDS), (count,))
    across = (0.1 + 0.9 * (torch.arange(8) % 2)).view(1, 1, 8, 1)
    stripes = torch.where(torch.rand(count, 1, 1, 1) < 0.5, across, across.transpose(2, 3))
    colour = COLOURS[words - 1].view(-1, 3, 1, 1) * stripes
    return 2 * (0.05 + 0.9 * enlarge(bits) * colour) - 1, bits, words


def read_back(pictures: Tensor, bits: Tensor, words: Tensor) -> tuple[float, float]:
    """Share of the bits, and of the words, that can be read off what was painted for them."""
    light = (F.avg_pool2d(pictures, 2) + 1) / 2  # (B,3,4,4): mean colour of each cell
    right_bits = ((light.amax(1, keepdim=True) > 0.3) == bits.bool()).float().mean()
    colour = (light * bits).sum((2, 3)) / bits.sum((2, 3)).clamp(min=1)  # of the lit cells
    nearest = torch.cdist(colour, 0.05 + 0.9 * 0.55 * COLOURS).argmin(1)
    return right_bits.item(), (nearest == words - 1).float().mean().item()


def direction(pictures: Tensor, bits: Tensor) -> Tensor:
    """Share of the lit cells' contrast that runs across (B,): 1 or 0 in the world."""
    lit, grey = enlarge(bits), pictures.mean(1, keepdim=True)
    rows = ((grey[:, :, ::2] - grey[:, :, 1::2]).square() * lit[:, :, ::2]).sum((1, 2, 3))
    columns = ((grey[..., ::2] - grey[..., 1::2]).square() * lit[..., ::2]).sum((1, 2, 3))
    return rows / (rows + columns + 1e-9)


class Toy:
    """The tiny U-Net with its words; untrained until ``fit``."""

    def __init__(self):
        sizes = {"widths": (48, 64), "heads": 4, "norm_groups": 8}
        self.unet = build_unet(1, 32, latent_channels=3, patch=2, **sizes)
        self.vocabulary = nn.Embedding(len(WORDS), 32)
        self.scheduler = build_scheduler()

    def loss(self, count: int) -> Tensor:
        """Squared error of the velocity, of ``count`` new pictures at random noise levels."""
        picture, bits, words = draw_world(count)
        words = torch.where(torch.rand(count) < HIDDEN, 0, words)
        noise, t = torch.randn_like(picture), torch.randint(0, 1000, (count,))
        noisy = self.scheduler.add_noise(picture, noise, t)
        target = self.scheduler.get_velocity(picture, noise, t)
        text, rate = self.vocabulary(words)[:, None], torch.zeros_like(words)
        return F.mse_loss(predict_velocity(self.unet, noisy, t, enlarge(bits), text, rate), target)

    def fit(self, steps: int, batch: int = 32, learning_rate: float = 2e-3) -> "Toy":
        """Train from where it stands; some 25 steps a second on one core."""
        weights = [*self.unet.parameters(), *self.vocabulary.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=learning_rate)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            optimizer.zero_grad()
            self.loss(batch).backward()
            optimizer.step()
            decay.step()
        return self

    @torch.no_grad()
    def paint(
        self,
        bits: Tensor,
        words: Tensor,
        seeds: Sequence[int],
        steps: int = 8,
        guidance_scale: float = 1.0,
    ) -> Tensor:
        """Pictures (B,3,8,8) of bits (B,1,4,4), words (B,) (0: none) and a seed each."""
        text, empty = self.vocabulary(words)[:, None], self.vocabulary(torch.tensor([[0]]))
        noise = draw_noise((3, 8, 8), list(seeds))
        inputs = noise, enlarge(bits), text, empty, torch.zeros_like(words)
        states = denoise(self.unet, self.scheduler, *inputs, steps, guidance_scale)
        return list(states)[-1].latents
