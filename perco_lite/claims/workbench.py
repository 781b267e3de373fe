"""What every experiment on a claim works with: photos, files, pictures and their figures.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    photos ──centre crop──► Workbench ──condition(rate)──► (N,C,h',w') ──paint──► N pictures
                                 └──figures(picture)──► PSNR, MS-SSIM, feature distance

Pictures are painted with the paper's noise (at full strength, no anchor), so that what is compared
is its method and not our additions; a picture that two experiments need is painted once.

Paper: PerCo, Sec. 4 and appendix A.
Differs from the paper: crops of 24 photos instead of 30,000 photos, and guidance 1 where guidance
is not what is measured; LPIPS is replaced by nothing: the feature distance is our own.
"""

from dataclasses import dataclass, field
from functools import cache

import torch
from PIL import Image
from torch import Tensor

from perco_lite.codec import PercoCodec
from perco_lite.coding.bitstream import unpack
from perco_lite.data import Sample, image_to_tensor, kodak_photos, skimage_photos
from perco_lite.metrics import ms_ssim, psnr
from perco_lite.perceptual import load_feature_distance
from perco_lite.tiling import BATCH_PIXELS

PAPER_NOISE = {"temperature": 1.0, "anchor": 0.0}
FIGURES = ("psnr", "ms_ssim", "feature_distance")
GRID = 64  # pixels; crops are multiples of the largest stride


@dataclass(frozen=True)
class ClaimSettings:
    """How large the experiments are; the defaults take a quarter of an hour on two cores."""

    photos: int = 0  # at most; 0 = all
    crop: int = 256  # pixels a side
    steps: int = 20
    seeds: int = 3
    draws: int = 200  # of the photos, for intervals of figures of a set
    training_steps: int = 100
    training_photos: int = 400

    def __post_init__(self):
        if self.crop < GRID or self.crop % GRID:
            raise ValueError(f"got crop {self.crop}, expected a multiple of {GRID}, such as 256")
        if min(self.steps, self.training_steps, self.training_photos) < 1 or self.seeds < 2:
            raise ValueError(f"got {self}, expected at least 1 of everything and 2 seeds")
        if self.photos < 0 or self.draws < 2:
            raise ValueError(f"got {self}, expected photos of at least 0 and 2 draws or more")


@dataclass
class Outcome:
    """What one experiment found: a row a photo and setting, draws of set figures, and remarks."""

    rows: list[dict]
    draws: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Workbench:
    """A codec and photos of one size. ``samples``: any photos; they are cropped here."""

    def __init__(self, codec: PercoCodec, samples: list[Sample], settings: ClaimSettings):
        self.codec, self.settings = codec, settings
        self.lowest, self.highest = codec.rates[0], codec.rates[-1]
        large = [s for s in samples if min(s.image.size) >= settings.crop]
        if len(large) < 2:
            raise ValueError(
                f"got {len(large)} photos of at least {settings.crop} pixels a side, expected 2 or "
                "more; put Kodak's where data/README.md says, or take a smaller crop"
            )
        self.samples = large[: settings.photos or None]
        self.names = [s.name for s in self.samples]
        self.captions = [s.caption for s in self.samples]
        self.source = self.samples[0].source
        self.images = [centre(s.image, settings.crop, settings.crop) for s in self.samples]
        try:
            self.features, self.missing = load_feature_distance().to(codec.device), ""
        except FileNotFoundError as error:
            self.features, self.missing = None, str(error)
        # what two experiments need is made once
        self.latents, self.files = cache(self.latents), cache(self.files)
        self.condition, self._painted = cache(self.condition), cache(self._painted)

    def notes(self) -> list[str]:
        """What a reader of any figure should know."""
        return [f"feature_distance not measured: {self.missing}"] if self.missing else []

    @torch.no_grad()
    def latents(self) -> Tensor:
        """Latents (N,4,h',w') of the crops."""
        parts = [image_to_tensor(image).to(self.codec.device) for image in self.images]
        return torch.cat([self.codec.autoencoder.encode(part) for part in parts])

    def files(self, rate: str) -> list[bytes]:
        """The photos' files, as the codec makes them."""
        return self.codec.compress(self.images, self.captions, rate)

    def condition(self, rate: str) -> Tensor:
        """What those files' indices decode to, (N,C,h',w')."""
        return torch.cat([self.codec.condition(unpack(data)) for data in self.files(rate)])

    def paint(
        self,
        rate: str,
        steps: int | None = None,
        guidance: float = 1.0,
        seed: int = 0,
        texts: list[str] | None = None,
        condition: Tensor | None = None,
    ) -> list[Image.Image]:
        """Pictures of the photos' own bits and captions, or of other ``texts``, ``condition``.

        Each photo has noise of its own, and the same in every setting: settings are compared pair
        by pair.
        """
        steps = self.settings.steps if steps is None else steps
        how = tuple(self.captions if texts is None else texts), rate, steps, guidance, seed
        return self._painted(*how) if condition is None else self._paint(condition, *how)

    def _painted(self, texts: tuple[str, ...], rate: str, *how) -> list[Image.Image]:
        return self._paint(self.condition(rate), texts, rate, *how)

    def _paint(self, condition: Tensor, texts, rate: str, steps, guidance, seed: int) -> list:
        """As many pictures at a time as fit into memory."""
        seeds = [100_003 * seed + number for number in range(len(condition))]
        size, pictures = max(1, BATCH_PIXELS // self.settings.crop**2), []
        for start in range(0, len(condition), size):
            part = slice(start, start + size)
            how = rate, steps, guidance, seeds[part]
            pictures += self.codec.paint(condition[part], texts[part], *how, **PAPER_NOISE)
        return pictures

    def rows(self, pictures: list[Image.Image], **setting) -> list[dict]:
        """One row a photo: its name, the setting, and the picture's figures."""
        pairs = zip(self.names, self.images, pictures, strict=True)
        return [{"photo": n, **setting, **self.figures(a, b)} for n, a, b in pairs]

    @torch.no_grad()
    def figures(self, original: Image.Image, picture: Image.Image) -> dict[str, float | None]:
        """FIGURES of one picture; None where one cannot be computed."""
        distance = None
        if self.features is not None:
            tensors = (image_to_tensor(x).to(self.codec.device) for x in (picture, original))
            distance = self.features(*tensors).item()
        near, alike = psnr(original, picture), ms_ssim(original, picture)
        return dict(zip(FIGURES, (near, alike, distance), strict=True))


def claim_photos() -> list[Sample]:
    """Kodak where it is found, scikit-image's photos otherwise; each row says which by its name."""
    return kodak_photos() or skimage_photos()


def centre(image: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a photo; ``ValueError`` where it is smaller."""
    if image.width < width or image.height < height:
        raise ValueError(
            f"got a photo of {image.width}x{image.height}, expected at least {width}x{height}; "
            "leave it out"
        )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
