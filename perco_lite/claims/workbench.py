"""What every experiment on a claim works with: photos, files, pictures and their figures.

    photos ──centre crop──► Workbench ──condition(rate)──► (N,C,h',w') ──paint──► N pictures
                                 └──figures(picture)──► PSNR, MS-SSIM, feature distance

Pictures are painted with the paper's dice (full noise, no anchor), so that what is compared is its
method and not our additions; a picture that two experiments need is painted once.

Paper: PerCo, Sec. 4 and appendix A.
Differs from the paper: crops of 24 photos instead of 30,000 photos, and guidance 1 where guidance
is not what is measured; LPIPS is replaced by nothing: the feature distance is our own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from perco_lite.captions import embed_captions
from perco_lite.codec import PercoCodec
from perco_lite.coding.bitstream import unpack
from perco_lite.data import (
    Sample,
    find_data,
    image_to_tensor,
    kodak_photos,
    skimage_photos,
    tensor_to_image,
)
from perco_lite.metrics import ms_ssim, psnr
from perco_lite.perceptual import SQUEEZENET_FILE, PerceptualDistance
from perco_lite.rates import RATES
from perco_lite.sampling import denoise, draw_noise
from perco_lite.tiling import BATCH_PIXELS
from perco_lite.unet import predict_velocity

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
        self.features, self.missing = load_feature_distance()
        if self.features is not None:
            self.features.to(codec.device)
        self._kept: dict[tuple, object] = {}

    @property
    def lowest(self) -> str:
        return self.codec.rates[0]

    @property
    def highest(self) -> str:
        return self.codec.rates[-1]

    def notes(self) -> list[str]:
        """What a reader of any figure should know."""
        return [f"feature_distance not measured: {self.missing}"] if self.missing else []

    @torch.no_grad()
    def latents(self) -> Tensor:
        """Latents (N,4,h',w') of the crops."""

        def make() -> Tensor:
            parts = [image_to_tensor(image).to(self.codec.device) for image in self.images]
            return torch.cat([self.codec.autoencoder.encode(part) for part in parts])

        return self._keep(("latents",), make)

    def files(self, rate: str) -> list[bytes]:
        """The photos' files, as the codec makes them."""
        make = lambda: self.codec.compress(self.images, self.captions, rate)  # noqa: E731
        return self._keep(("files", rate), make)

    @torch.no_grad()
    def condition(self, rate: str) -> Tensor:
        """What those files' indices decode to, (N,C,h',w')."""

        def make() -> Tensor:
            return torch.cat([self.codec.condition(unpack(data)) for data in self.files(rate)])

        return self._keep(("condition", rate), make)

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
        own = self.captions if texts is None else texts
        bits = self.condition(rate) if condition is None else condition
        make = lambda: paint(self.codec, bits, own, rate, steps, guidance, seed)  # noqa: E731
        if condition is not None:
            return make()
        return self._keep(("paint", rate, steps, guidance, seed, tuple(own)), make)

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

    def _keep(self, key: tuple, make: Callable):
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@torch.no_grad()
def paint(
    codec: PercoCodec,
    condition: Tensor,
    texts: list[str],
    rate: str,
    steps: int,
    guidance: float = 1.0,
    seed: int = 0,
) -> list[Image.Image]:
    """Pictures of conditions (N,C,h',w') and captions with the paper's dice, a batch at a time."""
    codec.rate(rate)
    each = condition.shape[-2] * condition.shape[-1] * 64
    size = max(1, BATCH_PIXELS // each)
    empty = embed_captions(codec.tokenizer, codec.text_encoder, [""])
    number = [r.name for r in RATES].index(rate)
    channels = codec.autoencoder.config.latent_channels
    pictures = []
    for start in range(0, len(condition), size):
        part = condition[start : start + size]
        text = embed_captions(codec.tokenizer, codec.text_encoder, texts[start : start + size])
        seeds = [100_003 * seed + start + i for i in range(len(part))]
        noise = draw_noise((channels, *part.shape[-2:]), seeds).to(part)
        ids = torch.full((len(part),), number, device=part.device)
        for step in denoise(
            codec.unet, codec.scheduler, noise, part, text, empty, ids, steps, guidance
        ):
            latents = step.latents
        decoded = [codec.autoencoder.decode(one[None]) for one in latents]
        pictures += [tensor_to_image(one) for one in decoded]
    return pictures


@torch.no_grad()
def velocity_losses(
    codec: PercoCodec, latents: Tensor, condition: Tensor, texts: list[str], rate: str, seed: int
) -> list[float]:
    """v-loss of one photo (1,4,h',w') under its condition, for each of several texts.

    Mean over five noise levels; latents and noise are the same for all texts.
    """
    levels = torch.arange(199, 1000, 200)
    noise = torch.randn(
        (len(levels), *latents.shape[1:]), generator=torch.Generator().manual_seed(seed)
    ).to(latents)
    many = latents.expand_as(noise)
    noisy = codec.scheduler.add_noise(many, noise, levels)
    target = codec.scheduler.get_velocity(many, noise, levels)
    embedded = embed_captions(codec.tokenizer, codec.text_encoder, texts)
    count = len(texts) * len(levels)
    velocity = predict_velocity(
        codec.unet,
        noisy.repeat(len(texts), 1, 1, 1),
        levels.repeat(len(texts)).to(latents.device),
        condition.expand(count, -1, -1, -1),
        embedded.repeat_interleave(len(levels), 0),
        torch.full((count,), [r.name for r in RATES].index(rate), device=latents.device),
    )
    errors = F.mse_loss(velocity, target.repeat(len(texts), 1, 1, 1), reduction="none")
    return errors.mean((1, 2, 3)).view(len(texts), -1).mean(1).tolist()


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


def load_feature_distance() -> tuple[PerceptualDistance | None, str]:
    """The training's SqueezeNet distance: ``(network, "")``, or ``(None, reason)``; not LPIPS."""
    folder = find_data("weights")
    if folder is None or not (folder / SQUEEZENET_FILE).exists():
        return None, f"no {SQUEEZENET_FILE} in a folder called weights (data/README.md)"
    return PerceptualDistance.from_file(folder / SQUEEZENET_FILE), ""


def number(value: float | int | str | None) -> str:
    """A cell of a table: six digits are more than any of these figures knows."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ("inf" if value > 0 else "nan")
    return str(value)
