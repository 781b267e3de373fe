"""Stage 2, `perco train codec`: hyper-encoders, codebooks, U-Net, text encoder, all rates at once.

    latents (B,4,s,s) ──conditioner of the step's rate──► condition, estimate
    velocity = U-Net(noisy latents, t, condition, caption)
    loss = |velocity - target|² + |estimate - latents|² + 2 |means of estimate - means of latents|²
           (+ feature distance of the decoded photo)

Paper: PerCo, Sec. 3.3 and 4.1 (v-prediction, text dropped in 10 %, no commitment loss, LPIPS above
0.05 bpp).
Differs from the paper: all rates in one run, in turn; the regression term on the estimate, and a
first part of the run that trains the conditioner alone on it (a step without the U-Net costs less
than half); the feature distance is our SqueezeNet one, and off by default since it doubles the cost
on a CPU. Its gradient does pass through the frozen decoder, unlike in PerCo (SD)'s code.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModel

from perco_lite.captions import draw_caption, embed, tokenize
from perco_lite.codec import PercoCodec
from perco_lite.coding.bitstream import unpack
from perco_lite.condition import coarse_loss, regression_loss
from perco_lite.data import Sample, sample_photos
from perco_lite.files import write_whole
from perco_lite.loading import build_codec
from perco_lite.perceptual import PerceptualDistance
from perco_lite.plotting import Tile, contact_sheet
from perco_lite.rates import RATES, RatePoint, get_rate
from perco_lite.training.autoencoder import load_autoencoder, squeezenet_file
from perco_lite.training.latents import LatentStore, cache_latents
from perco_lite.training.loop import train
from perco_lite.training.photos import PhotoStore
from perco_lite.training.settings import LiteCodecSettings
from perco_lite.training.shards import find_training_data
from perco_lite.training.start import adopt_weights as adopt_weights
from perco_lite.training.start import go_on
from perco_lite.training.text_encoder import learn_tokenizer
from perco_lite.unet import add_linear, predict_velocity, split_velocity

PERCEPTUAL_FROM = 0.05  # bits per pixel; as in the paper
COARSE_WEIGHT = 2.0
PREVIEW_PHOTOS = 2


class CodecLoss(nn.Module):
    """The training objective around a codec's trainable parts; the autoencoder stays frozen."""

    def __init__(
        self,
        codec: PercoCodec,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 0.0,
        regression_weight: float = 1.0,
        text_dropout: float = 0.1,
        freeze_codes: bool = False,
        timesteps: int | None = None,  # noise levels to train on; default all, 50 in the paper
        conditioner_warmup_steps: int = 0,  # first steps: no U-Net, the conditioner alone
        revive: float = 0.05,  # codes used less than this share of the mean are replaced
    ):
        super().__init__()
        self.conditioner, self.unet = codec.conditioner, codec.unet
        self.text_encoder = codec.text_encoder
        self.autoencoder = codec.autoencoder.requires_grad_(False)
        self.perceptual = perceptual if perceptual_weight else None
        self.scheduler = codec.scheduler
        self.register_buffer("alphas_cumprod", codec.scheduler.alphas_cumprod, persistent=False)
        self.register_buffer("empty_ids", tokenize(codec.tokenizer, [""]), persistent=False)
        self.rates = [get_rate(name) for name in codec.rates]
        self.perceptual_weight, self.regression_weight = perceptual_weight, regression_weight
        self.text_dropout = text_dropout
        total = len(self.alphas_cumprod)
        self.timesteps = total if timesteps is None else timesteps
        if self.timesteps < 1 or total % self.timesteps:
            raise ValueError(
                f"timesteps is {timesteps}, expected a number that divides {total}; "
                "the paper's is 50"
            )
        self.conditioner_warmup_steps, self.revive = conditioner_warmup_steps, revive
        self.freeze_codes = freeze_codes
        if freeze_codes:
            for branch in self.conditioner.branches.values():
                branch.hyper_encoder.requires_grad_(False)
                branch.quantizer.project_in.requires_grad_(False)

    def forward(
        self, latents: Tensor, token_ids: Tensor, rate: Tensor, step: int | None = None
    ) -> dict[str, Tensor]:
        """Losses of latents (B,4,s,s) and token ids (B,T) at rate number ``rate`` (of the codec's).

        ``step`` is that of the training; without one, after the warm-up.

        In place of latents, photos (B,3,8s,8s) in [-1,1], which are encoded first. One rate a step,
        in turn: on a CPU four small batches cost far more than one large one.
        """
        point = self.rates[int(rate)]
        if latents.shape[1] == 3:
            with torch.no_grad():
                latents = self.autoencoder.encode(latents)
            latents = latents.float()
        self.revive_codes(latents, point)
        condition = self.conditioner(latents, point.name, self.freeze_codes)
        losses = dict.fromkeys(("regression", "coarse"), latents.new_zeros(()))
        if condition.estimate is not None:  # the paper's condition estimates nothing
            losses["regression"] = regression_loss(condition, latents)
            losses["coarse"] = coarse_loss(condition, latents)
            self.conditioner.track_error(point.name, losses["regression"])
        loss = self.regression_weight * (losses["regression"] + COARSE_WEIGHT * losses["coarse"])
        losses["velocity"] = torch.zeros_like(loss)
        if self.perceptual is not None:  # at every step: the columns of the log are fixed
            losses["features"] = torch.zeros_like(loss)
        if step is None or step >= self.conditioner_warmup_steps:
            losses |= self.denoise(latents, token_ids, condition.channels, point)
            loss = loss + losses["velocity"]
            if "features" in losses:
                loss = loss + self.perceptual_weight * losses["features"]
        return {"loss": loss, "rate": rate, **losses}

    def revive_codes(self, latents: Tensor, rate: RatePoint) -> None:
        """Below which use a code counts as dead in a training step on these latents."""
        mean_use = latents[:, 0].numel() / (rate.stride // 8) ** 2 / rate.codebook_size
        quantizer = self.conditioner.branch(rate.name).quantizer
        quantizer.threshold_ema_dead_code = self.revive * mean_use

    def denoise(
        self, latents: Tensor, token_ids: Tensor, condition: Tensor, rate: RatePoint
    ) -> dict[str, Tensor]:
        """The v-loss at random noise levels, ``velocity``; above 0.05 bpp ``features`` if asked."""
        timestep, noise, dropped = self.draw(latents)
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        target = self.scheduler.get_velocity(latents, noise, timestep)
        text = embed(self.text_encoder, torch.where(dropped, self.empty_ids, token_ids))
        velocity = self.predict(noisy, timestep, condition, text, rate)
        losses = {"velocity": F.mse_loss(velocity.float(), target)}
        if self.perceptual is not None and rate.bits_per_pixel > PERCEPTUAL_FROM:
            alpha_bar = self.alphas_cumprod[timestep]
            clean, _ = split_velocity(noisy, velocity.float(), alpha_bar.view(-1, 1, 1, 1))
            with torch.no_grad():
                photo = self.autoencoder.decode(latents)
            distance = self.perceptual(self.autoencoder.decode(clean), photo)
            # where noise drowns the signal, the estimate is blurred whatever the network does
            losses["features"] = (distance * alpha_bar).mean()
        return losses

    def predict(
        self, noisy: Tensor, timestep: Tensor, condition: Tensor, text: Tensor, rate: RatePoint
    ) -> Tensor:
        """Velocity (B,4,s,s) of noisy latents at a timestep, () or (B,), all of one rate."""
        rate_ids = torch.full((len(noisy),), RATES.index(rate), device=noisy.device)
        velocity = predict_velocity(self.unet, noisy, timestep, condition, text, rate_ids)
        prior = self.conditioner.prior(condition, [rate.name])
        return add_linear(velocity, noisy, self.alphas_cumprod[timestep], *prior)

    def draw(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is random in a step: timesteps (B,), noise (B,4,s,s), whose text is left out (B,1).

        The timesteps lie on an even grid that ends at the last one, as those of a sampler do.
        """
        count, device = len(latents), latents.device
        spacing = len(self.alphas_cumprod) // self.timesteps
        timestep = torch.randint(0, self.timesteps, (count,), device=device)
        noise = torch.randn_like(latents)
        dropped = torch.rand(count, 1, device=device) < self.text_dropout
        return timestep * spacing + spacing - 1, noise, dropped


class RateStage:
    """What ``loop.train`` needs to train a codec, all its rates in turn; photos come in a subclass.

    Raises ValueError for a crop that does not hold whole indices at every rate.
    """

    def __init__(
        self,
        codec: PercoCodec,
        module: CodecLoss,
        crop: int,  # latents a side
        preview: Callable[[PercoCodec, Path], None] | None = None,
    ):
        longest = max(rate.stride for rate in module.rates) // 8
        if crop % longest:
            raise ValueError(f"crop is {crop} latents, expected a multiple of {longest}")
        self.codec, self.module, self.crop, self._preview = codec, module, crop, preview
        self.order = list(range(len(module.rates)))  # kinds of steps, taken in turn

    def batch(self, step: int, count: int, generator: torch.Generator, number: int = 0) -> dict:
        rate = torch.tensor(self.order[step % len(self.order)])
        return {**self.photos(step, count, generator, number), "rate": rate, "step": step}

    def photos(self, step: int, count: int, generator: torch.Generator, number: int) -> dict:
        """Latents (count,4,s,s), or photos (count,3,8s,8s), and token ids (count,T)."""
        raise NotImplementedError

    def export(self, folder: Path) -> None:
        self.codec.save_pretrained(folder, safe_serialization=True)

    def preview(self, path: Path) -> None:
        if self._preview:
            self._preview(self.codec, path)


class CodecStage(RateStage):
    """Training on cached latents and the captions of their photos."""

    def __init__(
        self,
        codec: PercoCodec,
        module: CodecLoss,
        latents: LatentStore,
        captions: list[list[str]],
        crop: int = 24,
        preview: Callable[[PercoCodec, Path], None] | None = None,
    ):
        super().__init__(codec, module, crop, preview)
        self.latents = latents.with_crops(crop)
        # a photo without captions trains the unconditional branch
        self.token_ids = [tokenize(codec.tokenizer, texts or [""]) for texts in captions]

    def photos(self, step: int, count: int, generator: torch.Generator, number: int) -> dict:
        """Latents and token ids of random crops."""
        latents, photos = self.latents.crops(count, self.crop, generator)
        chosen = [draw_caption(self.token_ids[p], generator) for p in photos]
        return {"latents": latents, "token_ids": torch.stack(chosen)}


def train_codec_recipe(data: str | Path | None, autoencoder: Path, output: Path, **options) -> dict:
    """Stage 2 on a trained autoencoder; ``options`` are those of ``LiteCodecSettings``.

    Of the weights of ``start``, those that have no counterpart are named and start anew.
    """
    settings = LiteCodecSettings(data=data, autoencoder=autoencoder, output=output, **options)
    torch.manual_seed(settings.seed)
    data, text = find_training_data(data), settings.text
    frozen = load_autoencoder(autoencoder).eval()
    store = PhotoStore(data)
    tokenizer = (
        AutoTokenizer.from_pretrained(text / "tokenizer") if text else learn_tokenizer(data, store)
    )
    sizes = {"rates": tuple(settings.rates.split(",")), "residual": settings.residual}
    codec = build_codec(frozen, tokenizer, sizes)
    if settings.start:
        go_on(codec, settings.start)
    if text:
        learned = CLIPTextModel.from_pretrained(text / "text_encoder")
        codec.text_encoder.load_state_dict(learned.state_dict())
        codec.text_encoder.requires_grad_(False)
    if settings.gradient_checkpointing:
        codec.unet.enable_gradient_checkpointing()
    latents = cache_latents(frozen, store, Path(output) / "latents.safetensors")
    store.photos.clear()  # a gigabyte that nothing needs from here on
    weight = settings.perceptual_weight
    loss = CodecLoss(
        codec,
        PerceptualDistance.from_file(squeezenet_file(data)) if weight else None,
        weight,
        freeze_codes=settings.freeze_codes,
        timesteps=settings.timesteps,
        conditioner_warmup_steps=settings.conditioner_warmup_steps,
    )
    stage = CodecStage(codec, loss, latents, store.captions, settings.crop, preview_sheet)
    return train(stage, settings)


def preview_sheet(codec: PercoCodec, path: Path, samples: list[Sample] | None = None) -> None:
    """Sample photos, and what they decode to at every rate so far; the first estimate below.

    Weights that estimate nothing (as the paper's) have no second row.
    """
    codec.set_progress_bar_config(disable=True)
    rows = []
    for sample in samples or sample_photos()[:PREVIEW_PHOTOS]:
        image = sample.image
        image = image.crop((0, 0, min(512, image.width), min(384, image.height)))
        painted, estimated = [Tile(image, sample.name)], [Tile(None)]
        for rate in codec.rates:
            data = codec.compress(image, sample.caption, rate)
            file = unpack(data)
            painted.append(Tile(codec.decompress(file, 8), f"{rate}: {len(data)} bytes"))
            estimated.append(Tile(codec.estimate(file), f"{rate}: estimate from the bits"))
        rows += [painted] + [estimated] * (estimated[-1].image is not None)
    contact_sheet(rows, tile_width=256).save(path)


def pack_weights(source: Path, target: Path) -> int:
    """Write a codec's weights as float16 safetensors, as they ship; returns the folder's bytes.

    The model card (README.md) of ``target`` stays. Raises what ``from_pretrained`` raises.
    """
    codec = PercoCodec.from_pretrained(str(source))
    codec.to(torch.float16).save_pretrained(target)
    for config in Path(target).rglob("*.json"):
        facts = json.loads(config.read_text(encoding="utf-8"))
        if facts.pop("_name_or_path", None) is not None:  # a folder of whoever trained them
            write_whole(config, (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode())
    return sum(file.stat().st_size for file in Path(target).rglob("*") if file.is_file())
