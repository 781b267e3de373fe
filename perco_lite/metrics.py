"""How large a file is and how close its photo is to the original, and the protocol of each figure.

    original ─────┬──► psnr, ms_ssim, lpips, flat_colour_error ──► a float
    reconstruction┘
    the whole file's bytes ──► bits_per_pixel ──► a float

Photos come in as 8-bit ``PIL`` RGB images of equal size. A photo that a metric is not defined for
gives None; nothing else ever takes its place. How each is computed is in ``PROTOCOLS``. These are
the metrics of one pair of photos; those of a set are in ``evaluation.metrics``.

Paper: PerCo, Sec. 4.1 (MS-SSIM, LPIPS).
Differs from the paper: PSNR as well; ``flat_colour_error`` is our own, and so are the spectra, in
which a pattern shows: a weave, a hatching or a grid of dots is a few waves that come again all over
a picture, whatever it shows. Spectra of photos fall smoothly. LPIPS takes such waves for texture.

Taught in notebooks 12 and 13.
"""

import math
from collections.abc import Callable
from functools import cache
from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from perco_lite.data import image_to_tensor
from perco_lite.perceptual import LPIPS_BACKBONES, Lpips, may_download

LPIPS_MIN_SIDE = 32  # AlexNet has no feature left to compare in a smaller photo
WINDOW = 64  # pixels a side, of spectra
AROUND = 9  # waves a side of the square whose median is what is usual
SLOWEST = 3  # waves a window along either axis: below that, and on the axes, things have edges
GREY = (0.299, 0.587, 0.114)
USUAL = 2.0  # times the median: of photos hardly a wave has more
KEPT_PIXELS = 2**20  # of a photo whose features are kept; some 200 MB by VGG16
PROTOCOLS = {
    "bits_per_pixel": "8 x bytes of the whole file / (width x height)",
    "psnr": "PSNR, dB, 8-bit RGB, peak 255, one mean square over pixels and channels",
    "ms_ssim": f"MS-SSIM, RGB, data range 1, torchmetrics {version('torchmetrics')} defaults",
    "flat_colour_error": "mean colour error of flat 32x32 squares, of 255 (perco_lite's own)",
}


class Unavailable(RuntimeError):
    """What does not work on this machine; says why, by name, and what would mend it."""


PhotoDistance = Callable[[Image.Image, Image.Image], float | None]


def bits_per_pixel(data: bytes, width: int, height: int) -> float:
    """Rate of a whole file, header included, over the pixels of the original photo."""
    if width < 1 or height < 1:
        raise ValueError(f"got a photo of {width}x{height}, expected at least 1x1")
    return 8 * len(data) / (width * height)


def psnr(original: Image.Image, reconstruction: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB; infinite where the photos are equal."""
    a, b = _pair(original, reconstruction)
    error = float(np.mean((a - b) ** 2))
    return 10 * math.log10(255**2 / error) if error else math.inf


def ms_ssim(original: Image.Image, reconstruction: Image.Image) -> float | None:
    """Multi-scale structural similarity in [0, 1] from torchmetrics.

    Its five scales halve the photo four times, and what is left has to hold the 11x11 window: None
    where a side is under 176 pixels.
    """
    a, b = _pair(original, reconstruction)
    if min(original.size) // 2**4 < 11:
        return None
    # Imported here: torchmetrics takes seconds to load, and most callers need PSNR alone.
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    value = multiscale_structural_similarity_index_measure(
        _tensor(b) / 255, _tensor(a) / 255, data_range=1.0
    )
    return float(value)


@cache
def load_lpips(net: str = "alex") -> PhotoDistance:
    """Load LPIPS (``perceptual.Lpips``); ``Unavailable`` where its weights are missing.

    The function takes (original, reconstruction) and returns a float: 0 for equal photos, more is
    worse; its ``protocol`` says how. Raises ``ValueError`` for a net that LPIPS does not have.
    """
    try:
        model = Lpips(net, may_download())
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise Unavailable(f"LPIPS: {first_line(error)}") from error
    except ValueError as error:
        if net not in LPIPS_BACKBONES:
            raise
        raise Unavailable(f"LPIPS: {first_line(error)}") from error
    protocol = f"LPIPS 0.1 ({net}), RGB, not resized, weights {model.digest}"

    def see(photo: Image.Image) -> list[Tensor]:
        return list(model.features(image_to_tensor(photo)))

    return distance_of_features(see, model.between, LPIPS_MIN_SIDE, protocol)


def distance_of_features(
    see: Callable[[Image.Image], list[Tensor]],
    compare: Callable[[list[Tensor], list[Tensor]], Tensor],
    min_side: int,
    protocol: str,
) -> PhotoDistance:
    """A function (original, reconstruction) -> float of what a network ``see``s in each.

    What it saw in the last original is kept, up to KEPT_PIXELS: one photo is compared with what
    many codecs made of it. None for sides under ``min_side``; the function carries ``protocol``.
    """
    kept: tuple = None, None  # an original and its features; one slot, for threads share it

    @torch.inference_mode()
    def distance(original: Image.Image, reconstruction: Image.Image) -> float | None:
        nonlocal kept
        check_pair(original, reconstruction)
        if min(original.size) < min_side:
            return None
        photo, seen = kept
        seen = seen if original is photo else see(original)
        if original.width * original.height <= KEPT_PIXELS:
            kept = original, seen
        return float(compare(seen, see(reconstruction)))

    distance.protocol = protocol
    return distance


def flat_colour_error(original: Image.Image, reconstruction: Image.Image) -> float | None:
    """How far the mean colour of flat areas is off: their mean error in 0..255.

    A flat area is a 32x32 square of the original, on a grid from the top left, with a standard
    deviation under 3 in each channel; without one the error is None.
    A sky that drifts in colour hardly moves PSNR, but everybody sees it. Not in the paper: ours.
    """
    a, b = _pair(original, reconstruction)
    h, w = a.shape[0] // 32, a.shape[1] // 32
    a, b = (x[: h * 32, : w * 32].reshape(h, 32, w, 32, 3) for x in (a, b))
    flat = (a.std(axis=(1, 3)) < 3).all(axis=-1)  # (h, w)
    errors = np.abs(a.mean(axis=(1, 3)) - b.mean(axis=(1, 3))).mean(axis=-1)[flat]
    return float(errors.mean()) if errors.size else None


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


def check_pair(original: Image.Image, reconstruction: Image.Image) -> None:
    """Raise ValueError unless both are RGB and of one size."""
    for image in (original, reconstruction):
        if image.mode != "RGB":
            raise ValueError(f"got a photo of mode {image.mode}, expected RGB; use data.to_rgb")
    if original.size != reconstruction.size:
        sizes = " and ".join(f"{i.width}x{i.height}" for i in (original, reconstruction))
        raise ValueError(f"got photos of {sizes}, expected equal sizes; crop, do not resize")


def _pair(original: Image.Image, reconstruction: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Both photos as (H, W, 3) float64 in 0..255; float64 because means must be exact."""
    check_pair(original, reconstruction)
    return np.asarray(original, np.float64), np.asarray(reconstruction, np.float64)


def _tensor(array: np.ndarray) -> Tensor:
    """(H, W, 3) array to (1, 3, H, W) float32, in the same range."""
    return torch.from_numpy(array).permute(2, 0, 1)[None].float()


def first_line(error: Exception) -> str:
    """What an error says, cut to one line, for the reason of a missing figure."""
    return (str(error).splitlines() or [type(error).__name__])[0]
