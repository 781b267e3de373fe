"""Training photos in memory, and the crops drawn from them.

    shards or folder ──► PhotoStore (uint8, C,H,W each) ──crops──► image (B,3,size,size) in [-1,1]

Paper: PerCo, Sec. 4.1 (random crops of OpenImages photos).
Differs from the paper: a few thousand small photos, enlarged at random so that the model also sees
the smooth surfaces of large photos.
"""

import copy
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from perco_lite.training.shards import read_training_photos


def that_hold_a_crop(grids: list[Tensor], side: int, crop: str) -> list[int]:
    """Numbers of those of (C,H,W) that hold a crop of that side; all, where none or each does.

    A warning counts the others; ``crop`` says its size.
    """
    kept = [i for i, grid in enumerate(grids) if min(grid.shape[1:]) >= side]
    if not kept or len(kept) == len(grids):
        return list(range(len(grids)))
    warnings.warn(
        f"skipped {len(grids) - len(kept)} of {len(grids)} photos, smaller than a crop of {crop}; "
        "a smaller crop would use them",
        stacklevel=4,
    )
    return kept


class PhotoStore:
    """Photos as uint8 tensors (3,H,W) with their captions; a photo is drawn in proportion to its
    weight, 1 for most and less for those smaller than 200 pixels."""

    def __init__(self, path: str | Path, limit: int | None = None):
        self.photos: list[Tensor] = []
        self.captions: list[list[str]] = []
        for photo in read_training_photos(path):
            pixels = torch.frombuffer(bytearray(photo.image.tobytes()), dtype=torch.uint8)
            width, height = photo.image.size
            self.photos.append(pixels.view(height, width, 3).permute(2, 0, 1).contiguous())
            self.captions.append(photo.captions)
            if limit and len(self.photos) >= limit:
                break
        # half as often: a photo of 128x128 pixels shows little that a crop has not shown already
        self.weights = torch.tensor([1.0 if min(p.shape[1:]) >= 200 else 0.5 for p in self.photos])

    def __len__(self) -> int:
        return len(self.photos)

    def large_enough(self, side: int) -> "PhotoStore":
        """Those that a crop of that side fits into, if any; a warning counts the others."""
        kept = that_hold_a_crop(self.photos, side, f"{side} pixels a side")
        if len(kept) == len(self):
            return self
        twin = copy.copy(self)
        twin.photos, twin.captions = (
            [one[i] for i in kept] for one in (self.photos, self.captions)
        )
        twin.weights = self.weights[kept]
        return twin

    def described(self) -> "PhotoStore":
        """The same photos, of which those without captions are never drawn.

        Raises ValueError where fewer than two have one.
        """
        twin = copy.copy(self)
        twin.weights = self.weights * torch.tensor([float(bool(texts)) for texts in self.captions])
        if (found := int((twin.weights > 0).sum())) < 2:
            raise ValueError(
                f"{found} of {len(self)} photos have captions, expected at least 2; give "
                "--caption-data, or --caption-weight 0"
            )
        return twin

    def crops(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Random crops (count,3,size,size) in [-1,1], enlarged up to twofold, half flipped."""
        return self.draw(count, size, generator)[0]

    def draw(self, count: int, size: int, generator: torch.Generator) -> tuple[Tensor, list[int]]:
        """The same, and the number of the photo of each."""
        chosen = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        chosen, crops = chosen.tolist(), []
        for index in chosen:
            photo = self.photos[index]
            draw = torch.rand(5, generator=generator).tolist()
            scale = 1.0 if draw[0] < 0.6 else 1 + draw[1]
            side = min(round(size / scale), *photo.shape[1:])
            top = int(draw[2] * (photo.shape[1] - side + 1))
            left = int(draw[3] * (photo.shape[2] - side + 1))
            crop = photo[None, :, top : top + side, left : left + side].float() / 127.5 - 1
            if side != size:
                crop = F.interpolate(crop, (size, size), mode="bicubic").clamp(-1, 1)
            if draw[4] < 0.5:
                crop = crop.flip(-1)
            crops.append(crop)
        return torch.cat(crops), chosen
