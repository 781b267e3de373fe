"""Hyper-encoder: shrink the autoencoder's latents to the grid that will be quantized.

    latents (B,4,H/8,W/8)
      └─ conv ──► 3 bottlenecks                   halves the grid at stride 64
          └─ conv ──► 3 bottlenecks ──► gate                      at 32 and 64
              └─ conv ──► 3 bottlenecks                           at 16, 32 and 64
                  └─ 1x1 conv ──► gate ──► features (B,D,h,w)     h = ceil(H / stride)

Paper: PerCo, Sec. 3.2; the layer list is the authors' own, published with PerCo (SD).
Differs from the paper: nothing at the default widths; the lite models are narrower.

Taught in notebook 02.
"""

import torch
from torch import Tensor, nn

# Which of the three main convolutions halve the grid. The VAE has already divided the image by 8.
STEPS_BY_STRIDE = {8: (1, 1, 1), 16: (1, 1, 2), 32: (1, 2, 2), 64: (2, 2, 2)}


class Bottleneck(nn.Module):
    """Residual block 1x1 -> 3x3 -> 1x1 at half width, without normalisation: (B,C,h,w) -> same."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels // 2, kernel_size=1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels // 2, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, kernel_size=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


class AttentionBlock(nn.Module):
    """A convolutional gate in (0, 1) on what is added to each position: (B,C,h,w) -> same.

    There are no queries and keys here: "attention" is the name learned image compression gives to
    a trunk multiplied by a mask (Cheng et al., CVPR 2020; `AttentionBlock` in CompressAI).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.trunk = nn.Sequential(*_rectified_bottlenecks(channels))
        self.gate = nn.Sequential(
            *_rectified_bottlenecks(channels), nn.Conv2d(channels, channels, kernel_size=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.trunk(features) * torch.sigmoid(self.gate(features))


class HyperEncoder(nn.Module):
    """Map latents (B,4,H/8,W/8), scaled to unit variance, to features (B,D,h,w).

    h = ceil(H/stride), w = ceil(W/stride). `stride` is in image pixels per index: 8, 16, 32 or 64,
    which the paper names by the side of the grid of a 512x512 image (64, 32, 16, 8). `width` is
    the number of channels inside (paper: 192) and `out_channels` is D (paper: 320); both at least
    2. Raises ValueError on another stride and on latents of another shape.
    """

    def __init__(
        self, stride: int, in_channels: int = 4, width: int = 192, out_channels: int = 320
    ):
        super().__init__()
        if stride not in STEPS_BY_STRIDE:
            raise ValueError(
                f"stride is {stride}, expected one of {sorted(STEPS_BY_STRIDE)} image pixels per "
                f"index; take it from a RatePoint (the paper's grid side s is 512 / stride)"
            )
        if min(width, out_channels) < 2:
            raise ValueError(
                f"width is {width} and out_channels is {out_channels}, expected at least 2 each "
                f"(bottlenecks halve them); choose wider layers"
            )
        self.stride = stride
        self.in_channels = in_channels
        self.out_channels = out_channels
        first, second, third = STEPS_BY_STRIDE[stride]
        self.layers = nn.Sequential(
            _conv(in_channels, width, first),
            *_bottlenecks(width),
            _conv(width, width, second),
            *_bottlenecks(width),
            AttentionBlock(width),
            _conv(width, width, third),
            *_bottlenecks(width),
            nn.Conv2d(width, out_channels, kernel_size=1),
            AttentionBlock(out_channels),
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B,4,H/8,W/8) -> features (B,D,h,w); a side that does not divide rounds up."""
        if latents.ndim != 4 or latents.shape[1] != self.in_channels:
            raise ValueError(
                f"latents have shape {tuple(latents.shape)}, expected (B, {self.in_channels}, H/8, "
                f"W/8); pass the autoencoder's latents, or set in_channels to its channel count"
            )
        return self.layers(latents)


def _conv(in_channels: int, out_channels: int, step: int) -> nn.Conv2d:
    """1x1 where the grid keeps its size, 5x5 where it is halved (an odd side rounds up)."""
    if step == 1:
        return nn.Conv2d(in_channels, out_channels, kernel_size=1)
    return nn.Conv2d(in_channels, out_channels, kernel_size=5, stride=step, padding=2)


def _bottlenecks(channels: int) -> list[nn.Module]:
    return [Bottleneck(channels) for _ in range(3)]


def _rectified_bottlenecks(channels: int) -> list[nn.Module]:
    """Three bottlenecks with a ReLU after each sum: the residual units of CompressAI's block."""
    return [layer for block in _bottlenecks(channels) for layer in (block, nn.ReLU())]
