"""Training stage 1, `perco train autoencoder`: photos to latents and back.

    crops (B,3,size,size) ──► autoencoder ──► reconstruction ──► L1 + MSE + perceptual distance

Paper: none; PerCo uses an autoencoder trained by others.
Differs from the latent-diffusion recipe: no KL term and no discriminator. Noise on the latents
takes the KL term's place (it bounds what a latent can hold), LPIPS sharpens.
"""

import copy
import csv
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from perco_lite.autoencoder import FACTOR, Autoencoder
from perco_lite.data import (
    find_data,
    image_to_tensor,
    list_photos,
    load_photo,
    tensor_to_image,
)
from perco_lite.files import explain
from perco_lite.perceptual import SQUEEZENET_FILE, Lpips, PerceptualDistance, may_download
from perco_lite.training.loop import train
from perco_lite.training.photos import PhotoStore
from perco_lite.training.settings import PERCEPTUAL_WEIGHTS, AutoencoderSettings
from perco_lite.training.shards import find_training_data
from perco_lite.training.teacher import TaughtAutoencoderLoss, Teacher


class AutoencoderLoss(nn.Module):
    """The training objective around an autoencoder; ``forward(image) -> losses``.

    ``hold_latents`` weighs how far (mean square) the latents may move from those of the weights it
    starts from: a codec trained on them can then go on, with the same codebooks, where a free
    encoder's latents would mean nothing to it.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        perceptual: nn.Module | None,
        perceptual_weight: float = 1.0,
        latent_noise: float = 0.03,
        hold_latents: float = 0.0,
        sharpen_from: int = 0,
    ):
        super().__init__()
        self.autoencoder = autoencoder
        # in a list, so that what is held on to is no part of what is trained, saved and averaged
        self.held = [_frozen_copy(autoencoder)] if hold_latents else []
        self.hold_latents = hold_latents
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight if perceptual else 0.0
        self.latent_noise = latent_noise
        self.sharpen_from = sharpen_from  # colours first: the distance costs half a step

    def forward(self, image: Tensor, step: int | None = None) -> dict[str, Tensor]:
        """Losses of images (B,3,s,s) at a step of the training; without one, at a late one."""
        reconstruction, latents = self.autoencoder(image, self.latent_noise)
        error = reconstruction.float() - image
        losses = {"l1": error.abs().mean(), "mse": error.pow(2).mean()}
        losses["features"] = torch.zeros_like(losses["l1"])
        loss = losses["l1"] + 4 * losses["mse"]
        if self.perceptual_weight and (step is None or step >= self.sharpen_from):
            losses["features"] = self.perceptual(reconstruction.float(), image).mean()
            loss = loss + self.perceptual_weight * losses["features"]
        for held in self.held:
            with torch.no_grad():
                before = held.to(image.device).encode(image)
            losses["moved"] = (latents.float() - before).pow(2).mean()
            loss = loss + self.hold_latents * losses["moved"]
        losses["psnr"] = -10 * torch.log10(losses["mse"] / 4)
        return {"loss": loss, **losses}


class AutoencoderStage:
    """What ``training.train`` needs to train the autoencoder on a folder or on shards."""

    def __init__(
        self,
        store: PhotoStore,
        module: AutoencoderLoss,
        crop: int = 128,
        preview_photos: list[Path] = (),
    ):
        self.module, self.store, self.crop = module, store, crop
        self.preview_photos = preview_photos

    def batch(self, step: int, count: int, generator: torch.Generator, number: int = 0) -> dict:
        return {"image": self.store.crops(count, self.crop, generator), "step": step}

    def export(self, folder: Path) -> None:
        self._calibrated().save_pretrained(folder)

    @torch.no_grad()
    def _calibrated(self) -> Autoencoder:
        """A copy whose latent statistics are those of its own (EMA) weights, over 128 crops."""
        autoencoder = copy.deepcopy(self.module.autoencoder).eval()
        if self.module.autoencoder.keeps_latents:
            return autoencoder
        image = self.store.crops(128, self.crop, torch.Generator().manual_seed(0))
        parts = image.to(autoencoder.device).split(16)
        raw = torch.cat([autoencoder.encoder(part) for part in parts])
        autoencoder.latent_mean.copy_(raw.mean((0, 2, 3)))
        autoencoder.latent_std.copy_(raw.std((0, 2, 3)))
        return autoencoder

    @torch.no_grad()
    def preview(self, path: Path) -> None:
        """Crops above their reconstructions, and the PSNR of whole photos in ``preview.csv``."""
        autoencoder = self._calibrated()
        device = autoencoder.device
        pairs, rows = [], []
        for photo in self.preview_photos:
            image = image_to_tensor(load_photo(photo)).to(device)
            image = image[..., : image.shape[2] // 8 * 8, : image.shape[3] // 8 * 8]
            decoded = autoencoder.decode(autoencoder.encode(image)).clamp(-1, 1)
            psnr = -10 * torch.log10((decoded - image).pow(2).mean() / 4)
            rows.append([Path(photo).name, f"{psnr:.2f}"])
            pairs.append((image, decoded))
        if pairs:
            side = min(256, *(length for image, _ in pairs for length in image.shape[2:]))
            columns = [torch.cat([_middle(one, side) for one in pair], dim=2) for pair in pairs]
            tensor_to_image(torch.cat(columns, dim=3)).save(path)
            with path.with_suffix(".csv").open("a", newline="") as file:
                csv.writer(file).writerows(rows)


def _frozen_copy(autoencoder: Autoencoder) -> Autoencoder:
    """The autoencoder as it is now, however the original goes on."""
    return copy.deepcopy(autoencoder).requires_grad_(False).eval()


def _middle(image: Tensor, side: int) -> Tensor:
    """The square of ``side`` pixels in the middle of an image (1,3,H,W)."""
    top, left = ((length - side) // 2 for length in image.shape[2:])
    return image[..., top : top + side, left : left + side]


def train_autoencoder_recipe(data: str | Path | None, output: Path, **options) -> dict:
    """Stage 1, from new weights or going on from those of ``start``; ``AutoencoderSettings``.

    Where LPIPS cannot be had, a warning says why, and the run trains without. Raises ValueError
    for settings that do not go together, FileNotFoundError for photos or weights that are missing.
    """
    settings = AutoencoderSettings(data=data, output=output, **options)
    torch.manual_seed(settings.seed)
    if settings.hold_latents and not settings.start:
        raise ValueError(
            f"got hold_latents {settings.hold_latents:g} without start, expected the weights whose "
            "latents to hold on to; give --start too"
        )
    if settings.crop < FACTOR or settings.crop % FACTOR:
        raise ValueError(f"crop is {settings.crop} pixels, expected a multiple of {FACTOR}")
    data = find_training_data(data)
    store = PhotoStore(data).large_enough(settings.crop)
    source = settings.decoder_of or settings.start
    autoencoder = load_autoencoder(source) if source else Autoencoder(**_sizes(settings))
    if settings.decoder_of:
        autoencoder.encoder.requires_grad_(False)
    else:
        autoencoder.fold_statistics()
    autoencoder.keeps_latents = bool(settings.decoder_of or settings.hold_latents)
    sharpen = _perceptual(data, settings)
    if settings.teacher:
        teacher = Teacher(settings.teacher)
        loss = TaughtAutoencoderLoss(autoencoder, teacher, *sharpen, settings.latent_noise)
    else:
        from_step = 0 if settings.decoder_of else round(0.6 * settings.steps)
        options = settings.latent_noise, settings.hold_latents, from_step
        loss = AutoencoderLoss(autoencoder, *sharpen, *options)
    folder = find_data("kodak")
    photos = list_photos(folder) if folder else []
    return train(AutoencoderStage(store, loss, settings.crop, photos), settings)


def _sizes(settings: AutoencoderSettings) -> dict:
    """Of new weights: Autoencoder's own, or those that work closer to the pixels."""
    whole = {"encoder_widths": (48, 96, 128), "encoder_blocks": (2, 3, 3)}
    whole |= {"decoder_widths": (128, 96, 64, 24), "decoder_blocks": (3, 3, 3, 1)}
    return whole if settings.whole else {}


def load_autoencoder(path: str | Path) -> Autoencoder:
    """Weights of stage 1, or the autoencoder inside a whole codec's folder."""
    folder = Path(path)
    if (folder / "autoencoder" / "config.json").exists():
        folder = folder / "autoencoder"
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"no autoencoder weights in {path}; train them first with `perco train autoencoder`"
        )
    return Autoencoder.from_pretrained(folder, torch_dtype=torch.float32)


def squeezenet_file(data: str | Path) -> Path:
    """Where SqueezeNet's weights are expected: in the folder "weights" beside the photos."""
    return Path(data).parent / "weights" / SQUEEZENET_FILE


def _perceptual(data: str | Path, settings: AutoencoderSettings) -> tuple[nn.Module | None, float]:
    """The distance that sharpens, and its weight."""
    if settings.perceptual not in PERCEPTUAL_WEIGHTS:
        known = ", ".join(PERCEPTUAL_WEIGHTS)
        raise ValueError(f"perceptual is {settings.perceptual!r}, expected one of {known}")
    weight = settings.perceptual_weight
    weight = PERCEPTUAL_WEIGHTS[settings.perceptual] if weight is None else weight
    if not weight:
        return None, 0.0
    if settings.perceptual == "squeezenet":
        return PerceptualDistance.from_file(squeezenet_file(data)), weight
    try:
        return Lpips("squeeze", may_download()), weight
    except (ImportError, OSError) as error:
        warnings.warn(f"training without the perceptual term: {explain(error)}", stacklevel=2)
        return None, 0.0
