"""Inception v3 of 2015-12-05, through whose eyes FID and KID look; its weights are TensorFlow's.

    photos (B,3,H,W) uint8 ──resize rule──► (B,3,299,299) ──94 convolutions──► features (B,2048)

"torchmetrics" resizes by antialiased bilinear, as torchmetrics does; "clean-fid" by Pillow's
bicubic, channel by channel in float32 and clipped, as clean-fid does (Parmar et al., 2022).

Paper: PerCo, Sec. 4.1 (FID and KID).
Differs from the paper: which of the resize rules it had is not known. The layers and their names
are torch-fidelity's, which needs torchvision to be imported; a test holds both equal.
"""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from perco_lite.metrics import Unavailable
from perco_lite.perceptual import INCEPTION, load_network

SIDE = 299
RESIZES = ("torchmetrics", "clean-fid")
FETCH = "`perco download metrics` fetches it"

# A block is its branches; a branch its layers, one after the other: a pool, a convolution
# (name, channels, kernel[, stride]), or several of them side by side.
AVERAGE, MAX, MAX_2 = "average", "max", "max of stride 2"
Branches = list[list]


def _mixed_5(pooled: int) -> Branches:
    return [
        [("branch1x1", 64, 1)],
        [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)],
        [AVERAGE, ("branch_pool", pooled, 1)],
    ]


def _mixed_6(narrow: int) -> Branches:
    wide, high = (1, 7), (7, 1)
    double = zip(range(1, 6), [narrow] * 4 + [192], [1, high, wide, high, wide], strict=True)
    return [
        [("branch1x1", 192, 1)],
        [("branch7x7_1", narrow, 1), ("branch7x7_2", narrow, wide), ("branch7x7_3", 192, high)],
        [(f"branch7x7dbl_{number}", channels, kernel) for number, channels, kernel in double],
        [AVERAGE, ("branch_pool", 192, 1)],
    ]


def _mixed_7(pool: str) -> Branches:
    def both(name: str) -> list:
        return [(f"{name}a", 384, (1, 3)), (f"{name}b", 384, (3, 1))]

    return [
        [("branch1x1", 320, 1)],
        [("branch3x3_1", 384, 1), both("branch3x3_2")],
        [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), both("branch3x3dbl_3")],
        [pool, ("branch_pool", 192, 1)],
    ]


_STEM = [("Conv2d_1a_3x3", 32, 3, 2), ("Conv2d_2a_3x3", 32, 3, 1, 0), ("Conv2d_2b_3x3", 64, 3)]
_STEM += [MAX_2, ("Conv2d_3b_1x1", 80, 1), ("Conv2d_4a_3x3", 192, 3, 1, 0), MAX_2]
_BLOCKS = {
    "Mixed_5b": _mixed_5(32),
    "Mixed_5c": _mixed_5(64),
    "Mixed_5d": _mixed_5(64),
    "Mixed_6a": [
        [("branch3x3", 384, 3, 2)],
        [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)],
        [MAX_2],
    ],
    "Mixed_6b": _mixed_6(128),
    "Mixed_6c": _mixed_6(160),
    "Mixed_6d": _mixed_6(160),
    "Mixed_6e": _mixed_6(192),
    "Mixed_7a": [
        [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)],
        [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, (1, 7)), ("branch7x7x3_3", 192, (7, 1))]
        + [("branch7x7x3_4", 192, 3, 2)],
        [MAX_2],
    ],
    "Mixed_7b": _mixed_7(AVERAGE),
    "Mixed_7c": _mixed_7(MAX),  # a slip of TensorFlow's, kept by all who measure FID
}


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU; the same height and width unless it strides."""

    def __init__(self, channels: int, out: int, kernel, stride: int = 1, padding=None):
        super().__init__()
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        if padding is None:
            padding = 0 if stride > 1 else tuple(side // 2 for side in kernel)
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches over the same input, their outputs side by side."""

    def __init__(self, channels: int, branches: Branches):
        super().__init__()
        self.branches, self.channels = branches, 0
        for branch in branches:
            width = channels
            for layer in branch:
                several = layer if isinstance(layer, list) else [layer]
                convolutions = [one for one in several if not isinstance(one, str)]
                for name, out, *how in convolutions:
                    self.add_module(name, Convolution(width, out, *how))
                width = sum(out for _, out, *_ in convolutions) or width
            self.channels += width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._branch(x, branch) for branch in self.branches], 1)

    def _branch(self, x: Tensor, layers: list) -> Tensor:
        for layer in layers:
            if isinstance(layer, list):
                x = torch.cat([getattr(self, name)(x) for name, *_ in layer], 1)
            elif layer == AVERAGE:
                x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            elif isinstance(layer, str):
                x = F.max_pool2d(x, 3, *((2, 0) if layer == MAX_2 else (1, 1)))
            else:
                x = getattr(self, layer[0])(x)
        return x


class Inception(Block):
    """(B,3,H,W) uint8 -> (B,2048) float32; frozen, always as trained.

    ``resize``: one of RESIZES. Under names and shapes of torch-fidelity's, without its classifier.
    torchmetrics' FID and KID take it as their ``feature``.
    """

    num_features = 2048  # as torchmetrics asks

    def __init__(self, resize: str = "torchmetrics"):
        if resize not in RESIZES:
            raise ValueError(f"got resize {resize!r}, expected one of {', '.join(RESIZES)}")
        super().__init__(3, [_STEM])
        self.resize, channels = resize, self.channels
        for name, branches in _BLOCKS.items():
            block = Block(channels, branches)
            self.add_module(name, block)
            channels = block.channels
        self.requires_grad_(False).eval()

    @property
    def protocol(self) -> str:
        """How a photo comes to 299x299, in words."""
        rule = {"torchmetrics": "antialiased bilinear, as torchmetrics"}
        return rule.get(self.resize, "Pillow's bicubic in float32, as clean-fid")

    def train(self, mode: bool = True) -> "Inception":
        """Stay as it is: the statistics of the photos it was trained on are part of it."""
        return super().train(False)

    def forward(self, photos: Tensor) -> Tensor:
        x = resize_clean(photos) if self.resize == "clean-fid" else resize_antialiased(photos)
        x = super().forward((x - 128) / 128)
        for name in _BLOCKS:
            x = getattr(self, name)(x)
        return x.mean((2, 3))


def resize_antialiased(photos: Tensor) -> Tensor:
    """(B,3,H,W) uint8 -> (B,3,299,299) float32 in 0..255, as torchmetrics' FID does by default."""
    how = {"mode": "bilinear", "align_corners": False, "antialias": True}
    return F.interpolate(photos.float(), (SIDE, SIDE), **how)


def resize_clean(photos: Tensor) -> Tensor:
    """(B,3,H,W) uint8 -> (B,3,299,299) float32 in 0..255, as clean-fid's mode "clean" does."""
    planes = photos.cpu().numpy().astype(np.float32).reshape(-1, *photos.shape[2:])
    how = (SIDE, SIDE), Image.Resampling.BICUBIC
    resized = np.stack([np.asarray(Image.fromarray(plane).resize(*how)) for plane in planes])
    resized = torch.from_numpy(resized.clip(0, 255)).to(photos.device)
    return resized.reshape(len(photos), 3, SIDE, SIDE)


@cache
def load_inception(resize: str = "torchmetrics") -> Inception:
    """Inception with its weights; ``Unavailable`` where they are not on this machine."""
    network = Inception(resize)
    try:
        weights = load_network(INCEPTION)
    except (OSError, ValueError) as error:
        raise Unavailable(f"Inception: {error}") from error
    if weights is None:
        raise Unavailable(f"Inception: no {INCEPTION}.safetensors; {FETCH}")
    # batches counted in training are no part of the file
    network.load_state_dict(weights, strict=False)
    # a third less time on a CPU; features differ by 1e-6 of their largest
    return network.eval().to(memory_format=torch.channels_last)
