"""The paper's training: a pretrained Stable Diffusion learns to obey a few hundred bytes.

    Stable Diffusion ──► PercoCodec ──► layers that learn ─┐
    shards or folder, captions ──► PhotoStream ────────────┴──► StreamedStage ──► weights

Paper: PerCo, Sec. 4.1; the numbers are in configs/paper.yaml.
Differs from the paper: what `stable_diffusion` and `photo_stream` say.
"""

from pathlib import Path

import torch
from accelerate import PartialState

from perco_lite.codec import PercoCodec
from perco_lite.data import read_caption_lists
from perco_lite.full_scale.photo_stream import PhotoStream
from perco_lite.full_scale.trained_layers import choose_layers, trained_share
from perco_lite.perceptual import Lpips
from perco_lite.rates import get_rate
from perco_lite.training.codec import PERCEPTUAL_FROM, CodecLoss, StreamedStage
from perco_lite.training.loop import TrainingSettings, train
from perco_lite.training.recipes import find_training_data, preview_sheet


def train_base_recipe(
    base: str,
    data: str | None,
    output: Path,
    captions: Path | None = None,
    rates: str = "0.0019",
    convert_epsilon: bool = False,
    layers: str = "linear",
    lora_rank: int = 16,
    crop: int = 64,
    timesteps: int | None = 50,
    text_dropout: float = 0.1,
    perceptual_weight: float = 0.1,
    quantizer_init: str = "uniform",
    revive: float = 0.0,
    gradient_checkpointing: bool = False,
    per_shard: int = 1000,
    accumulation: int = 1,
    seed: int = 0,
    **settings,
) -> dict:
    """Train a codec around ``base``: folder or id of Stable Diffusion, "auto" for 2.1's mirrors.

    The text encoder and the VAE stay as they are. Photos are streamed from ``data`` (a folder of
    photos or shards, or URLs of shards), their captions come with them or from ``captions``.
    Raises ValueError where no photo of the first shard has a caption, and what the parts raise.
    """
    torch.manual_seed(seed)
    place = PartialState(cpu=not torch.cuda.is_available())
    stream = PhotoStream(
        find_training_data(data),
        8 * crop,
        seed,
        place.process_index,
        place.num_processes,
        per_shard,
        read_caption_lists(captions) if captions else None,
    )
    if text_dropout < 1 and not stream.captioned():
        raise ValueError(
            f"no captions for the photos in {data}: make some with `perco caption FOLDER -o "
            "captions.json` and give --captions captions.json, or train without: --text-dropout 1"
        )
    names = tuple(rates.split(","))
    perceptual = Lpips(download=True) if perceptual_weight and _is_fine(names) else None
    codec = PercoCodec.from_stable_diffusion(
        None if base == "auto" else base,
        names,
        convert_epsilon=convert_epsilon,
        conditioner={"quantizer_init": quantizer_init},
        seed=seed,
    )
    codec.text_encoder.requires_grad_(False)
    choose_layers(codec.unet, layers, lora_rank)
    if gradient_checkpointing:
        codec.unet.enable_gradient_checkpointing()
    if place.is_main_process:
        print(f"of the U-Net, {trained_share(codec.unet):.1%} of the weights learn ({layers})")
    loss = CodecLoss(
        codec, perceptual, perceptual_weight, text_dropout=text_dropout, timesteps=timesteps
    )
    stage = StreamedStage(
        codec, loss, stream, accumulation, crop=crop, revive=revive, preview=preview_sheet
    )
    return train(
        stage,
        TrainingSettings(output=str(output), seed=seed, accumulation=accumulation, **settings),
    )


def _is_fine(names: tuple[str, ...]) -> bool:
    return any(get_rate(name).bits_per_pixel > PERCEPTUAL_FROM for name in names)
