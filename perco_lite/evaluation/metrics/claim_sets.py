"""Patch Fréchet distances of several settings, over the same draws of the photos.

    originals, {setting: pictures} ──patch_features──► moments of each photo
    draw photos anew, the same for every setting ──► one distance a setting and draw

Two settings are compared draw by draw: which photos were drawn moves both in the same way, and
cancels in the difference. Draw 0 is all photos, each once.

Paper: PerCo, Sec. 4.1 (FID).
Differs from the paper: ``patch_distance`` says what this distance is. It is not FID.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from perco_lite.evaluation.metrics.frechet import frechet_distance
from perco_lite.evaluation.metrics.patch_distance import RIDGE, patch_features


def patch_frechet_draws(
    originals: Sequence[Image.Image],
    pictures: Mapping[tuple[str, str], Sequence[Image.Image]],
    draws: int = 200,
    seed: int = 0,
    encoder: torch.nn.Module | None = None,
) -> list[dict]:
    """Rows ``{draw, rate, setting, patch_frechet}`` for draw 0 to ``draws``.

    ``pictures``: (rate, setting) -> as many pictures as there are originals, in the same order;
    ``encoder``: see ``patch_features``. Raises ``ValueError`` where their numbers differ.
    """
    for key, several in pictures.items():
        if len(several) != len(originals):
            raise ValueError(
                f"got {len(several)} pictures of {key} for {len(originals)} photos; one for each"
            )
    features = [patch_features(photo, encoder).double() for photo in originals]
    scale = torch.cat(features).std(0).clamp(min=1e-6)
    references = _moments([rows / scale for rows in features])
    sets = {
        key: _moments([patch_features(one, encoder).double() / scale for one in several])
        for key, several in pictures.items()
    }
    rows = []
    for draw, chosen in enumerate(draw_photos(len(originals), draws, seed)):
        times = torch.bincount(chosen, minlength=len(originals)).double()
        reference = _gaussian(references, times)
        for (rate, setting), moments in sets.items():
            distance = frechet_distance(reference, _gaussian(moments, times))
            row = {"draw": draw, "rate": rate, "setting": setting, "patch_frechet": distance}
            rows.append(row)
    return rows


def draw_photos(count: int, draws: int, seed: int = 0) -> Iterator[Tensor]:
    """Numbers of the photos (N,) of draw 0, which is all of them, to ``draws``."""
    generator = torch.Generator().manual_seed(seed)
    yield torch.arange(count)
    for _ in range(draws):
        yield torch.randint(count, (count,), generator=generator)


def _moments(photos: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Per photo: number of patches (N,), their sum (N,F), their products (N,F,F)."""
    return (
        torch.tensor([len(rows) for rows in photos], dtype=torch.float64),
        torch.stack([rows.sum(0) for rows in photos]),
        torch.stack([rows.T @ rows for rows in photos]),
    )


def _gaussian(moments: tuple[Tensor, Tensor, Tensor], times: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and ridged covariance of photos that occur so many times."""
    counts, sums, products = moments
    number = times @ counts
    mean = times @ sums / number
    product = (times @ products.flatten(1)).view_as(products[0])
    covariance = (product - number * torch.outer(mean, mean)) / (number - 1)
    return mean, covariance + RIDGE * torch.eye(len(mean), dtype=torch.float64)
