"""Has a picture a pattern: waves that its photo has not?

    pictures ──windows──► power of each wave ──over what is usual around it──► peaks

A weave, a hatching or a grid of dots is a few waves that come again all over a picture, whatever it
shows: peaks in the mean spectrum of its windows. Spectra of photos fall smoothly. LPIPS takes such
waves for texture and is content, so it has to be measured, and trained against, by itself.

Paper: nothing on this.

Taught in notebook 12.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 64  # pixels a side
AROUND = 9  # waves a side of the square whose median is what is usual
SLOWEST = 3  # waves a window along either axis: below that, and on the axes, things have edges
GREY = (0.299, 0.587, 0.114)
USUAL = 2.0  # times the median: of photos hardly a wave has more


def window_spectra(image: Tensor, window: int = WINDOW) -> Tensor:
    """Power of each wave in each window, (B,3,H,W) -> (N,window,window); windows overlap by half.

    In squares of the image's unit; the sum over waves is what varies in a window, under the taper.
    ValueError for an image that is smaller than a window.
    """
    if min(image.shape[-2:]) < window:
        height, width = image.shape[-2:]
        raise ValueError(f"image is {height}×{width}, expected at least {window}×{window}")
    grey = torch.einsum("bchw,c->bhw", image.float(), image.new_tensor(GREY).float())
    tiles = grey.unfold(1, window, window // 2).unfold(2, window, window // 2).flatten(0, 2)
    taper = torch.hann_window(window, device=image.device)
    taper = torch.outer(taper, taper)
    tiles = (tiles - tiles.mean((1, 2), keepdim=True)) * taper
    return torch.fft.fft2(tiles).abs().square() / (taper.square().sum() * window**2)


def usual_power(power: Tensor) -> Tensor:
    """Median of the waves around each, (S,S) -> (S,S), held: to lift it would hide a peak."""
    around = F.pad(power.detach()[None, None], [AROUND // 2] * 4, mode="circular")
    return around.unfold(2, AROUND, 1).unfold(3, AROUND, 1).flatten(4).median(-1).values[0, 0]


def over_usual(power: Tensor) -> Tensor:
    """Each wave over the median of those around it: (S,S) -> (S,S); 1 where it cannot be told."""
    side = len(power)
    waves = torch.arange(side, device=power.device)
    told = torch.minimum(waves, side - waves) > SLOWEST
    return torch.where(told[:, None] & told, power / usual_power(power).clamp(min=1e-12), 1.0)


def spectrum_loss(painted: Tensor, photo: Tensor) -> Tensor:
    """How far waves of painted pictures stand out beyond those of their photos, (); 0 if nowhere.

    Both (B,3,H,W) in [-1,1]. Each window counts by its shares, so that a weave in a pale sky is
    seen beside a meadow. ValueError for pictures that are smaller than a window.
    """

    def standing_out(image: Tensor) -> Tensor:
        power = window_spectra(image)
        return over_usual((power / (power.sum((1, 2), keepdim=True) + 1e-6)).mean(0))

    with torch.no_grad():
        usual = standing_out(photo).clamp(min=USUAL)
    return F.relu(standing_out(painted) / usual - 1).mean()
