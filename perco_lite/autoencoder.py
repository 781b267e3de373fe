"""Autoencoder: photos to latents and back; what the diffusion model paints is its latents.

    image (B,3,H,W) in [-1,1]
      └─ encode ──► latents (B,4,H/8,W/8), scaled to about unit variance
           └─ decode ──► image (B,3,H,W)

Paper: PerCo, Sec. 3.1 (the frozen auto-encoder of a latent diffusion model, f = 8, 4 channels).
Differs from the paper: 3.3 M parameters trained here instead of Stable Diffusion's 84 M; no
normalisation layers, no attention and no sampling, so that a photo takes a laptop half a second
and the same photo always gives the same latents. Stable Diffusion's own serves as well, below.

Taught in notebook 01.
"""

import math

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

FACTOR = 8  # image pixels per latent, along each side


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip; (B,C,h,w) -> (B,C,h,w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        _start_small(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Upscale(nn.Module):
    """Features at H/4 to an image: (B,C,h,w) -> (B,3,4h,4w).

    One pixel-shuffle paints 4x4 blocks that know nothing of each other, and their grid shows. A
    few channels at H/2 add a correction that sees across them.
    """

    def __init__(self, channels: int, detail: int):
        super().__init__()
        self.blocks = nn.Conv2d(channels, 48, 3, padding=1)
        self.detail = nn.Sequential(
            nn.Conv2d(channels, 4 * detail, 1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(detail, detail, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(detail, 12, 3, padding=1),
        )
        _start_small(self.detail[-1])

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.blocks(x), 4) + F.pixel_shuffle(self.detail(x), 2)


def _start_small(last: nn.Conv2d) -> None:
    """Let a branch that is added to something start near zero.

    Without normalisation layers, a deep stack of residual blocks is stable only if each one starts
    near the identity.
    """
    nn.init.normal_(last.weight, std=1e-2 / last.in_channels**0.5)
    nn.init.zeros_(last.bias)


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]


class Autoencoder(ModelMixin, ConfigMixin):
    """Small convolutional autoencoder with f = 8 (SD 2.1's VAE has the same two functions).

    Most of the work happens at 1/8 and 1/4 of the resolution (pixel-unshuffle comes first and,
    with a decoder of two levels, pixel-shuffle by 4 nearly last), which makes it fast on a CPU.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 4,
        encoder_widths: tuple[int, ...] = (96, 128),  # channels at (H/2,) H/4 and H/8
        encoder_blocks: tuple[int, ...] = (2, 3),
        decoder_widths: tuple[int, ...] = (160, 96),  # channels at H/8, H/4 and, if four, H/2, H
        decoder_blocks: tuple[int, ...] = (4, 3),
        decoder_detail: int = 24,  # of a decoder of two levels: channels at H/2
    ):
        super().__init__()
        width, fold = encoder_widths[0], FACTOR >> (len(encoder_widths) - 1)
        layers = [nn.PixelUnshuffle(fold), nn.Conv2d(3 * fold**2, width, 3, padding=1)]
        layers += _blocks(width, encoder_blocks[0])
        for coarser, count in zip(encoder_widths[1:], encoder_blocks[1:], strict=True):
            layers += [nn.Conv2d(width, coarser, 3, stride=2, padding=1), *_blocks(coarser, count)]
            width = coarser
        last = nn.Conv2d(width, latent_channels, 3, padding=1)
        self.encoder = nn.Sequential(*layers, nn.SiLU(), last)
        width = decoder_widths[0]
        layers = [nn.Conv2d(latent_channels, width, 3, padding=1)]
        layers += _blocks(width, decoder_blocks[0])
        for finer, count in zip(decoder_widths[1:], decoder_blocks[1:], strict=True):
            layers += [nn.Conv2d(width, 4 * finer, 1), nn.PixelShuffle(2), *_blocks(finer, count)]
            width = finer
        whole = len(decoder_widths) == 4  # down to the pixels: sharper, twice the time
        last = nn.Conv2d(width, 3, 3, padding=1) if whole else Upscale(width, decoder_detail)
        self.decoder = nn.Sequential(*layers, nn.SiLU(), last)
        # training that must leave the latents what they mean to a trained codec sets this
        self.keeps_latents = False
        # statistics of the raw encoder output, tracked while training, frozen afterwards
        self.register_buffer("latent_mean", torch.zeros(latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_channels))

    @property
    def encoder_reach(self) -> int:
        """How far the encoder sees beyond a latent's own 8×8 pixels, in latents to each side."""
        steps, scale = 1.0, 1.0  # of a 3×3 convolution; two of them a block
        for count in reversed(self.config.encoder_blocks):
            steps += 2 * count * scale + scale / 2  # and the one that halves the resolution
            scale /= 2
        return math.ceil(steps + scale)  # the first one halves nothing: it sees twice as far

    @property
    def decoder_reach(self) -> int:
        """How far a pixel sees beyond its own latent when decoded, in latents to each side."""
        eighth, quarter, *finer = self.config.decoder_blocks
        steps = 2 * eighth + 1 + (2 * quarter + (0 if finer else 1)) / 2
        if finer:  # a block at H/2 sees a quarter of a latent further, one at H an eighth
            steps += 2 * finer[0] / 4 + (2 * finer[1] + 1) / 8
        return math.ceil(steps)

    @apply_forward_hook
    def encode(self, image: Tensor) -> Tensor:
        """Latents of an image.

        Args:
            image: (B,3,H,W) in [-1,1]; H and W multiples of 8.
        Returns:
            latents (B,4,H/8,W/8), scaled to about unit variance by the constants of the weights.
        Raises:
            ValueError: other shapes.
        """
        if image.ndim != 4 or image.shape[1] != 3 or any(side % FACTOR for side in image.shape[2:]):
            raise ValueError(
                f"image has shape {tuple(image.shape)}, expected (B,3,H,W) with H and W multiples "
                f"of {FACTOR}; pad it first (perco_lite.data.pad_to_multiple)"
            )
        return self._normalise(self.encoder(image), self.latent_mean, self.latent_std)

    @apply_forward_hook
    def decode(self, latents: Tensor) -> Tensor:
        """Image of some latents: (B,4,h,w) -> (B,3,8h,8w), nominally in [-1,1], not clipped."""
        channels = self.config.latent_channels
        if latents.ndim != 4 or latents.shape[1] != channels:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}, expected (B,{channels},h,w)"
            )
        return self.decoder(latents)

    def forward(self, image: Tensor, latent_noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """Training pass: ``(reconstruction, latents)``; also tracks the latents' statistics.

        ``latent_noise`` (in units of the latents' standard deviation) is added before decoding.
        It keeps the decoder calm when a diffusion model's latents are slightly off, and stops
        the encoder from hiding detail in differences too fine for that model to paint.
        """
        raw = self.encoder(image)
        if self.training and not self.keeps_latents:
            # the batch's own statistics, with their gradient: against running ones the encoder
            # would learn to outgrow them, since larger latents suffer less from the noise
            mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3))
            self.latent_mean.lerp_(mean.detach().float(), 0.02)
            self.latent_std.lerp_(std.detach().float(), 0.02)
            latents = self._normalise(raw, mean, std)
        else:
            latents = self._normalise(raw, self.latent_mean, self.latent_std)
        noisy = latents + latent_noise * torch.randn_like(latents) if latent_noise else latents
        return self.decode(noisy), latents

    @torch.no_grad()
    def fold_statistics(self) -> None:
        """Move the normalisation into the last convolution: same latents, mean 0 and std 1 left.

        Before training goes on: the encoder's last layer is then of its usual size again.
        """
        last = self.encoder[-1]
        last.weight.div_(self.latent_std.view(-1, 1, 1, 1))
        last.bias.sub_(self.latent_mean).div_(self.latent_std)
        self.latent_mean.zero_()
        self.latent_std.fill_(1)

    def _normalise(self, raw: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        return (raw - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)


class StableDiffusionAutoencoder(AutoencoderKL):
    """Stable Diffusion's VAE with the two functions of :class:`Autoencoder`.

    Loads from the ``vae`` folder of a checkpoint; slicing and tiling are diffusers' own
    (``codec.autoencoder.enable_tiling()``).
    """

    def encode(self, image: Tensor) -> Tensor:
        """Latents (B,4,H/8,W/8) of an image (B,3,H,W) in [-1,1], scaled to about unit variance.

        The mode of the VAE's distribution, not a sample (as PerCo (SD) takes): the same photo
        always gives the same bytes.
        """
        mean, std = self._statistics(image)
        return (super().encode(image).latent_dist.mode() - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """Image of some latents: (B,4,h,w) -> (B,3,8h,8w), nominally in [-1,1], not clipped."""
        mean, std = self._statistics(latents)
        return super().decode(latents * std + mean).sample

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """``(reconstruction, latents)``."""
        latents = self.encode(image)
        return self.decode(latents), latents

    def _statistics(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Mean and standard deviation of the raw latents, as the checkpoint's config states."""
        scale = 1 / self.config.scaling_factor
        if not self.config.latents_mean:  # Stable Diffusion: one number for all channels
            return 0.0, scale
        mean, std = (
            torch.tensor(values, device=like.device, dtype=like.dtype).view(1, -1, 1, 1)
            for values in (self.config.latents_mean, self.config.latents_std)
        )
        return mean, std * scale
