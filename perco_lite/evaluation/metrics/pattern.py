"""How strong a pattern is painted into pictures: grey levels of waves that photos do not have.

    picture ──windows of 128 pixels──► power of each wave, summed ──over all pictures──► spectrum
        peaks, far over what is usual around them and over those of the originals ──► levels

A measure of one fault, ours and not of realism: 0 for photos, blurred photos, and a good painter.
What the waves would be worth if they were alone: their RMS, of 255.

Paper: nothing on this.
"""

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perco_lite.data import image_to_tensor
from perco_lite.evaluation.metrics.intervals import Score, resampled_interval
from perco_lite.metrics import over_usual, window_spectra

WINDOW = 128  # pixels a side: narrower waves than in training, so that a weak one is seen
PEAK = 3.0  # times what is usual: 24 Kodak photos have no wave above 2.5
FEWEST = 24  # windows: of fewer, chance alone makes peaks
SMALL_SET = 200  # pictures; above it an interval would be narrow, and take minutes


@torch.inference_mode()
def wave_power(photo: Image.Image) -> np.ndarray:
    """Number of windows and their summed power by wave, (1 + 128·128,) float32; RGB, 8 bits.

    All zeros for a photo that is smaller than a window.
    """
    found = np.zeros(1 + WINDOW**2, np.float32)
    if min(photo.size) >= WINDOW:
        spectra = window_spectra(127.5 * image_to_tensor(photo), WINDOW)
        found[0], found[1:] = len(spectra), spectra.sum(0).flatten()
    return found


def pattern(originals: Iterable[np.ndarray], reconstructions: Iterable[np.ndarray]) -> Score:
    """RMS, in levels of 255, of the waves that stand out in one set and not in the other.

    Takes what ``wave_power`` made of each photo. A wave counts where it is ``PEAK`` times what is
    usual around it, and more than that in the originals. Raises ValueError for fewer than
    ``FEWEST`` windows in a set.
    """
    sets = [torch.from_numpy(np.stack(list(some))) for some in (originals, reconstructions)]
    windows = [int(rows[:, 0].sum()) for rows in sets]
    if min(windows) < FEWEST:
        raise ValueError(
            f"pattern: got {min(windows)} windows of {WINDOW} pixels, expected {FEWEST}; add photos"
        )
    interval, counts = None, [len(rows) for rows in sets]
    if max(counts) <= SMALL_SET:
        interval = resampled_interval(
            (counts[0], counts[1]), lambda a, b: _levels(_mean(sets[0], a), _mean(sets[1], b))
        )
        interval = interval and tuple(max(0.0, end) for end in interval)
    protocol = (
        f"pattern (perco_lite's own), windows of {WINDOW} pixels, {windows[0]} of originals, "
        f"{windows[1]} of reconstructions, waves over {PEAK:g} times the median around them"
    )
    return Score(_levels(*(_mean(rows) for rows in sets)), protocol, interval)


def _mean(rows: Tensor, photos: Tensor | None = None) -> Tensor:
    """Mean spectrum of the windows of these photos, (S,S)."""
    times = torch.ones(len(rows))
    if photos is not None:
        times = torch.bincount(photos, minlength=len(rows)).float()
    total = times @ rows
    return (total[1:] / total[0].clamp(min=1)).reshape(WINDOW, WINDOW)


def _levels(original: Tensor, reconstruction: Tensor) -> float:
    over = over_usual(reconstruction)
    peaks = over > over_usual(original).clamp(min=PEAK)
    found = reconstruction[peaks]
    return float((found - found / over[peaks]).sum().sqrt())  # less what is usual there
