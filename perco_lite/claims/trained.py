"""Short trainings for the two claims on training, in pairs that differ in one thing.

    a new U-Net, seed s ─┬─► N steps with the grid ────────┐ both at 0.0019, the same photos, crops
                         └─► N steps with zeros in its place┘ and noise: "trained with grid, seed s"
    the loaded weights ──┬─► N steps, LPIPS (squeeze) in the loss ┐ both at 0.1250, likewise
                         └─► N steps without ─────────────────────┘

Hyper-encoders, codes and text encoder stay as they were loaded. A U-Net that had seen grids all its
life would be handicapped without, so both of the first pair start anew; LPIPS only refines what is
there, as in the paper, so the second pair goes on from what is there.

Paper: PerCo, Sec. 3.3 (LPIPS above 0.05 bpp) and 4.4 (no spatial conditioning).
Differs from the paper: some hundred steps; several seeds, so that their luck is in the interval.
"""

import copy
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from perco_lite.codec import PercoCodec
from perco_lite.perceptual import Lpips
from perco_lite.rates import get_rate
from perco_lite.training.codec import CodecLoss, CodecStage
from perco_lite.training.latents import LatentStore, cache_latents
from perco_lite.training.loop import train
from perco_lite.training.photos import PhotoStore
from perco_lite.training.settings import TrainingSettings
from perco_lite.training.shards import find_training_data
from perco_lite.unet import start_silent

GRID, NO_GRID = "trained with grid", "trained without grid"
LPIPS, NO_LPIPS = "trained with LPIPS", "trained without LPIPS"
KINDS = (GRID, NO_GRID, LPIPS, NO_LPIPS)
LPIPS_WEIGHT = 0.1  # as PerCo (SD) sets it; the paper's is not known
BATCH, CROP, LEARNING_RATE = 8, 24, 2e-4  # photos, latents a side
FILE = "trained.safetensors"


class ShortTraining(NamedTuple):
    """How long the trainings are; ``photos`` to train on."""

    steps: int = 100
    photos: int = 400
    seeds: int = 5


def name_of(kind: str, seed: int) -> str:
    return f"{kind}, seed {seed}"


class NoGrid(nn.Module):
    """In place of a condition decoder: zeros (B,C,h',w') for any grid (B,D,h,w)."""

    def __init__(self, channels: int, scale: int):
        super().__init__()
        self.channels, self.scale = channels, scale

    def forward(self, quantized: Tensor) -> Tensor:
        height, width = quantized.shape[-2:]
        return quantized.new_zeros(
            len(quantized), self.channels, self.scale * height, self.scale * width
        )


class _ShortStage(CodecStage):
    """Keeps what was trained, and nothing else."""

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_trained(self.codec), folder / FILE)


def prepare(codec: PercoCodec, kind: str, seed: int) -> PercoCodec:
    """A copy of the codec as a training of this kind starts."""
    copied = PercoCodec(
        **{name: copy.deepcopy(part) for name, part in codec.components.items()},
        **{n: codec.config[n] for n in ("guidance_scale", "temperature", "few_steps")},
    )
    copied.set_progress_bar_config(disable=True)
    copied.text_encoder.requires_grad_(False)
    conditioner = copied.conditioner
    if kind in (GRID, NO_GRID):
        torch.manual_seed(seed)
        unet = type(copied.unet).from_config(copied.unet.config)
        if getattr(unet, "add_embedding", None) is not None:
            nn.init.zeros_(unet.add_embedding.norm2.weight)
        if conditioner.config.residual:
            start_silent(unet)
        copied.unet = unet.to(codec.device)
    if kind == NO_GRID:
        for rate in copied.rates:
            branch = conditioner.branch(rate)
            branch.decoder = NoGrid(conditioner.channels, get_rate(rate).stride // 8)
            if hasattr(branch, "variance"):
                branch.variance.fill_(1.0)  # of latents of which nothing is known
    return copied


def cached_latents(codec: PercoCodec, folder: Path, photos: int) -> tuple[LatentStore, PhotoStore]:
    """Latents of the training photos, encoded once; ``FileNotFoundError`` where there are none."""
    store = PhotoStore(find_training_data(None), limit=photos)
    path = folder / "latents.safetensors"
    return cache_latents(codec.autoencoder, store, path, len(store), 0), store


def train_short(
    codec: PercoCodec, kind: str, seed: int, rate: str, folder: Path, how: ShortTraining
) -> PercoCodec:
    """Train, or read what was trained before, in ``folder``; a codec with its averaged weights.

    A training that was broken off goes on from its last checkpoint.
    """
    trained, place = prepare(codec, kind, seed), folder / name_of(kind, seed).replace(", ", "-")
    done = place / "weights" / FILE
    if not (place / "summary.json").exists():
        latents, store = cached_latents(codec, folder, how.photos)
        perceptual = (Lpips("squeeze"), LPIPS_WEIGHT) if kind == LPIPS else (None, 0.0)
        loss = CodecLoss(trained, *perceptual, freeze_codes=True)
        loss.rates = [get_rate(rate)]
        crop = min(CROP, latents.smallest // 8 * 8)
        stage = _ShortStage(trained, loss, latents, store.captions, crop=crop)
        warm = {"warmup_steps": max(1, how.steps // 10), "checkpoint_minutes": 5, "seed": seed}
        size = {"steps": how.steps, "batch_size": BATCH, "learning_rate": LEARNING_RATE}
        train(stage, TrainingSettings(place, **warm, **size))
        shutil.rmtree(place / "checkpoint", ignore_errors=True)
        trained = prepare(codec, kind, seed)
    state = load_file(done)
    for part, tensors in (("unet", trained.unet), ("conditioner", trained.conditioner)):
        own = {n.partition(".")[2]: t for n, t in state.items() if n.startswith(f"{part}.")}
        tensors.load_state_dict(own, strict=False)
    trained.unet.eval()
    return trained.to(codec.device)


def forget(folder: Path, kind: str, seed: int) -> None:
    """Remove a training whose figures are stored."""
    shutil.rmtree(folder / name_of(kind, seed).replace(", ", "-"), ignore_errors=True)


def _trained(codec: PercoCodec) -> dict[str, Tensor]:
    """What these trainings move: the U-Net, condition decoders, variances."""
    moved = {f"unet.{name}": value for name, value in codec.unet.state_dict().items()}
    for name, value in codec.conditioner.state_dict().items():
        if ".decoder." in name or name.endswith("variance"):
            moved[f"conditioner.{name}"] = value
    return {name: value.detach().cpu().contiguous() for name, value in moved.items()}
