"""Stage 3, `perco train fast`: the U-Net learns to paint in one to four steps, with the decoder.

    photo ─► latents ─► indices ─► condition ─┐                    ┌─► L1 + LPIPS of the photo
    noise ────────────────────────► U-Net ────┴─► latents ─► photo ┼─► discriminator: a photo?
       ▲  noised again, less, and guessed anew  ◄──────┘           └─► means over 16 pixels
    the same U-Net on noised latents ─► v-loss, so that the paper's loop goes on working

Encoder and codes stay as they are, so that files stay readable; condition decoder, U-Net and the
autoencoder's decoder learn together. A later step starts from what the steps before it made, not
from true latents: that is what it will be given.

Paper: none; PerCo takes 5 to 20 steps of a diffusion model trained on squared error. The field's
way since: Sauer et al., 2023 (adversarial distillation); StableCodec, OneDC (one step).
Differs from these: no teacher, no low-rank adapters; the caption counts as in stage 2.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perco_lite.captions import draw_caption, embed, tokenize
from perco_lite.codec import PercoCodec
from perco_lite.condition import regression_loss
from perco_lite.loading import load_codec
from perco_lite.perceptual import Lpips
from perco_lite.rates import RatePoint
from perco_lite.sampling import few_steps, spread_steps
from perco_lite.training.codec import CodecLoss, RateStage, preview_sheet
from perco_lite.training.discriminator import Discriminator, hinge_loss, painter_loss
from perco_lite.training.loop import train
from perco_lite.training.photos import PhotoStore
from perco_lite.training.settings import FewStepSettings
from perco_lite.training.shards import find_training_data

# of L1, by stride: where indices say little of a pixel, it would ask for a blur
PIXEL_WEIGHTS = {64: 0.5, 32: 0.6, 16: 1.0, 8: 1.0}
MEANS = 16  # pixels a side, over which colours must be right whatever is painted
LATENTS_WEIGHT = 0.25  # of v-loss and regression: to keep what stage 2 has learned
COLLAPSED = 0.02  # hinge loss, averaged over some 200 steps, of a discriminator that always knows


class FewStepLoss(nn.Module):
    """The objective of painter and discriminator in one sum: neither's gradient is the other's."""

    def __init__(
        self,
        codec: PercoCodec,
        lpips: Lpips,
        timesteps: dict[str, list[int]],
        adversarial_weight: float = 0.1,
        adversarial_from: int = 300,
        text_dropout: float = 0.1,
    ):
        super().__init__()
        self.diffusion = CodecLoss(codec, freeze_codes=True, text_dropout=text_dropout)
        codec.autoencoder.decoder.requires_grad_(True)
        self.diffusion.text_encoder.requires_grad_(False)
        self.discriminator = Discriminator()
        self.lpips = [lpips]  # in a list: frozen, and no part of what is saved
        self.rates, self.timesteps = self.diffusion.rates, timesteps
        self.adversarial_weight, self.adversarial_from = adversarial_weight, adversarial_from
        self.register_buffer("hinge", torch.tensor(1.0))

    @property
    def autoencoder(self) -> nn.Module:
        """Encoder, frozen, and decoder; saved once, with ``diffusion``."""
        return self.diffusion.autoencoder

    def forward(
        self, image: Tensor, token_ids: Tensor, rate: Tensor, step: int | None = None
    ) -> dict[str, Tensor]:
        """Losses of photos (B,3,s,s) in [-1,1] and token ids (B,T) at rate number ``rate``.

        Raises FloatingPointError when the discriminator has collapsed.
        """
        point = self.rates[int(rate)]
        with torch.no_grad():
            latents = self.autoencoder.encode(image).float()
        condition = self.diffusion.conditioner(latents, point.name, freeze_codes=True)
        painted = self.paint(condition.channels, token_ids, point)
        picture = self.autoencoder.decode(painted).float()
        lpips = self.lpips[0].to(image.device)
        with torch.no_grad():
            wanted = list(lpips.features(image))
        given = list(lpips.features(picture))
        means = F.avg_pool2d(picture, MEANS) - F.avg_pool2d(image, MEANS)
        losses = {
            "l1": (picture - image).abs().mean(),
            "lpips": lpips.between(given, wanted).mean(),
            "means": means.abs().mean(),
        }
        velocity = self.diffusion.denoise(latents, token_ids, condition.channels, point)
        losses["velocity"] = velocity["velocity"]
        losses["regression"] = torch.zeros_like(losses["velocity"])
        if condition.estimate is not None:
            losses["regression"] = regression_loss(condition, latents)
        kept = losses["velocity"] + losses["regression"]
        weight = PIXEL_WEIGHTS[point.stride]
        loss = weight * losses["l1"] + losses["lpips"] + losses["means"] + LATENTS_WEIGHT * kept
        losses |= self._judge((picture, given), (image, wanted), step)
        loss = loss + self.adversarial_weight * losses["painter"] + losses["critic"]
        return {"loss": loss, "rate": rate, **losses}

    def paint(self, condition: Tensor, token_ids: Tensor, rate: RatePoint) -> Tensor:
        """Latents (B,4,s,s) after one of the rate's steps, with the gradient of that step alone."""
        times = self.timesteps[rate.name]
        count = 1 + int(torch.randint(len(times), ()))
        shape = len(condition), count, self.autoencoder.config.latent_channels
        noise = torch.randn(*shape, *condition.shape[-2:], device=condition.device)
        dropped = torch.rand(len(condition), 1, device=condition.device)
        dropped = dropped < self.diffusion.text_dropout
        token_ids = torch.where(dropped, self.diffusion.empty_ids, token_ids)
        text = embed(self.diffusion.text_encoder, token_ids)

        def predict(noisy: Tensor, timestep: int) -> Tensor:
            with torch.set_grad_enabled(timestep == times[count - 1] and self.training):
                timestep = torch.tensor(timestep, device=noisy.device)
                return self.diffusion.predict(noisy, timestep, condition, text, rate).float()

        steps = few_steps(predict, noise, times[:count], self.diffusion.alphas_cumprod)
        return list(steps)[-1].latents

    def _judge(self, painted: tuple, photo: tuple, step: int | None) -> dict[str, Tensor]:
        """Losses of painter and discriminator on images and their features; at first zeros."""
        zero = painted[0].new_zeros(())
        if not self.adversarial_weight or (step is not None and step < self.adversarial_from):
            return {"painter": zero, "critic": zero}
        critic, (picture, given) = self.discriminator, painted
        critic.requires_grad_(False)  # the painter's loss must not teach it
        painter = painter_loss(critic(picture, given))
        critic.requires_grad_(True)
        judged = critic(picture.detach(), [one.detach() for one in given])
        hinge = hinge_loss(judged, critic(*photo))
        if self.training:
            self.hinge.lerp_(hinge.detach(), 0.005)
            if self.hinge < COLLAPSED:
                raise FloatingPointError(
                    f"the discriminator has collapsed: its loss has been {float(self.hinge):.3f} "
                    "of 2 for long, so it tells the painter nothing; lower --adversarial-weight"
                )
        return {"painter": painter, "critic": hinge}


class FewStepStage(RateStage):
    """Training on crops of photos and their captions."""

    def __init__(self, codec: PercoCodec, module: FewStepLoss, store: PhotoStore, crop: int = 192):
        """``crop`` in pixels. Raises ValueError for one that holds no whole indices."""
        super().__init__(codec, module, crop // 8, preview_sheet)
        self.store = store
        self.token_ids = [tokenize(codec.tokenizer, texts or [""]) for texts in store.captions]

    def photos(self, step: int, count: int, generator: torch.Generator, number: int) -> dict:
        image, photos = self.store.draw(count, 8 * self.crop, generator)
        chosen = [draw_caption(self.token_ids[p], generator) for p in photos]
        return {"image": image, "token_ids": torch.stack(chosen)}


def train_few_steps_recipe(data: str | Path | None, output: Path, **options) -> dict:
    """Stage 3 on a codec of stage 2, ``start``; ``options`` are those of ``FewStepSettings``.

    Raises FileNotFoundError or ImportError, which say what fetches it, where LPIPS is missing;
    FloatingPointError, with the checkpoint that is left, where a loss is not finite or the
    discriminator collapsed.
    """
    settings = FewStepSettings(data=data, output=output, **options)
    torch.manual_seed(settings.seed)
    codec = load_codec(settings.start, "cpu")
    timesteps = read_few_steps(settings.few_steps, codec.rates)
    lpips = Lpips("squeeze")
    store = PhotoStore(find_training_data(data))
    adversarial = settings.adversarial_weight, settings.adversarial_from
    loss = FewStepLoss(codec, lpips, timesteps, *adversarial)
    codec.register_to_config(few_steps=timesteps)
    try:
        return train(FewStepStage(codec, loss, store, settings.crop), settings)
    except FloatingPointError as error:
        raise FloatingPointError(
            f"{error}; the last good checkpoint is {Path(output) / 'checkpoint'}"
        ) from error


def read_few_steps(text: str, rates: tuple[str, ...]) -> dict[str, list[int]]:
    """``"0.0019:2,0.1250:1"`` -> timesteps by rate; rates that are not named take one step.

    Raises ValueError for a rate that is not served and for a number that is not 1 to 4.
    """
    counts = dict.fromkeys(rates, 1)
    for part in filter(None, text.split(",")):
        rate, _, count = part.strip().partition(":")
        if rate not in counts or count not in ("1", "2", "3", "4"):
            raise ValueError(
                f"got few_steps {part!r:.60}, expected RATE:STEPS, of {', '.join(rates)} and 1 to 4"
            )
        counts[rate] = int(count)
    return {rate: spread_steps(count) for rate, count in counts.items()}
