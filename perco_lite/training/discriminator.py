"""A projected discriminator: photo or painted? Asked of a frozen network's features.

    image (B,3,H,W) ──► features of LPIPS's backbone, at H/2 … H/16 ──► a small head each ─┐
                  └───► a shallow network on pixels ───────────────────────────────────────┤
                logits of patches, one map (B,1,h,w) each: above 0 is a photo  ◄───────────┘
    picture and photo, shifted alike at random ──► Judge ──► LPIPS, painter's and critic's losses

Paper: none; PerCo paints with a diffusion model alone. Sauer et al., 2021 (Projected GANs converge
faster), the hinge loss of Lim and Ye, 2017, spectral normalisation of Miyato et al., 2018.
Differs from Sauer et al.: no random mixing of the features, and a head that sees pixels, since what
a classifier's features do not show (dots, a grid) a painter would else be free to leave.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from perco_lite.perceptual import Lpips

TAPS = (0, 1, 2, 4)  # of the features of LPIPS's SqueezeNet: at H/2, H/4, H/8 and H/16
WIDTHS = (64, 128, 256, 384)  # their channels
SHIFT = 16  # pixels, the largest random shift of what LPIPS and the discriminator see
COLLAPSED = 0.02  # hinge loss, averaged over some 200 steps, of a discriminator that always knows


def _layers(*convolutions: nn.Conv2d) -> nn.Sequential:
    layers = []
    for convolution in convolutions:
        layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


class Discriminator(nn.Module):
    """Heads of 64 channels on features, and four convolutions on pixels."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(
            _layers(
                nn.Conv2d(width, 64, 1),
                nn.Conv2d(64, 64, 3, padding=1),
                nn.Conv2d(64, 1, 3, padding=1),
            )
            for width in WIDTHS
        )
        self.pixels = nn.Sequential(
            nn.PixelUnshuffle(2),
            *_layers(
                nn.Conv2d(12, 48, 3, padding=1),
                nn.Conv2d(48, 96, 3, stride=2, padding=1),
                nn.Conv2d(96, 96, 3, padding=1),
                nn.Conv2d(96, 1, 3, padding=1),
            ),
        )

    def forward(self, image: Tensor, features: list[Tensor]) -> list[Tensor]:
        """Logits, float32, of an image (B,3,H,W) in [-1,1], sides even, and its LPIPS features."""
        # of equal length everywhere, as LPIPS takes them; a spectrally normalised layer needs more
        # than length 1 to say anything
        maps = [8 * F.normalize(features[tap].float(), dim=1) for tap in TAPS]
        logits = [head(one) for head, one in zip(self.heads, maps, strict=True)]
        return [one.float() for one in (*logits, self.pixels(image))]


class Judge(nn.Module):
    """LPIPS and the discriminator, which look at the same features of ``lpips`` (squeeze)."""

    def __init__(self, lpips: Lpips):
        super().__init__()
        self.lpips = [lpips]  # in a list: frozen, and no part of what is saved
        self.discriminator = Discriminator()
        self.register_buffer("hinge", torch.tensor(1.0))

    def forward(self, picture: Tensor, photo: Tensor, judged: bool) -> dict[str, Tensor]:
        """``lpips`` of a picture (B,3,H,W) and its photo in [-1,1]; if ``judged``, of ``painter``
        and ``critic`` (the discriminator) the losses, else zeros.

        Raises FloatingPointError when the discriminator has collapsed.
        """
        left, top = torch.randint(SHIFT + 1, (2,)).tolist()
        pads = left, SHIFT - left, top, SHIFT - top  # padded, not cut: borders stay in sight
        picture, photo = (F.pad(one, pads, mode="reflect") for one in (picture, photo))
        lpips = self.lpips[0].to(photo.device)
        with torch.no_grad():
            wanted = list(lpips.features(photo))
        given = list(lpips.features(picture))
        losses = {"lpips": lpips.between(given, wanted).mean()}
        if not judged:
            return losses | dict.fromkeys(("painter", "critic"), picture.new_zeros(()))
        critic = self.discriminator
        critic.requires_grad_(False)  # the painter's loss must not teach it
        losses["painter"] = painter_loss(critic(picture, given))
        critic.requires_grad_(True)
        painted = critic(picture.detach(), [one.detach() for one in given])
        losses["critic"] = hinge_loss(painted, critic(photo, wanted))
        if self.training:
            self.hinge.lerp_(losses["critic"].detach(), 0.005)
            if self.hinge < COLLAPSED:
                raise FloatingPointError(
                    f"the discriminator has collapsed: its loss has been {float(self.hinge):.3f} "
                    "of 2 for long, so it tells the painter nothing; lower --adversarial-weight"
                )
        return losses


def hinge_loss(painted: list[Tensor], photo: list[Tensor]) -> Tensor:
    """What the discriminator minimises, (): 2 where all look alike, 0 where it is always right."""
    pairs = zip(painted, photo, strict=True)
    return sum(F.relu(1 + a).mean() + F.relu(1 - b).mean() for a, b in pairs) / len(painted)


def painter_loss(painted: list[Tensor]) -> Tensor:
    """What the painter minimises, (): minus its pictures' mean logit."""
    return -torch.stack([logits.mean() for logits in painted]).mean()
