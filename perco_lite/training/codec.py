"""Training stage 2: hyper-encoders, codebooks, U-Net and text encoder, all rates together.

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

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perco_lite.captions import draw_caption, embed, tokenize
from perco_lite.codec import PercoCodec
from perco_lite.condition import coarse_loss, regression_loss
from perco_lite.full_scale.photo_stream import PhotoStream
from perco_lite.full_scale.trained_layers import without_adapters
from perco_lite.rates import RATES, RatePoint, get_rate
from perco_lite.training.latents import LatentStore
from perco_lite.unet import predict_velocity, split_velocity

PERCEPTUAL_FROM = 0.05  # bits per pixel; as in the paper
COARSE_WEIGHT = 2.0


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
        self.timesteps = _check_timesteps(timesteps, len(self.alphas_cumprod))
        self.denoise = True
        self.freeze_codes = freeze_codes
        if freeze_codes:
            for branch in self.conditioner.branches.values():
                branch.hyper_encoder.requires_grad_(False)
                branch.quantizer.project_in.requires_grad_(False)

    def forward(self, latents: Tensor, token_ids: Tensor, rate: Tensor) -> dict[str, Tensor]:
        """Losses of latents (B,4,s,s) and token ids (B,T) at rate number ``rate`` (of the codec's).

        In place of latents, photos (B,3,8s,8s) in [-1,1], which are encoded first. One rate a step,
        in turn: on a CPU four small batches cost far more than one large one.
        """
        point = self.rates[int(rate)]
        if latents.shape[1] == 3:
            with torch.no_grad():
                latents = self.autoencoder.encode(latents)
            latents = latents.float()
        condition = self.conditioner(latents, point.name, self.freeze_codes)
        losses = dict.fromkeys(("regression", "coarse"), latents.new_zeros(()))
        if condition.estimate is not None:  # the paper's condition estimates nothing
            losses["regression"] = regression_loss(condition, latents)
            losses["coarse"] = coarse_loss(condition, latents)
        loss = self.regression_weight * (losses["regression"] + COARSE_WEIGHT * losses["coarse"])
        losses["velocity"] = torch.zeros_like(loss)
        if self.perceptual is not None:  # at every step: the columns of the log are fixed
            losses["features"] = torch.zeros_like(loss)
        if self.denoise:
            losses |= self._denoise(latents, token_ids, condition.channels, point)
            loss = loss + losses["velocity"]
            if "features" in losses:
                loss = loss + self.perceptual_weight * losses["features"]
        return {"loss": loss, "rate": rate, **losses}

    def _denoise(
        self, latents: Tensor, token_ids: Tensor, condition: Tensor, rate: RatePoint
    ) -> dict[str, Tensor]:
        timestep, noise, dropped = self.draw(latents)
        noisy = self.scheduler.add_noise(latents, noise, timestep)
        target = self.scheduler.get_velocity(latents, noise, timestep)
        text = embed(self.text_encoder, torch.where(dropped, self.empty_ids, token_ids))
        rate_ids = torch.full((len(latents),), RATES.index(rate), device=latents.device)
        velocity = predict_velocity(self.unet, noisy, timestep, condition, text, rate_ids)
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


class CodecStage:
    """What ``training.train`` needs to train the codec on cached latents with captions."""

    def __init__(
        self,
        codec: PercoCodec,
        module: CodecLoss,
        latents: LatentStore,
        captions: list[list[str]],
        crop: int = 24,  # latents a side
        denoise_from: int = 0,  # steps before that train the conditioner alone
        revive: float = 0.05,  # codes used less than this share of the mean are replaced
        preview: Callable[[PercoCodec, Path], None] | None = None,
    ):
        longest = max(rate.stride for rate in module.rates) // 8
        if crop % longest:
            raise ValueError(f"crop is {crop} latents, expected a multiple of {longest}")
        self.codec, self.module, self.latents = codec, module, latents
        self.crop, self.denoise_from, self.revive = crop, denoise_from, revive
        self._preview = preview
        # a photo without captions trains the unconditional branch
        self.token_ids = [tokenize(codec.tokenizer, texts or [""]) for texts in captions]

    def batch(self, step: int, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        self.module.denoise = step >= self.denoise_from
        rate = self.module.rates[step % len(self.module.rates)]
        quantizer = self.module.conditioner.branch(rate.name).quantizer
        tokens = count * (8 * self.crop / rate.stride) ** 2
        quantizer.revive_below = self.revive * tokens / rate.codebook_size
        number = torch.tensor(step % len(self.module.rates))
        return {**self.photos(step, count, generator), "rate": number}

    def photos(self, step: int, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Latents (count,4,s,s) and token ids (count,T) of random crops."""
        latents, photos = self.latents.crops(count, self.crop, generator)
        chosen = [draw_caption(self.token_ids[p], generator) for p in photos]
        return {"latents": latents, "token_ids": torch.stack(chosen)}

    def export(self, folder: Path) -> None:
        unet = self.codec.unet
        try:
            self.codec.register_modules(unet=without_adapters(unet))
            self.codec.save_pretrained(folder, safe_serialization=True)
        finally:
            self.codec.register_modules(unet=unet)

    def preview(self, path: Path) -> None:
        if self._preview:
            self._preview(self.codec, path)


class StreamedStage(CodecStage):
    """The same on photos that are streamed, and encoded when their turn comes."""

    def __init__(
        self,
        codec: PercoCodec,
        module: CodecLoss,
        stream: PhotoStream,
        accumulation: int = 1,  # passes a step, as in the settings of the run
        **rest,
    ):
        super().__init__(codec, module, LatentStore([], [], torch.ones(0)), [], **rest)
        self.stream, self.accumulation = stream, accumulation
        self._step, self._pass = -1, 0

    def photos(self, step: int, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Photos (count,3,8s,8s) in [-1,1] and token ids (count,T), the next of the stream."""
        self._pass = self._pass + 1 if step == self._step else 0
        self._step = step
        first = (step * self.accumulation + self._pass) * count
        image, captions = self.stream.crops(first, count)
        number = torch.randint(2**31, (count,), generator=generator).tolist()
        drawn = [c[n % len(c)] if c else "" for c, n in zip(captions, number, strict=True)]
        return {"latents": image, "token_ids": tokenize(self.codec.tokenizer, drawn)}


def _check_timesteps(count: int | None, total: int) -> int:
    if count is None:
        return total
    if count < 1 or total % count:
        raise ValueError(
            f"timesteps is {count}, expected a number that divides {total}; the paper's is 50"
        )
    return count
