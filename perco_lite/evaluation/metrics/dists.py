"""DISTS: structure and texture of two photos, compared by VGG16's features (Ding et al., 2020).

    original, reconstruction (1,3,H,W) in [0,1] ──VGG16, pooled smoothly──► 6 feature maps each
        ──means: texture; covariances: structure──► learned weights ──► distance, 0 for equal

Where LPIPS compares pixel by pixel, this forgives a texture that is another sample of the same:
grass for grass. Learned weights: the authors', which torchmetrics brings along.

Paper: PerCo has no DISTS; codecs after it report it.
Differs from the paper: the formula is the authors' code's, whose torchmetrics version needs
torchvision to be imported; a test holds both equal.
"""

from functools import cache
from importlib.metadata import version

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from perco_lite.data import image_to_tensor
from perco_lite.metrics import PhotoDistance, Unavailable, distance_of_features, first_line
from perco_lite.perceptual import load_backbone, may_download, read_torchmetrics

WEIGHTS = "dists_models/weights.pt", "f5e65c96"  # of torchmetrics, and its SHA-256
_STAGES = ((0, 4), (5, 9), (10, 16), (17, 23), (24, 30))  # VGG16's layers between its pools
MIN_SIDE = 16  # of which four poolings leave one feature


class Dists(nn.Module):
    """Distance (B,) of images (B,3,H,W) in [0,1]; frozen. ``vgg``: VGG16's 31 layers of features.

    ``alpha``, ``beta`` (1,1475,1,1): weights of texture and structure, of the photo's 3 channels
    and of the 64, 128, 256, 512 and 512 of each stage.
    """

    def __init__(self, vgg: nn.Sequential, alpha: Tensor, beta: Tensor):
        super().__init__()
        self.stages = nn.ModuleList(vgg[start:end] for start, end in _STAGES)
        whole = alpha.sum() + beta.sum()
        self.register_buffer("alpha", alpha.flatten() / whole)
        self.register_buffer("beta", beta.flatten() / whole)
        hanning = torch.tensor([0.5, 1.0, 0.5])
        self.register_buffer("window", torch.outer(hanning, hanning) / 4)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.requires_grad_(False).eval()

    def features(self, image: Tensor) -> list[Tensor]:
        """The image (B,3,H,W) in [0,1] and its features after each stage, (B,C,H*W) each."""
        x = (image - self.mean) / self.std
        found = [image.flatten(2)]
        for number, stage in enumerate(self.stages):
            x = stage(self._pool(x) if number else x)
            found.append(x.flatten(2))
        return found

    def _pool(self, x: Tensor) -> Tensor:
        """Root of the windowed mean square: no aliasing, unlike VGG16's own maximum."""
        window = self.window.expand(x.shape[1], 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=x.shape[1]) + 1e-12).sqrt()

    def between(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """Distance (B,) of two images' features."""
        textures, structures = [], []
        for x, y in zip(ours, theirs, strict=True):
            mean_x, mean_y = x.mean(2), y.mean(2)
            textures.append((2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6))
            spread = x.var(2, correction=0) + y.var(2, correction=0)
            together = (x * y).mean(2) - mean_x * mean_y
            structures.append((2 * together + 1e-6) / (spread + 1e-6))
        alike = torch.cat(textures, 1) @ self.alpha + torch.cat(structures, 1) @ self.beta
        return 1 - alike

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return self.between(self.features(image), self.features(target))


@cache
def load_dists() -> PhotoDistance:
    """DISTS as a function (original, reconstruction) -> float, at the photos' own size.

    None for sides under MIN_SIDE pixels; its ``protocol`` says how it is computed. ``Unavailable``
    where VGG16's weights are not on this machine.
    """
    try:
        vgg = load_backbone("vgg", may_download())
        model = Dists(vgg, **read_torchmetrics(*WEIGHTS))
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise Unavailable(f"DISTS: {first_line(error)}") from error

    protocol = (
        "DISTS, VGG16, RGB, not resized, weights of its authors in torchmetrics "
        f"{version('torchmetrics')}"
    )

    def see(photo: Image.Image) -> list[Tensor]:
        return model.features((image_to_tensor(photo) + 1) / 2)

    return distance_of_features(see, model.between, MIN_SIDE, protocol)
