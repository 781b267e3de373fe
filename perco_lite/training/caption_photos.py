"""Captioned photos for the captioner's training, and what its frozen eyes see in them, cached.

    captioned photos ──whole, and a mirrored crop──► PhotoFeatures ──► (N,2,49,1280) uint8, a file

Paper: nothing on this.
"""

import json
from contextlib import suppress
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from perco_lite import files
from perco_lite.captioning.photo_features import CHANNELS, PLACES, PhotoFeatures, squash
from perco_lite.training.latents import fingerprint
from perco_lite.training.shards import ShardPhoto, read_training_photos

VIEWS = 2
HELD_OUT = 32  # one photo in so many is for looking how far the training is
_TOP, _AT_ONCE = 6.0, 16  # of ReLU6; photos
_ABOUT, _FEATURES = "photos.json", "features.u8"


class CaptionPhotos:
    """Keys, captions and features of photos; the features stay on disk."""

    def __init__(self, keys: list[str], captions: list[list[str]], features: np.ndarray):
        self.keys, self.captions, self.stored = keys, captions, features

    def features(self, photos: list[int], views: list[int]) -> Tensor:
        """Features (B,49,1280) float32 in [0,6] of a view of each photo; 0 is the whole one."""
        seen = np.stack([self.stored[p, v] for p, v in zip(photos, views, strict=True)])
        return torch.from_numpy(seen).float() * (_TOP / 255)

    def split(self) -> tuple[list[int], list[int]]:
        """Numbers of the photos to learn from, and of those held out, by their keys alone."""
        held = [crc32(plain_key(key).encode()) % HELD_OUT == 0 for key in self.keys]
        return ([i for i, h in enumerate(held) if not h], [i for i, h in enumerate(held) if h])


def plain_key(key: str) -> str:
    """The key of a photo's copies: flickr-1 of native-flickr-1."""
    return key.removeprefix("native-")


def cache_features(
    network: PhotoFeatures, data: str | Path, folder: Path, without: set[str] = frozenset()
) -> CaptionPhotos:
    """Features of all captioned photos but those whose keys are in ``without``.

    Read back from ``folder`` if it was made of the same photos by the same network. 1,000 photos
    take a core a minute. Raises ``ValueError`` where no photo has a caption.
    """
    about, stored = folder / _ABOUT, folder / _FEATURES
    mark = {"network": fingerprint(network), "data": str(data), "without": sorted(without)}
    with suppress(OSError, ValueError):  # none yet, or cut short
        if json.loads(about.read_bytes())["mark"] == mark:
            return open_features(folder)
    keys, captions, waiting = [], [], []
    with files.whole(stored) as fresh, fresh.open("wb") as stream:
        for photo in tqdm(read_training_photos(data), desc="features", unit="photo", mininterval=2):
            if photo.captions and plain_key(photo.key) not in without:
                keys.append(photo.key)
                captions.append(photo.captions)
                waiting += _views(photo)
            if len(waiting) >= _AT_ONCE * VIEWS:
                stream.write(_see(network, waiting))
                waiting = []
        stream.write(_see(network, waiting) if waiting else b"")
    if not keys:
        raise ValueError(f"no photo with a caption in {data}; see data/README.md for the layout")
    known = {"mark": mark, "keys": keys, "captions": captions}
    files.write_whole(about, json.dumps(known, ensure_ascii=False).encode())
    return open_features(folder)


def open_features(folder: Path) -> CaptionPhotos:
    """What ``cache_features`` has left in a folder; OSError or ValueError where it is not whole."""
    known = json.loads((folder / _ABOUT).read_bytes())
    shape = (len(known["keys"]), VIEWS, PLACES, CHANNELS)
    features = np.memmap(folder / _FEATURES, np.uint8, "r", shape=shape)
    return CaptionPhotos(known["keys"], known["captions"], features)


def _views(photo: ShardPhoto) -> list[Image.Image]:
    """The photo, and a crop of 85 to 100 % of its sides, mirrored; the same for the same key."""
    draw = np.random.default_rng(crc32(photo.key.encode()))
    size = np.array(photo.image.size)
    inside = np.maximum(size * draw.uniform(0.85, 1), 1).astype(int)
    left, top = (draw.uniform(size=2) * (size - inside + 1)).astype(int)
    crop = photo.image.crop((left, top, left + inside[0], top + inside[1]))
    return [photo.image, ImageOps.mirror(crop)]


@torch.inference_mode()
def _see(network: PhotoFeatures, photos: list[Image.Image]) -> bytes:
    features = network(squash(photos).to(network.stem.weight.device))
    return (features.float() * (255 / _TOP)).round().to("cpu", torch.uint8).numpy().tobytes()
