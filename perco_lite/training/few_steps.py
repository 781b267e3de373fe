"""Stage 3, `perco train fast`: painting in one to four steps, learned end to end.

    photo ─► latents ─► indices ─► condition ─┐                    ┌─► L1 + LPIPS of the photo
    noise ────────────────────────► U-Net ────┴─► latents ─► photo ┼─► discriminator: a photo?
       ▲  noised again, less, and guessed anew  ◄──────┘           └─► colours, no pattern
    the same U-Net on noised latents ─► v-loss, so that the paper's loop goes on working
    in turn with these: photo ─► latents ─► photo, held near the latents of the start
                        own caption and another's ─► v-loss, so that captions are heard

What an index means is learned with what is painted of it: hyper-encoder and codebook get the
gradient of the picture, straight through. Where the start's files have an index prior, codes are
chosen at the price that it asks, as the encoder chooses them (`refinement`), so that they learn to
be worth their bits; the codebook's vectors then stay, for the prior knows them by number.
`--freeze-codes` leaves encoder and codes alone, so that files and index prior stay what they are;
`--caption-weight` adds the caption's turns, and the text encoder learns; `--pattern-weight` a loss
against waves that photos do not have. A later step starts from what the steps before it made.

Paper: none; PerCo takes 5 to 20 steps of a diffusion model trained on squared error. The field's
way since: Sauer et al., 2023 (adversarial distillation); StableCodec, OneDC (one step, end to end).
Differs from these: no teacher, no low-rank adapters. LPIPS likes regular patterns: so it sees
pictures shifted at random, the lattice loss their cells, and the spectrum loss their waves.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perco_lite.captions import draw_caption, embed, tokenize
from perco_lite.codec import PercoCodec
from perco_lite.coding.index_prior import find_prior
from perco_lite.condition import coarse_loss, regression_loss
from perco_lite.loading import load_codec
from perco_lite.metrics import spectrum_loss
from perco_lite.perceptual import Lpips
from perco_lite.rates import RatePoint
from perco_lite.refinement import bit_price
from perco_lite.sampling import few_steps, spread_steps
from perco_lite.training.caption_loss import HEARD, caption_loss
from perco_lite.training.codec import CodecLoss, RateStage, preview_sheet
from perco_lite.training.discriminator import Judge
from perco_lite.training.lattice import lattice_loss
from perco_lite.training.loop import train
from perco_lite.training.photos import PhotoStore
from perco_lite.training.settings import FewStepSettings
from perco_lite.training.shards import find_training_data


@dataclass(frozen=True)
class Weights:
    """Of the losses beside LPIPS, at a rate; of the discriminator's, times the run's."""

    l1: float  # where indices say little of a pixel, it would ask for a blur
    adversarial: float
    lattice: float
    turns: int = 1  # in a round
    cells: tuple[int, ...] = (16,)  # pixels, of the lattices looked for


# by stride; 0 is the autoencoder's own turn
WEIGHTS = {
    64: Weights(0.5, 0.6, 3.0, turns=2, cells=(16, 32)),
    32: Weights(0.5, 1.5, 1.0),
    16: Weights(0.5, 1.0, 0.5, turns=2),
    8: Weights(0.7, 0.5, 0.5),
    0: Weights(1.5, 0.0, 0.0),
}
CAPTION_TURNS = 2
CAPTION_PHOTOS = 3  # times those of other turns: nothing is painted, so they cost a third
MEANS = 16  # pixels a side, over which colours must be right whatever is painted
LATENTS_WEIGHT = 0.25  # of v-loss and regression: to keep what stage 2 has learned
COARSE_WEIGHT = 0.5  # of local means of the estimate, while codes learn
COLUMNS = (
    *("loss", "velocity", "regression", "coarse", "latents", "unheard"),
    *("l1", "means", "lattice", "spectrum", "lpips", "painter", "critic"),
)


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
        freeze_codes: bool = False,
        caption_weight: float = 0.0,
        pattern_weight: float = 0.0,
    ):
        super().__init__()
        self.diffusion = CodecLoss(codec, freeze_codes=freeze_codes, text_dropout=text_dropout)
        self.freeze_codes, self.caption_weight = freeze_codes, caption_weight
        self.pattern_weight = pattern_weight  # photos have 0.001 of that loss, a weave 0.1
        codec.autoencoder.requires_grad_(True)
        codec.autoencoder.encoder.requires_grad_(not freeze_codes)
        self.diffusion.text_encoder.requires_grad_(caption_weight > 0)
        self.judge = Judge(lpips)
        # in a list: frozen, and no part of what is saved
        self.start = [copy.deepcopy(codec.autoencoder).requires_grad_(False)][: not freeze_codes]
        self.rates, self.timesteps = self.diffusion.rates, timesteps
        # of the start, and left as they are: a batch holds too few codes to learn on
        priors = {rate: find_prior(codec.model_id, rate.name) for rate in self.rates}
        self.prices = {rate.name: bit_price(prior, rate) for rate, prior in priors.items()}
        self.adversarial_weight, self.adversarial_from = adversarial_weight, adversarial_from

    def train(self, mode: bool = True) -> "FewStepLoss":
        """As every module's; but where codes have a price, no code moves or is replaced."""
        super().train(mode)
        for rate, price in self.prices.items():
            self.diffusion.conditioner.branch(rate).quantizer.train(mode and price is None)
        return self

    @property
    def autoencoder(self) -> nn.Module:
        """Encoder and decoder; saved once, with ``diffusion``."""
        return self.diffusion.autoencoder

    @property
    def caption_turn(self) -> int:
        """Number of the caption's turn, after those of the rates and of the autoencoder."""
        return len(self.rates) + 1

    @property
    def order(self) -> list[int]:
        """A round: kinds of steps by number, each as often as ``WEIGHTS`` says, spread out."""
        turns = [WEIGHTS[rate.stride].turns for rate in self.rates] + [WEIGHTS[0].turns]
        turns.append(CAPTION_TURNS if self.caption_weight else 0)
        return [kind for k in range(max(turns)) for kind, often in enumerate(turns) if often > k]

    def forward(
        self, image: Tensor, token_ids: Tensor, rate: Tensor, step: int | None = None
    ) -> dict[str, Tensor]:
        """Losses of photos (B,3,s,s) in [-1,1] and token ids (B,T); ``rate``: number of the turn.

        Raises FloatingPointError when the discriminator has collapsed.
        """
        losses = dict.fromkeys(COLUMNS, image.new_zeros(()))  # those of the log are fixed
        if int(rate) == self.caption_turn:
            return {"rate": rate} | losses | self._read(image, token_ids)
        if int(rate) < len(self.rates):
            point = self.rates[int(rate)]
            weights, (painted, kept) = WEIGHTS[point.stride], self._code(image, token_ids, point)
        else:
            weights, (painted, kept) = WEIGHTS[0], self._reconstruct(image)
        losses |= kept
        picture = self.autoencoder.decode(painted).float()
        means = F.avg_pool2d(picture, MEANS) - F.avg_pool2d(image, MEANS)
        losses |= {"l1": (picture - image).abs().mean(), "means": means.abs().mean()}
        cells = [cell for cell in weights.cells if 4 * cell <= image.shape[-1]]
        losses["lattice"] = sum(lattice_loss(picture, image, cell) for cell in cells)
        seen = picture if self.pattern_weight else picture.detach()  # then for the log alone
        losses["spectrum"] = spectrum_loss(seen, image)
        adversarial = self.adversarial_weight * weights.adversarial
        losses |= self.judge(picture, image, adversarial > 0)
        if step is not None and step < self.adversarial_from:
            adversarial = 0.0  # the discriminator learns first, alone
        loss = losses["lpips"] + losses["means"] + weights.l1 * losses["l1"]
        loss = loss + weights.lattice * losses["lattice"] + losses["latents"]
        loss = loss + self.pattern_weight * losses["spectrum"]
        loss = loss + LATENTS_WEIGHT * (losses["velocity"] + losses["regression"])
        loss = loss + COARSE_WEIGHT * losses["coarse"] + losses["critic"]
        return {"rate": rate, **losses, "loss": loss + adversarial * losses["painter"]}

    @torch.no_grad()
    def _latents(self, image: Tensor) -> Tensor:
        """Latents (B,4,s/8,s/8) of photos (B,3,s,s), from which the encoder learns nothing."""
        return self.autoencoder.encode(image).float()

    def _read(self, image: Tensor, token_ids: Tensor) -> dict[str, Tensor]:
        """What captions say beside the fewest bits: ``caption_loss`` at the lowest rate."""
        rate, latents = self.rates[0], self._latents(image)
        with torch.no_grad():
            condition = self.diffusion.conditioner(latents, rate.name, True, self.prices[rate.name])
        losses = caption_loss(self.diffusion, latents, token_ids, condition.channels, rate)
        loss = losses["velocity"] + HEARD * losses["unheard"]
        return losses | {"loss": self.caption_weight * loss}

    def _reconstruct(self, image: Tensor) -> tuple[Tensor, dict]:
        """A photo's latents, and how far they are from those of the start."""
        if self.freeze_codes:
            return self._latents(image), {}
        latents = self.autoencoder.encode(image).float()
        with torch.no_grad():
            wanted = self.start[0].to(image.device).encode(image).float()
        return latents, {"latents": F.mse_loss(latents, wanted)}

    def _code(self, image: Tensor, token_ids: Tensor, rate: RatePoint) -> tuple[Tensor, dict]:
        """Painted latents (B,4,s/8,s/8) of what the indices say, and what stage 2 asks for."""
        latents, price = self._latents(image), self.prices[rate.name]
        if not self.freeze_codes and price is None:
            self.diffusion.revive_codes(latents, rate)
        condition = self.diffusion.conditioner(latents, rate.name, self.freeze_codes, price)
        kept = self.diffusion.denoise(latents, token_ids, condition.channels, rate)
        if condition.estimate is not None:
            kept["regression"] = regression_loss(condition, latents)
            self.diffusion.conditioner.track_error(rate.name, kept["regression"])
            if not self.freeze_codes:
                kept["coarse"] = coarse_loss(condition, latents)
        return self.paint(condition.channels, token_ids, rate), kept

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


class FewStepStage(RateStage):
    """Training on crops of photos and their captions."""

    def __init__(
        self,
        codec: PercoCodec,
        module: FewStepLoss,
        store: PhotoStore,
        crop: int = 192,
        captioned: PhotoStore | None = None,
    ):
        """``crop`` in pixels; ``captioned``: photos of the caption's turn, default ``store``.

        Raises ValueError for a crop that holds no whole indices, and where captions shall be heard
        and fewer than two photos have one.
        """
        super().__init__(codec, module, crop // 8, preview_sheet)
        self.order, self.stores = module.order, [store]
        if module.caption_weight:
            self.stores.append((captioned or store).described())
        self.token_ids = [
            [tokenize(codec.tokenizer, texts or [""]) for texts in one.captions]
            for one in self.stores
        ]

    def photos(self, step: int, count: int, generator: torch.Generator, number: int) -> dict:
        heard = self.order[step % len(self.order)] == self.module.caption_turn
        count *= CAPTION_PHOTOS if heard else 1
        image, photos = self.stores[heard].draw(count, 8 * self.crop, generator)
        chosen = [draw_caption(self.token_ids[heard][p], generator) for p in photos]
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
    places = find_training_data(data), settings.caption_data
    store, *captioned = (PhotoStore(p).large_enough(settings.crop) for p in places if p)
    names = "adversarial_weight adversarial_from freeze_codes caption_weight pattern_weight"
    weights = {name: getattr(settings, name) for name in names.split()}
    loss = FewStepLoss(codec, lpips, timesteps, **weights)
    codec.register_to_config(few_steps=timesteps)
    try:
        return train(FewStepStage(codec, loss, store, settings.crop, *captioned), settings)
    except FloatingPointError as error:
        place = Path(output) / "checkpoint"
        left = f"the last good checkpoint is {place}" if place.exists() else "no checkpoint yet"
        raise FloatingPointError(f"{error}; {left}") from error


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
