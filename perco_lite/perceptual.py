"""Networks that judge photos as people do: LPIPS, and features of a classifier of our own choice.

    image, target (B,3,H,W) in [-1,1] ──► LPIPS: features of a net, learned weights ──► (B,)
                                     └──► SqueezeNet 1.0, uniform weights ──► distance (B,)
    image ──► SqueezeNet's last features, averaged over the photo (B,512): what it shows

The package `lpips` has LPIPS's learned weights; the backbones are torchvision's, built here from
their published shapes, so that torchvision itself is never needed.

Paper: PerCo, Sec. 3.3 (an LPIPS auxiliary loss above 0.05 bpp).
Differs from the paper: SqueezeNet 1.0's distance with uniform weights as well. It is **not** LPIPS
and never reported under that name.

Taught in notebook 11.
"""

import importlib
import os
import sys
import types
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from perco_lite.data import find_data

SQUEEZENET_FILE = "squeezenet1_0_caffe_fp32.npz"  # in the data folder "weights"
TAPS = ("conv1", "fire3", "fire5")  # later layers cost more and see objects, not texture
# LPIPS's backbones: what torchvision calls their weights, at WEIGHTS_URL and in torch.hub's cache
WEIGHTS_URL = "https://download.pytorch.org/models/"
LPIPS_BACKBONES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}
# Their layers, in torchvision's order: (channels, kernel, stride, padding) of a convolution with
# ReLU, the narrow channels of a fire module, or POOL. VGG16, and SqueezeNet 1.1.
POOL = "pool"
BACKBONES = {
    "alex": [(64, 11, 4, 2), POOL, (192, 5, 1, 2), POOL, (384, 3, 1, 1)]
    + [(256, 3, 1, 1), (256, 3, 1, 1), POOL],
    "squeeze": [(64, 3, 2), POOL, 16, 16, POOL, 32, 32, POOL, 48, 48, 64, 64],
    "vgg": [*2 * [(64, 3, 1, 1)], POOL, *2 * [(128, 3, 1, 1)], POOL, *3 * [(256, 3, 1, 1)], POOL]
    + 2 * [*3 * [(512, 3, 1, 1)], POOL],
}


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
                f"{path} is missing: SqueezeNet 1.0's weights as an npz file; "
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


def load_feature_distance(folder: Path | None = None) -> PerceptualDistance:
    """The distance from ``SQUEEZENET_FILE`` of ``folder``; default: the data folder "weights".

    Raises FileNotFoundError that names what is missing.
    """
    folder = folder or find_data("weights") or Path("weights")
    return PerceptualDistance.from_file(folder / SQUEEZENET_FILE)


class Lpips(nn.Module):
    """LPIPS itself, from the package `lpips`, frozen; ``net`` is alex, squeeze, or the paper's vgg.

    The backbone's weights come from the data folder "weights" (``NAME_features_fp16.safetensors``),
    torch.hub's cache, or, with ``download``, from PyTorch's site. Raises ImportError without the
    package, FileNotFoundError (or URLError, both OSErrors) without the weights.
    """

    def __init__(self, net: str = "vgg", download: bool = False):
        super().__init__()
        if net not in LPIPS_BACKBONES:
            raise ValueError(f"got LPIPS net {net!r}, expected one of {', '.join(LPIPS_BACKBONES)}")
        package = _import_lpips()
        weights = _backbone_weights(net, download)
        self.distance = package.LPIPS(net=net, pnet_rand=True, verbose=False)
        # the package calls features.3.weight slice2.3.weight
        names = {n: "features." + n.split(".", 1)[1] for n in self.distance.net.state_dict()}
        self.distance.net.load_state_dict({n: weights[name].float() for n, name in names.items()})
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Lpips":
        """Stay as it is: in training, the package's heads would drop out half of the features."""
        return super().train(False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Distance (B,) of images (B,3,H,W) in [-1,1]."""
        return self.distance(image.float(), target.float()).flatten()


def may_download() -> bool:
    """Whether weights may be fetched unasked: nobody shall wait for a network that is not there."""
    return os.environ.get("PERCO_LITE_DOWNLOAD") == "1"


def _backbone_weights(net: str, download: bool) -> dict[str, Tensor]:
    file = LPIPS_BACKBONES[net]
    folder = find_data("weights")
    ours = folder and folder / f"{file.split('-')[0]}_features_fp16.safetensors"
    if ours and ours.is_file():
        return load_file(ours)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file
    if cached.is_file():
        return torch.load(cached, map_location="cpu", weights_only=True)
    if download:
        return torch.hub.load_state_dict_from_url(WEIGHTS_URL + file, map_location="cpu")
    raise FileNotFoundError(f"no weights at {cached}; PERCO_LITE_DOWNLOAD=1 downloads them")


def _import_lpips():
    """The package `lpips`, with our backbones in place of torchvision's.

    torchvision fails to load wherever it does not match torch to the build, and only the layers of
    three networks are wanted of it.
    """
    models = types.ModuleType("torchvision.models")
    models.alexnet, models.squeezenet1_1, models.vgg16 = map(_builder, BACKBONES)
    stand_in = types.ModuleType("torchvision")
    stand_in.models = models
    names = {"torchvision": stand_in, "torchvision.models": models}
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    sys.modules |= names
    try:
        return importlib.import_module("lpips")
    except ImportError as error:
        raise ImportError(
            "the LPIPS term needs lpips: pip install 'perco_lite[metrics]', or train without "
            "it (--perceptual-weight 0)"
        ) from error
    finally:  # nobody else may take the stand-in for torchvision
        for name in names:
            del sys.modules[name]
        sys.modules |= before


def build_backbone(net: str) -> nn.Sequential:
    """Features of one of BACKBONES, with random weights."""
    layers, channels = [], 3
    for layer in BACKBONES[net]:
        if layer == POOL:
            layers.append(nn.MaxPool2d(2 if net == "vgg" else 3, 2, ceil_mode=net == "squeeze"))
        elif isinstance(layer, int):
            layers.append(_Fire(channels, layer, 4 * layer))
            channels = 8 * layer
        else:
            layers += [nn.Conv2d(channels, *layer), nn.ReLU()]
            channels = layer[0]
    return nn.Sequential(*layers)


def _builder(net: str):
    """In place of torchvision's function of that network, of which `lpips` takes the features."""
    return lambda *_, **__: types.SimpleNamespace(features=build_backbone(net))


class _Fire(nn.Module):
    def __init__(self, channels: int, narrow: int, wide: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))
