"""Patch Fréchet distance: our own measure of realism, which needs no download. It is not FID.

    photo ──encoder up to H/4, in 64x64 patches──► (P,96,16,16) ──mean, log deviation──► (P,192)
    moments of originals, of reconstructions ──in units of the originals' spread──► Score

Each patch is described by what the first third of the bundled autoencoder's encoder sees in it:
per channel the mean (what is there) and the logarithm of the standard deviation (how
much of it varies: lost with blur, gained with noise). Then the distance between two Gaussians.

Paper: PerCo, Sec. 4.1, has FID and KID, whose network has to be downloaded (``realism``).
Differs from the paper: not FID but ours, with a network of 0.4 M parameters that was trained to
copy photos and knows no objects. It sees texture, sharpness, contrast, colour and blocks; a barn
with the fur of a dog is fine by it. Blur costs about three times what noise of the same PSNR does.
Its figures compare with each other for the same originals and weights only.
"""

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from perco_lite.autoencoder import Autoencoder
from perco_lite.evaluation.metrics.frechet import Gaussian, Moments, frechet_distance
from perco_lite.evaluation.metrics.intervals import Score, resampled_interval
from perco_lite.metrics import Unavailable

PATCH = 64  # pixels; 96 patches in a Kodak photo
RIDGE = 0.01  # added to each variance, in units of the originals'
SMALL_SET = 200  # photos; above it no interval, which would be narrow and need 150 kB a photo twice
# Added to deviations, whose median over photos is 0.4. Noise of 8 in 255 puts 0.06 on a flat sky,
# and without the floor a photo with much sky would decide the whole figure by its grain.
_FLOOR = 0.1
_MARGIN = 32  # pixels around a photo, its edge repeated; wider than what a cell of the encoder sees
_WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


@cache
def load_patch_encoder() -> nn.Module:
    """First layers of the bundled autoencoder's encoder: (1,3,H,W) in [-1,1] -> (1,96,H/4,W/4).

    Raises ``Unavailable`` where the package came without weights.
    """
    if not (_WEIGHTS / "autoencoder" / "config.json").is_file():
        raise Unavailable(f"no bundled weights in {_WEIGHTS}; reinstall the package")
    autoencoder = Autoencoder.from_pretrained(_WEIGHTS, subfolder="autoencoder").float().eval()
    # its first level, and the step to H/4 of one that begins at H/2: deeper layers see less of
    # fine grain and blur
    blocks = autoencoder.config.encoder_blocks
    layers = 2 + blocks[0] + (len(blocks) > 2)
    return autoencoder.encoder[:layers].requires_grad_(False)


@torch.inference_mode()
def patch_features(photo: Image.Image, encoder: nn.Module | None = None) -> Tensor:
    """Describe each 64x64 patch of one RGB photo: (P, 2 x channels) float32.

    The grid starts at the top left; what does not fill a patch is left out. ``encoder`` takes
    (1,3,H,W) in [-1,1] and gives (1,C,H/4,W/4); default: the bundled one. Raises ``ValueError`` for
    a photo smaller than a patch, ``Unavailable`` where the package came without weights.
    """
    if photo.mode != "RGB":
        raise ValueError(f"got a photo of mode {photo.mode}, expected RGB; use data.to_rgb")
    if min(photo.size) < PATCH:
        size = f"{photo.width}x{photo.height}"
        raise ValueError(f"got a photo of {size}, expected at least {PATCH}x{PATCH}; leave it out")
    encoder = encoder or load_patch_encoder()
    columns, lines = photo.width // PATCH, photo.height // PATCH
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None]  # (1,3,H,W)
    pixels = pixels[:, :, : lines * PATCH, : columns * PATCH]
    cell, margin = PATCH // 4, _MARGIN // 4  # at H/4
    rows = []
    for strip in pixels.split(8 * PATCH, dim=2):  # memory stays that of a Kodak photo
        framed = F.pad(strip.float() / 127.5 - 1, (_MARGIN,) * 4, mode="replicate")
        activations = encoder(framed)[0, :, margin:-margin, margin:-margin]
        cells = activations.unfold(1, cell, cell).unfold(2, cell, cell).flatten(3)  # (C,h,w,256)
        deviations = (cells.std(3) + _FLOOR).log()
        rows.append(torch.cat([cells.mean(3), deviations]).flatten(1).T)
    return torch.cat(rows)


def patch_frechet_distance(
    originals: Iterable[Image.Image | Tensor],
    reconstructions: Iterable[Image.Image | Tensor],
    encoder: nn.Module | None = None,
) -> Score:
    """Distance between how patches of two sets of photos look; 0 for equal sets, more is worse.

    Takes photos, or what ``patch_features`` made of them; they are read one at a time, and of
    more than ``SMALL_SET`` only mean and covariance are kept. Both Gaussians are measured in units
    of the originals' standard deviation, feature by feature, and ``RIDGE`` is added to both
    covariances, so that directions in which originals hardly vary do not decide.
    Each score has its interval up to ``SMALL_SET`` photos. Where the package has no weights: None.
    Raises ``ValueError`` for fewer than two patches, or a photo smaller than one.
    """
    try:
        encoder = encoder or load_patch_encoder()
    except Unavailable as error:
        return Score(None, f"patch Fréchet distance: {error}")
    sets = [
        Moments(
            (x if isinstance(x, Tensor) else patch_features(x, encoder) for x in photos), SMALL_SET
        )
        for photos in (originals, reconstructions)
    ]
    whole = [moments.gaussian() for moments in sets]
    scale = _scale(whole[0])
    interval = None
    if all(moments.photos <= SMALL_SET for moments in sets):
        interval = resampled_interval(
            (sets[0].photos, sets[1].photos),
            lambda *drawn: _distance(*map(Moments.drawn, sets, drawn), scale),
        )
    counts = (
        f"{sets[0].photos} originals ({sets[0].count} patches), "
        f"{sets[1].photos} reconstructions ({sets[1].count})"
    )
    protocol = (
        f"patch Fréchet distance (perco_lite's own, not FID), {PATCH}-pixel patches, not resized, "
        f"{_fingerprint(encoder)}, mean and log deviation per channel, originals' units, "
        f"ridge {RIDGE}, {counts}, torch {version('torch')}"
    )
    return Score(_distance(*whole, scale), protocol, interval)


def _scale(originals: Gaussian) -> Tensor:
    """The units in which distances are measured: standard deviations (F,) of the originals."""
    return originals[1].diagonal().clamp(min=1e-12).sqrt()


def _distance(a: Gaussian, b: Gaussian, scale: Tensor) -> float:
    ridge = RIDGE * torch.eye(len(scale), dtype=torch.float64)
    units = [
        (mean / scale, covariance / torch.outer(scale, scale) + ridge)
        for mean, covariance in (a, b)
    ]
    return frechet_distance(*units)


def _fingerprint(encoder: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        digest.update(name.encode() + tensor.float().cpu().numpy().tobytes())
    bundled = encoder is load_patch_encoder()
    name = "bundled autoencoder's encoder up to H/4" if bundled else type(encoder).__name__
    return f"{name} (sha256 of its parameters {digest.hexdigest()[:12]})"
