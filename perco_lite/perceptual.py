"""Features of a small classifier: a training loss that rewards sharpness, and what a photo shows.

    image, target (B,3,H,W) in [-1,1] ──► SqueezeNet features at 1/2, 1/4 and 1/8 ──► distance (B,)
    image ──► its last features, averaged over the photo (B,512): for the text encoder's training

Paper: PerCo, Sec. 3.3 (an LPIPS auxiliary loss above 0.05 bpp).
Differs from the paper: SqueezeNet 1.0 features with uniform weights instead of LPIPS's learned
ones. It is **not** LPIPS and never reported under that name; it is used in training only.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQUEEZENET_FILE = "squeezenet1_0_caffe_fp32.npz"  # in the data folder "weights"
TAPS = ("conv1", "fire3", "fire5")  # later layers cost more and see objects, not texture


class SqueezeNet(nn.Module):
    """SqueezeNet 1.0 trained on ImageNet, without its classifier; frozen."""

    def __init__(self, weights: dict[str, np.ndarray]):
        super().__init__()
        for name, value in weights.items():
            if name.startswith(("conv1.", "fire")):
                self.register_buffer(name.replace(".", "_"), torch.from_numpy(value.copy()))
        # the published weights expect BGR in 0..255 minus the ImageNet mean colour
        self.register_buffer("mean", torch.tensor([104.0, 117.0, 123.0]).view(1, 3, 1, 1))

    @classmethod
    def from_file(cls, path: str | Path) -> "SqueezeNet":
        """Load ``SQUEEZENET_FILE``; FileNotFoundError names what is missing."""
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(
                f"{path} is missing: this training needs SqueezeNet 1.0's weights as an npz file; "
                "put the file there, or train without it (--perceptual-weight 0; no --text)"
            )
        with np.load(path, allow_pickle=False) as weights:
            return cls(dict(weights))

    def _conv(self, x: Tensor, name: str, **kwargs) -> Tensor:
        return F.relu(
            F.conv2d(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), **kwargs)
        )

    def _fire(self, x: Tensor, name: str) -> Tensor:
        x = self._conv(x, f"{name}_squeeze")
        wide = self._conv(x, f"{name}_expand3x3", padding=1)
        return torch.cat([self._conv(x, f"{name}_expand1x1"), wide], dim=1)

    def features(self, image: Tensor) -> list[Tensor]:
        """Feature maps at TAPS of an image (B,3,H,W) in [-1,1]."""
        x = (image.flip(1) + 1) * 127.5 - self.mean
        conv1 = self._conv(x, "conv1", stride=2)
        x = F.max_pool2d(conv1, 3, 2, ceil_mode=True)
        fire3 = self._fire(self._fire(x, "fire2"), "fire3")
        x = self._fire(fire3, "fire4")
        fire5 = self._fire(F.max_pool2d(x, 3, 2, ceil_mode=True), "fire5")
        return [conv1, fire3, fire5]

    def pooled(self, image: Tensor) -> Tensor:
        """What a photo (B,3,H,W) in [-1,1] shows: the last features' means, (B,512)."""
        x = self.features(image)[-1]
        for name in ("fire6", "fire7", "fire8"):
            x = self._fire(x, name)
        x = self._fire(F.max_pool2d(x, 3, 2, ceil_mode=True), "fire9")
        return x.mean((2, 3))


class PerceptualDistance(SqueezeNet):
    """Squared distance of channel-normalised SqueezeNet 1.0 features; frozen."""

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Distance per photo, (B,); 0 for equal images. The gradient reaches both images."""
        distance = torch.zeros(len(image), device=image.device)
        for a, b in zip(self.features(image), self.features(target), strict=True):
            a = a / (a.pow(2).sum(1, keepdim=True) + 1e-6).sqrt()
            b = b / (b.pow(2).sum(1, keepdim=True) + 1e-6).sqrt()
            distance = distance + (a - b).pow(2).sum(1).mean((1, 2))
        return distance


class Lpips(nn.Module):
    """LPIPS itself (VGG), as the paper trains with; frozen, from the `lpips` package.

    Raises ImportError naming the extra where it is missing; the package downloads VGG's weights.
    """

    def __init__(self):
        super().__init__()
        try:
            import lpips
        except ImportError as error:
            raise ImportError(
                "the LPIPS term needs lpips: pip install 'perco_lite[metrics]', or train without "
                "it (--perceptual-weight 0), or at rates up to 0.05 bpp, which do not use it"
            ) from error
        self.distance = lpips.LPIPS(net="vgg", verbose=False).requires_grad_(False).eval()

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Distance (B,) of images (B,3,H,W) in [-1,1]."""
        return self.distance(image.float(), target.float()).flatten()
