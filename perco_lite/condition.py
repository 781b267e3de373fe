"""Local condition: latents to indices, and indices to extra input channels of the U-Net.

    latents (B,4,H/8,W/8)
      └─ hyper-encoder ──► features (B,D,h,w) ──► vector quantizer ──► indices (B,h,w)    sent
    indices ──► quantized (B,D,h,w) ──► condition decoder ──► condition (B,4+E,H/8,W/8)
                                                              └─ its first 4: a first estimate of
                                                                 the latents, E more are free

Paper: PerCo, Sec. 3.2 (z_l) and the released code (nearest upsampling to the latents' size).
Differs from the paper: one set of hyper-encoder, codebook and condition decoder per rate, but all
rates share one U-Net (the paper trains a model per rate). A small learned decoder takes the place
of nearest upsampling: it runs once per photo, where the U-Net runs forty times, and its estimate
of the latents gives the hyper-encoder a direct regression loss, which a short training needs.
`decoder_width=0` is the paper's way: nearest upsampling, all D channels, no estimate.

Taught in notebook 08.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from perco_lite.autoencoder import FACTOR, ResidualBlock
from perco_lite.hyper_encoder import HyperEncoder
from perco_lite.rates import RatePoint, get_rate
from perco_lite.vector_quantizer import Price, VectorQuantizer


@dataclass(frozen=True)
class Condition:
    """Result of a training pass: ``channels`` (B,C,h',w') and the ``indices`` (B,h,w).

    ``estimate`` (B,4,h',w') is a first estimate of the latents; None where there is no decoder.
    """

    channels: Tensor
    indices: Tensor
    estimate: Tensor | None


class ConditionDecoder(nn.Module):
    """Quantized grid (B,D,h,w) -> condition (B,C,H/8,W/8): residual blocks and doublings.

    The last doubling is a pixel-shuffle: with one index per 16 pixels or fewer there is nothing
    for blocks at the latents' full size to work on, and they would cost four times as much.
    """

    def __init__(self, stride: int, in_channels: int, width: int, out_channels: int):
        super().__init__()
        doublings = (stride // FACTOR).bit_length() - 1
        layers = [nn.Conv2d(in_channels, width, 1), ResidualBlock(width), ResidualBlock(width)]
        for _ in range(doublings - 1):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1)]
            layers += [ResidualBlock(width)]
        shuffle = 2 if doublings else 1
        layers += [nn.SiLU(), nn.Conv2d(width, shuffle**2 * out_channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers, nn.PixelShuffle(shuffle))

    def forward(self, quantized: Tensor) -> Tensor:
        return self.layers(quantized)


class RateBranch(nn.Module):
    """Everything one rate owns: hyper-encoder, quantizer, condition decoder."""

    def __init__(
        self,
        rate: RatePoint,
        latent_channels: int,
        width: int,
        features: int,
        code_dim: int,
        decoder_width: int,
        extra_channels: int,
        quantizer: dict,
        residual: bool = False,
    ):
        super().__init__()
        if residual:  # of the estimate's error, in units of the latents' variance
            self.register_buffer("variance", torch.tensor(0.3))
        self.hyper_encoder = HyperEncoder(rate.stride, latent_channels, width, features)
        self.quantizer = VectorQuantizer(features, rate.codebook_size, code_dim, **quantizer)
        if decoder_width:
            self.decoder = ConditionDecoder(
                rate.stride, features, decoder_width, latent_channels + extra_channels
            )
        else:
            self.decoder = nn.Upsample(scale_factor=rate.stride // FACTOR, mode="nearest")


class LocalConditioner(ModelMixin, ConfigMixin):
    """The hyper-encoders, codebooks and condition decoders of all rates a model serves.

    ``width=192, features=320, decoder_width=0`` are the paper's sizes; ``extra_channels`` counts
    only with a decoder, and so does ``residual``: the U-Net then adds to what the estimate already
    says (``unet.linear_velocity``). ``quantizer_*`` as in VectorQuantizer.
    """

    @register_to_config
    def __init__(
        self,
        rates: tuple[str, ...] = ("0.0019", "0.0098", "0.0313", "0.1250"),
        latent_channels: int = 4,
        width: int = 80,
        features: int = 64,
        code_dim: int = 32,
        decoder_width: int = 80,
        extra_channels: int = 12,
        quantizer_decay: float = 0.9,
        quantizer_init: str = "data",
        residual: bool = False,
    ):
        super().__init__()
        self.branches = nn.ModuleDict()
        for name in rates:
            self.branches[_key(name)] = RateBranch(
                get_rate(name),
                latent_channels,
                width,
                features,
                code_dim,
                decoder_width,
                extra_channels,
                {"decay": quantizer_decay, "init": quantizer_init},
                residual and decoder_width > 0,
            )

    @property
    def channels(self) -> int:
        """Channels of the condition."""
        if not self.config.decoder_width:
            return self.config.features
        return self.config.latent_channels + self.config.extra_channels

    def estimate(self, condition: Tensor) -> Tensor | None:
        """First estimate of the latents (B,4,h',w') in a condition (B,C,h',w'); None without one.

        Nearest upsampling estimates nothing: its channels mean what the U-Net makes of them.
        """
        return condition[:, : self.config.latent_channels] if self.config.decoder_width else None

    def prior(self, condition: Tensor, rates: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
        """Estimates (B,4,h',w') and the variances (B,) of their errors; None for what there is not.

        Variances are there for weights whose U-Net adds to the estimate (``residual``).
        """
        branches = [self.branch(rate) for rate in rates]
        known = all(hasattr(branch, "variance") for branch in branches)
        variances = torch.stack([b.variance for b in branches]).to(condition) if known else None
        return self.estimate(condition), variances

    def track_error(self, rate: str, error: Tensor) -> None:
        """Average a rate's squared error of the estimate over a training, for ``prior``."""
        branch = self.branch(rate)
        if self.training and hasattr(branch, "variance"):
            branch.variance.lerp_(error.detach().to(branch.variance), 0.01)

    def branch(self, rate: str) -> RateBranch:
        """Modules of one rate; ValueError names the rates these weights serve."""
        if _key(rate) not in self.branches:
            served = ", ".join(self.config.rates)
            raise ValueError(
                f"rate {rate!r} is not served by these weights, expected one of {served}"
            )
        return self.branches[_key(rate)]

    def forward(
        self, latents: Tensor, rate: str, freeze_codes: bool = False, price: Price | None = None
    ) -> Condition:
        """Training pass: straight-through gradient from the condition to the hyper-encoder.

        ``price``: of a code, as in VectorQuantizer.
        With ``freeze_codes`` the hyper-encoder and the codebook stay as they are, and only what
        comes after them learns: what an index means is then settled, and a step costs less.
        """
        branch = self.branch(rate)
        if freeze_codes:
            with torch.no_grad():
                indices = self.encode(latents, rate, price)
            quantized = branch.quantizer.decode(indices)
        else:
            quantized, indices = branch.quantizer(branch.hyper_encoder(latents), price)
        channels = branch.decoder(quantized)
        return Condition(channels, indices, self.estimate(channels))

    @apply_forward_hook  # so that offloading moves the weights in time
    def encode(self, latents: Tensor, rate: str, price: Price | None = None) -> Tensor:
        """Latents (B,4,H/8,W/8) of an image padded to the rate's stride -> indices (B,h,w).

        ``price``: of a code, as in VectorQuantizer.
        """
        branch = self.branch(rate)
        return branch.quantizer.encode(branch.hyper_encoder(latents), price)

    @apply_forward_hook
    def decode(self, indices: Tensor, rate: str) -> Tensor:
        """Indices (B,h,w) -> condition (B,C,h·stride/8,w·stride/8)."""
        branch = self.branch(rate)
        return branch.decoder(branch.quantizer.decode(indices))

    @torch.no_grad()
    def unquantized(self, latents: Tensor, rate: str) -> Tensor:
        """Condition (B,C,h',w') of the vectors that the quantizer gets, not of codes: no file."""
        branch = self.branch(rate)
        return branch.decoder(branch.quantizer.unquantized(branch.hyper_encoder(latents)))

    def fingerprint(self) -> int:
        """16-bit id of the codebooks, i.e. of what an index means; it goes into every file.

        Computed from the float16 codes, so that it survives saving, loading and moving devices.
        """
        digest = hashlib.sha256()
        for name in self.config.rates:
            codes = self.branch(name).quantizer.codebook.detach().to("cpu", torch.float16)
            digest.update(name.encode() + codes.contiguous().numpy().astype("<f2").tobytes())
        return int.from_bytes(digest.digest()[:2], "big")


def regression_loss(condition: Condition, latents: Tensor) -> Tensor:
    """Squared error of the estimate, (), in units of the latents' variance; there must be one."""
    assert condition.estimate is not None
    return F.mse_loss(condition.estimate.float(), latents.float())


def coarse_loss(condition: Condition, latents: Tensor, cell: int = 4) -> Tensor:
    """Squared error of the estimate's means over cells of 4×4 latents (32×32 pixels), ().

    A single code is never quite the colour of a wall or a sky, and equal codes side by side are all
    wrong in the same way. This asks the hyper-encoder to choose neighbours whose mean is right.
    """
    assert condition.estimate is not None
    error = condition.estimate.float() - latents.float()
    return F.avg_pool2d(error, cell).pow(2).mean()


def coarse(latents: Tensor, cell: int = 4) -> Tensor:
    """Means over cells of cell×cell latents, interpolated back: (B,C,h,w) -> same.

    The default cells are 32×32 pixels.
    """
    means = F.avg_pool2d(latents, cell, ceil_mode=True, count_include_pad=False)
    return F.interpolate(means, latents.shape[-2:], mode="bilinear", align_corners=False)


def _key(rate: str) -> str:
    return "rate_" + rate.replace(".", "_")  # a module's name may not hold a dot
