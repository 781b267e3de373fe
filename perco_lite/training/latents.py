"""Cached latents of the training photos, and the crops drawn from them.

    photos ──enlarge──► autoencoder.encode ──► latents (4,h,w) float16, in one safetensors file
                                                 └─ crops (B,4,size,size) with their photos' numbers

Paper: PerCo, Sec. 4.1 (512x512 crops, encoded afresh every time).
Differs from the paper: encoded once, since the autoencoder is frozen and encoding costs as much as
a training step of a small U-Net. Photos are cached as sharp as they are, and a part of them again
enlarged to a short side of 448 pixels, so that smooth surfaces of large photos occur as well.
"""

import hashlib
import warnings
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from perco_lite import files
from perco_lite.autoencoder import FACTOR, Autoencoder
from perco_lite.training.photos import PhotoStore, that_hold_a_crop


class LatentStore:
    """Latents (4,h,w) float16, the photo each comes from, and how often each is drawn."""

    def __init__(self, latents: list[Tensor], photos: list[int], weights: Tensor):
        self.latents, self.photos, self.weights = latents, photos, weights
        self.smallest = min((min(one.shape[1:]) for one in latents), default=0)

    def with_crops(self, size: int) -> "LatentStore":
        """Those large enough for crops of that size, if any; a warning counts the others."""
        crop = f"{size} latents ({FACTOR * size} pixels) a side"
        kept = that_hold_a_crop(self.latents, size, crop)
        if len(kept) == len(self.latents):
            return self
        latents, photos = ([one[i] for i in kept] for one in (self.latents, self.photos))
        return LatentStore(latents, photos, self.weights[kept])

    def crops(self, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, list[int]]:
        """Random crops (count,4,size,size) float32 and the number of the photo of each.

        Raises ValueError if the smallest photo has no crop of that size.
        """
        if size > self.smallest:
            raise ValueError(
                f"crop is {size} latents a side, expected at most {self.smallest}, the short side "
                "of the smallest photo; choose a smaller crop"
            )
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        crops = []
        for index in chosen.tolist():
            latents = self.latents[index]
            top, left = (
                int(torch.randint(0, side - size + 1, (), generator=generator))
                for side in latents.shape[1:]
            )
            crops.append(latents[:, top : top + size, left : left + size].float())
        return torch.stack(crops), [self.photos[i] for i in chosen.tolist()]


def cache_latents(
    autoencoder: Autoencoder,
    store: PhotoStore,
    path: Path,
    whole: int = 7000,
    large: int = 1000,
    seed: int = 0,
) -> LatentStore:
    """Encode photos, or read them back if ``path`` was made by the same autoencoder.

    ``whole`` photos (drawn by their weights) are cached as they are, or at short side 256 if they
    are smaller than 200; ``large`` of those are cached a second time, as a 320x320 crop of the
    photo at short side 448. Caching 1,000 photos takes a laptop a minute, so a short training on a
    CPU does better with a part of them.
    """
    mark = fingerprint(autoencoder, "decoder")  # latents do not depend on it
    key = f"{mark} {len(store)} {whole} {large} {seed}"
    with suppress(OSError, SafetensorError):  # none yet, or cut short
        with safe_open(path, "pt") as file:
            if file.metadata().get("key") == key:
                return _assemble({name: file.get_tensor(name) for name in file.keys()})
    generator = torch.Generator().manual_seed(seed)
    count = min(whole, len(store))
    chosen = torch.multinomial(store.weights, count, generator=generator).tolist()
    # a line of pixels would be enlarged beyond any memory
    chosen = [
        i for i in chosen if max(store.photos[i].shape) <= 32 * min(store.photos[i].shape[1:])
    ]
    if len(chosen) < count:
        warnings.warn(
            f"skipped {count - len(chosen)} photos over 32 times as long as wide", stacklevel=2
        )
    short = {i: min(store.photos[i].shape[1:]) for i in chosen}
    big = [i for i in chosen if short[i] >= 200][:large]
    jobs = [(i, short[i] if short[i] >= 200 else 256, None) for i in chosen]
    jobs += [(i, 448, 320) for i in big]
    tensors = {}
    for photo, short_side, crop in tqdm(jobs, desc="latents", unit="photo", mininterval=2):
        image = _enlarge(store.photos[photo], short_side, crop, generator)
        with torch.no_grad():
            latents = autoencoder.encode(image.to(autoencoder.device))[0]
        tensors[f"{photo}@{short_side}"] = latents.to("cpu", torch.float16).contiguous()
    with files.whole(path) as fresh:
        save_file(tensors, fresh, {"key": key})
    return _assemble(tensors)


def _enlarge(
    photo: Tensor, short_side: int, crop: int | None, generator: torch.Generator
) -> Tensor:
    """Photo (3,H,W) uint8 -> (1,3,h,w) in [-1,1] at that short side, half of them mirrored."""
    image = photo[None].float() / 127.5 - 1
    height, width = (round(side * short_side / min(photo.shape[1:])) for side in photo.shape[1:])
    if (height, width) != photo.shape[1:]:
        image = F.interpolate(image, (height, width), mode="bicubic", antialias=True).clamp(-1, 1)
    if crop:
        top = int(torch.randint(0, height - crop + 1, (), generator=generator))
        left = int(torch.randint(0, width - crop + 1, (), generator=generator))
        image = image[..., top : top + crop, left : left + crop]
    if torch.rand((), generator=generator) < 0.5:
        image = image.flip(-1)
    return image[..., : image.shape[2] // FACTOR * FACTOR, : image.shape[3] // FACTOR * FACTOR]


def _assemble(tensors: dict[str, Tensor]) -> LatentStore:
    names = sorted(tensors, key=lambda name: tuple(int(part) for part in name.split("@")))
    photos = [int(name.split("@")[0]) for name in names]
    # an enlarged crop counts more than its photo: there are fewer of them than photos
    weights = torch.tensor([2.0 if name.endswith("@448") else 1.0 for name in names])
    return LatentStore([tensors[name] for name in names], photos, weights)


def fingerprint(network: nn.Module, without: str | None = None) -> str:
    """What a cache was made by: SHA-256 of a network's tensors, but of those of ``without``."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        if without is None or not name.startswith(without):
            digest.update(name.encode() + value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()
