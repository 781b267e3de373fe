"""Networks that judge photos as people do: LPIPS, and features of a classifier of our own choice.

    image, target (B,3,H,W) in [-1,1] ──► LPIPS: features of a net, learned weights ──► (B,)
                                     └──► SqueezeNet 1.0, uniform weights ──► distance (B,)
    image ──► SqueezeNet's last features, averaged over the photo (B,512): what it shows

LPIPS's learned weights come with torchmetrics; the backbones are torchvision's, built here from
their published shapes, so that neither torchvision nor the package `lpips` is needed.

Paper: PerCo, Sec. 3.3 (an LPIPS auxiliary loss above 0.05 bpp).
Differs from the paper: SqueezeNet 1.0's distance with uniform weights as well. It is **not** LPIPS
and never reported under that name.

Taught in notebooks 11 and 12.
"""

import hashlib
import importlib.util
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from perco_lite.data import find_data, find_file

SQUEEZENET_FILE = "squeezenet1_0_caffe_fp32.npz"  # in the data folder "weights"
TAPS = ("conv1", "fire3", "fire5")  # later layers cost more and see objects, not texture
# LPIPS's backbones: what torchvision calls their weights, at WEIGHTS_URL and in torch.hub's cache
WEIGHTS_URL = "https://download.pytorch.org/models/"
LPIPS_BACKBONES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}
LPIPS_TAPS = {  # layers after which LPIPS compares
    "alex": (1, 4, 7, 9, 11),
    "squeeze": (1, 4, 7, 9, 10, 11, 12),
    "vgg": (3, 8, 15, 22, 29),
}
LPIPS_HEADS = {"alex": "df73285e", "squeeze": "4a5350f2", "vgg": "a78928a0"}  # SHA-256 of files
INCEPTION = "inception_2015_12_05"
DIGESTS = {  # of published networks, by the names of their files (`digest`)
    "alexnet_features": "53c0904f3c0fe196",
    "squeezenet1_1_features": "10247b9a393bf212",
    "vgg16_features": "9e670a65130c41be",
    INCEPTION: "2642f32a716d428a",
    "efficientnet_lite0": "60cf6200bd5bbb52",
}
# Their layers, in torchvision's order: (channels, kernel, stride, padding) of a convolution with
# ReLU, the narrow channels of a fire module, or POOL. VGG16, and SqueezeNet 1.1.
POOL = "pool"
BACKBONES: dict[str, list] = {
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
    """LPIPS 0.1 (Zhang et al., 2018), frozen; ``net`` is alex, squeeze, or the paper's vgg.

    Its learned weights are those of the package `lpips`, which torchmetrics brings along; the
    backbone's are found, or refused, as ``load_backbone`` says.
    """

    def __init__(self, net: str = "vgg", download: bool = False):
        super().__init__()
        if net not in LPIPS_BACKBONES:
            raise ValueError(f"got LPIPS net {net!r}, expected one of {', '.join(LPIPS_BACKBONES)}")
        self.layers, self.digest = load_backbone(net, download), DIGESTS[network_file(net)]
        heads = read_torchmetrics(f"lpips_models/{net}.pth", LPIPS_HEADS[net])
        self.heads = nn.ParameterList(heads[f"lin{n}.model.1.weight"] for n in range(len(heads)))
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))
        self.taps = LPIPS_TAPS[net]
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """Distance (B,) of images (B,3,H,W) in [-1,1]."""
        # map by map: all of a large photo's together are gigabytes
        return self.between(self.features(image.float()), self.features(target.float()))

    def features(self, image: Tensor) -> Iterator[Tensor]:
        """What is compared of an image (B,3,H,W) in [-1,1]: maps (B,C,h,w), finest first."""
        x = (image - self.shift) / self.scale
        for number, layer in enumerate(self.layers[: self.taps[-1] + 1]):
            x = layer(x)
            if number in self.taps:
                yield x

    def between(self, features: Iterable[Tensor], target: Iterable[Tensor]) -> Tensor:
        """The same distance (B,), of features; float32, whatever precision they are of."""
        distance = 0.0
        for head, *pair in zip(self.heads, features, target, strict=True):
            # without the 1e-20 the gradient is not finite where nothing is seen
            exact = (z.float() for z in pair)
            with torch.autocast(head.device.type, enabled=False):
                a, b = (z / (z.square().sum(1, keepdim=True) + 1e-20).sqrt() for z in exact)
                distance = distance + F.conv2d((a - b).square(), head).mean((1, 2, 3))
        return distance


def may_download() -> bool:
    """Whether weights may be fetched unasked: nobody shall wait for a network that is not there."""
    return os.environ.get("PERCO_LITE_DOWNLOAD") == "1"


def load_backbone(net: str, download: bool = False) -> nn.Sequential:
    """Features of one of BACKBONES with torchvision's weights for ImageNet.

    They come from ``load_network``, from torch.hub's cache, or, with ``download``, from PyTorch's
    site. Raises FileNotFoundError (or URLError, both OSErrors) where there are none, ValueError
    for others than the published ones.
    """
    file = LPIPS_BACKBONES[net]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file
    weights = load_network(network_file(net))
    if weights is None and (cached.is_file() or download):
        if cached.is_file():
            weights = torch.load(cached, map_location="cpu", weights_only=True)
        else:
            weights = torch.hub.load_state_dict_from_url(WEIGHTS_URL + file, map_location="cpu")
        weights = {name: w for name, w in weights.items() if name.startswith("features.")}
        check_network(network_file(net), weights, cached)
    if weights is None:
        what = "metrics" if net in ("alex", "vgg") else net
        raise FileNotFoundError(
            f"no weights at {cached}; `perco download {what}` fetches them (or set "
            "PERCO_LITE_DOWNLOAD=1)"
        )
    features = build_backbone(net)
    features.load_state_dict({n.removeprefix("features."): w for n, w in weights.items()})
    return features.requires_grad_(False).eval()


def network_file(net: str) -> str:
    """What the weights of a backbone are called in the folder "weights": alexnet_features, …"""
    return f"{LPIPS_BACKBONES[net].split('-')[0]}_features"


def load_network(name: str) -> dict[str, Tensor] | None:
    """Weights of a published network in float32, from the data folder "weights" or the cache.

    NAME.safetensors counts before NAME_fp16.safetensors, which changes LPIPS by less than 1e-4.
    None where there is neither; ValueError for other weights than the published ones.
    """
    for file in (f"{name}.safetensors", f"{name}_fp16.safetensors"):
        if path := find_file("weights", file):
            weights = load_file(path)
            check_network(name, weights, path)
            return {key: value.float() for key, value in weights.items()}
    return None


def check_network(name: str, weights: dict[str, Tensor], source: object) -> None:
    """Raise ValueError unless ``weights`` are those that DIGESTS knows under ``name``."""
    if (found := digest(weights)) != DIGESTS[name]:
        raise ValueError(
            f"{source} has other weights than the published {name}: got digest {found}, expected "
            f"{DIGESTS[name]}; delete it, and `perco download metrics`"
        )


def digest(weights: dict[str, Tensor]) -> str:
    """16 hex digits of names, shapes and values as float16: the same for a half-precision copy."""
    whole = hashlib.sha256()
    for name in sorted(weights):
        half = weights[name].detach().half().contiguous().numpy()
        whole.update(f"{name} {half.shape} ".encode() + half.tobytes())
    return whole.hexdigest()[:16]


def read_torchmetrics(file: str, sha256: str) -> dict[str, Tensor]:
    """Learned weights of a metric, a file that torchmetrics has beside its functions for images.

    torchmetrics itself, which takes seconds to import, is not. ValueError for another file.
    """
    spec = importlib.util.find_spec("torchmetrics")
    assert spec is not None and spec.origin is not None  # it is a requirement
    folder = Path(spec.origin).parent / "functional" / "image"
    data = (folder / file).read_bytes()
    if not hashlib.sha256(data).hexdigest().startswith(sha256):
        raise ValueError(f"{folder / file} is not the published one; reinstall torchmetrics")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


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


class _Fire(nn.Module):
    def __init__(self, channels: int, narrow: int, wide: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))
