"""The paper's training: a pretrained Stable Diffusion learns to obey a few hundred bytes.

    Stable Diffusion ──► PercoCodec ──► layers that learn ─┐
    shards or folder, captions ──► PhotoStream ────────────┴──► StreamedStage ──► weights

Paper: PerCo, Sec. 4.1; the numbers are in configs/paper.yaml.
Differs from the paper: what `stable_diffusion` and `photo_stream` say.
"""

from pathlib import Path

import torch
from accelerate import PartialState

from perco_lite.captions import tokenize
from perco_lite.codec import PercoCodec
from perco_lite.data import read_caption_lists
from perco_lite.full_scale.photo_stream import PhotoStream
from perco_lite.full_scale.trained_layers import choose_layers, trained_share, without_adapters
from perco_lite.perceptual import Lpips
from perco_lite.rates import get_rate
from perco_lite.training.codec import PERCEPTUAL_FROM, CodecLoss, RateStage, preview_sheet
from perco_lite.training.loop import train
from perco_lite.training.settings import BaseCodecSettings
from perco_lite.training.shards import find_training_data


class StreamedStage(RateStage):
    """Training on photos that are streamed, and encoded when their turn comes.

    ``accumulation``, passes a step, as in the settings of the run.
    """

    def __init__(
        self, codec: PercoCodec, module: CodecLoss, stream: PhotoStream, accumulation: int, **rest
    ):
        super().__init__(codec, module, **rest)
        self.stream, self.accumulation = stream, accumulation

    def photos(self, step: int, count: int, generator: torch.Generator, number: int) -> dict:
        """Photos (count,3,8s,8s) in [-1,1] and token ids (count,T), the next of the stream."""
        first = (step * self.accumulation + number) * count
        image, captions = self.stream.crops(first, count)
        draws = torch.randint(2**31, (count,), generator=generator).tolist()
        drawn = [c[n % len(c)] if c else "" for c, n in zip(captions, draws, strict=True)]
        return {"latents": image, "token_ids": tokenize(self.codec.tokenizer, drawn)}

    def export(self, folder: Path) -> None:
        """Save an ordinary U-Net: where it learned LoRA, with that added in."""
        unet = self.codec.unet
        try:
            self.codec.register_modules(unet=without_adapters(unet))
            super().export(folder)
        finally:
            self.codec.register_modules(unet=unet)


def train_base_recipe(base: str, data: str | None, output: Path, **options) -> dict:
    """Train a codec around ``base``: folder or id of Stable Diffusion, "auto" for 2.1's mirrors.

    ``options`` are those of ``BaseCodecSettings``. The text encoder and the VAE stay as they are.
    Photos are streamed from ``data`` (a folder of photos or shards, or URLs of shards), their
    captions come with them or from ``captions``. Raises ValueError where no photo of the first
    shard has a caption, and what the parts raise.
    """
    settings = BaseCodecSettings(data=data, output=output, **options)
    torch.manual_seed(settings.seed)
    place = PartialState(cpu=not torch.cuda.is_available())
    stream = PhotoStream(
        find_training_data(data),
        8 * settings.crop,
        settings.seed,
        place.process_index,
        place.num_processes,
        settings.per_shard,
        read_caption_lists(settings.captions) if settings.captions else None,
    )
    if settings.text_dropout < 1 and not stream.captioned():
        raise ValueError(
            f"no captions for the photos in {data}: make some with `perco caption FOLDER -o "
            "captions.json` and give --captions captions.json, or train without: --text-dropout 1"
        )
    rates = tuple(settings.rates.split(","))
    fine = any(get_rate(name).bits_per_pixel > PERCEPTUAL_FROM for name in rates)
    perceptual = Lpips(download=True) if settings.perceptual_weight and fine else None
    codec = PercoCodec.from_stable_diffusion(
        None if base == "auto" else base,
        rates,
        convert_epsilon=settings.convert_epsilon,
        conditioner={"quantizer_init": settings.quantizer_init},
        seed=settings.seed,
    )
    codec.text_encoder.requires_grad_(False)
    choose_layers(codec.unet, settings.layers, settings.lora_rank)
    if settings.gradient_checkpointing:
        codec.unet.enable_gradient_checkpointing()
    if place.is_main_process:
        share = f"{trained_share(codec.unet):.1%}"
        print(f"of the U-Net, {share} of the weights learn ({settings.layers})")
    loss = CodecLoss(
        codec,
        perceptual,
        settings.perceptual_weight,
        text_dropout=settings.text_dropout,
        timesteps=settings.timesteps,
        revive=settings.revive,
    )
    rest = {"crop": settings.crop, "preview": preview_sheet}
    return train(StreamedStage(codec, loss, stream, settings.accumulation, **rest), settings)
