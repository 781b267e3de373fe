"""Stage 1 with a teacher: an autoencoder of our own in Stable Diffusion's latent space.

    crops (B,3,s,s) ──► teacher.encode ──► its latents ──► teacher.decode ──► its picture
                │                      (MSE) │                        (L1 + LPIPS) │
                └─► encoder ──► our latents ─┴─ half of each ─► decoder ──► our picture

The teacher is TAESD, a published tiny autoencoder whose latents are Stable Diffusion's. Its picture
is the one answer to its latents; of the photo, latents leave many, whose mean is a blur.

Paper: none; PerCo uses Stable Diffusion's autoencoder itself.
Differs from TAESD's own training: distilled from it, with no discriminator.
"""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from torch import Tensor, nn

from perco_lite.autoencoder import Autoencoder

FILES = ("taesd_encoder.safetensors", "taesd_decoder.safetensors")


class Teacher(nn.Module):
    """TAESD, frozen, from its two files in a folder, or from a folder that diffusers wrote.

    Latents are Stable Diffusion's times its scaling factor: about unit variance, as ours. Raises
    FileNotFoundError where there is neither.
    """

    def __init__(self, folder: str | Path):
        super().__init__()
        folder = Path(folder)
        if (folder / "config.json").is_file():
            self.network = AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32)
        elif all((folder / name).is_file() for name in FILES):
            self.network = AutoencoderTiny()
            # the published decoder clamps its latents in a layer, diffusers in its forward pass
            for part, shift, name in zip(("encoder", "decoder"), (0, 1), FILES, strict=True):
                state = {}
                for key, value in load_file(folder / name).items():
                    number, rest = key.split(".", 1)
                    state[f"layers.{int(number) - shift}.{rest}"] = value.float()
                getattr(self.network, part).load_state_dict(state)
        else:
            raise FileNotFoundError(
                f"no teacher in {folder}; expected {' and '.join(FILES)}, or a folder that "
                "diffusers' AutoencoderTiny wrote"
            )
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stay as it is."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Latents (B,4,H/8,W/8) of an image (B,3,H,W) in [-1,1]."""
        return self.network.encoder(image)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Image (B,3,8h,8w), clamped to [-1,1], of latents (B,4,h,w)."""
        return self.network.decoder(latents).clamp(-1, 1)


class TaughtAutoencoderLoss(nn.Module):
    """The training objective with a teacher; ``forward(image) -> losses``."""

    def __init__(
        self,
        autoencoder: Autoencoder,
        teacher: Teacher,
        perceptual: nn.Module | None,
        perceptual_weight: float = 1.0,
        latent_noise: float = 0.02,
    ):
        super().__init__()
        self.autoencoder = autoencoder
        self.autoencoder.keeps_latents = True  # they mean what the teacher's mean
        # in a list, so that the teacher is no part of what is trained, saved and averaged
        self.teachers = [teacher]
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight if perceptual else 0.0
        self.latent_noise = latent_noise

    def forward(self, image: Tensor, step: int | None = None) -> dict[str, Tensor]:
        """Losses of images (B,3,s,s) in [-1,1], B even for as many latents of ours as of its."""
        teacher = self.teachers[0].to(image.device)
        latents, wanted = self.autoencoder.encode(image), teacher.encode(image)
        half = len(image) // 2
        # through our own latents the encoder learns, too, what the picture needs of them
        given = torch.cat([latents[:half], wanted[half:].to(latents.dtype)]).float()
        given = given + self.latent_noise * torch.randn_like(given)
        picture, target = self.autoencoder.decode(given).float(), teacher.decode(wanted).float()
        losses = {
            "l1": (picture - target).abs().mean(),
            "latents": (latents.float() - wanted.float()).pow(2).mean(),
        }
        losses["features"] = torch.zeros_like(losses["l1"])
        loss = losses["l1"] + losses["latents"]
        if self.perceptual_weight:
            losses["features"] = self.perceptual(picture, target).mean()
            loss = loss + self.perceptual_weight * losses["features"]
        losses["psnr"] = -10 * torch.log10((picture.detach() - image).pow(2).mean() / 4)
        return {"loss": loss, **losses}
