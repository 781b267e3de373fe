"""`perco train prior`: from photos and a trained codec to the prior of each of its rates.

    photos ──► cached latents ──► grids of each rate ──► fit_prior ──► index_prior.npz
                                     └─ one photo in 20 is held out ──► what it saves, in bits

Paper: none; see ``prior_training``.
Differs from the paper: the report says what frequencies alone save, and what neighbours add.
"""

from pathlib import Path

import numpy as np

from perco_lite.loading import load_codec
from perco_lite.training.index_prior import (
    collect_grids,
    fit_prior,
    order_0_bits,
    prior_bits,
    write_priors,
)
from perco_lite.training.latents import LatentStore, cache_latents
from perco_lite.training.photos import PhotoStore
from perco_lite.training.recipes import find_training_data

HELD_OUT = 20  # one photo in so many
CHECKED = 200  # held-out grids that are coded to see what they cost
MAX_INDICES = 500_000  # to learn from, at a rate; twice as many save half a percent more


def train_prior_recipe(
    data: str | Path | None,
    output: Path,
    weights: str | None = None,
    photos: int = 7_000,
    large: int = 6_500,
    device: str | None = None,
    seed: int = 0,
    **settings,
) -> dict:
    """Train a prior for every rate of a codec and write them; returns bits an index by rate.

    ``large`` of the photos are seen a second time, enlarged: at the lowest rate, an index of a
    small photo is far from its neighbours. ``settings`` are ``fit_prior``'s. The file goes into the
    package as ``perco_lite/coding/index_prior.npz``. The same seed gives the same file on the same
    machine. Raises ``FileNotFoundError`` or ``ValueError`` without photos or weights.
    """
    store = PhotoStore(find_training_data(data))
    if len(store) < 2:
        raise ValueError(f"got {len(store)} photos, expected thousands; one in 20 is held out")
    codec = load_codec(weights, device)
    path = Path(output).with_name("latents.safetensors")
    latents = cache_latents(codec.autoencoder, store, path, photos, large, seed)
    held = set(sorted(set(latents.photos))[::HELD_OUT])
    priors, report = {}, {}
    for rate in codec.rates:
        size = codec.rate(rate).codebook_size
        order = reading_order(latents, codec.rate(rate).stride, seed)
        grids, photos_read = collect_grids(codec, latents, order, rate, MAX_INDICES)
        pairs = list(zip(grids, photos_read, strict=True))
        grids = [grid for grid, photo in pairs if photo not in held]
        unseen = [grid for grid, photo in pairs if photo in held][:CHECKED]
        priors[rate], _ = fit_prior(grids, size, seed=seed, device=str(codec.device), **settings)
        uniform, spent = codec.rate(rate).bits_per_index, prior_bits(priors[rate], unseen)
        report[rate] = {
            "grids": len(grids),
            "uniform_bits": uniform,
            "order_0_bits": round(order_0_bits(grids, unseen, size), 3),
            "prior_bits": round(spent, 3),
            "saved": round(1 - spent / uniform, 4),
        }
        print(f"{rate}: {report[rate]}", flush=True)
    return {
        "priors": str(output),
        "model_id": f"{codec.model_id:#06x}",
        "bytes": write_priors(priors, codec.model_id, Path(output)),
        "rates": report,
    }


def reading_order(latents: LatentStore, stride: int, seed: int) -> list[int]:
    """Numbers of the latents in random order; where indices are few, the largest first.

    At the lowest rates most indices of a small photo lie at its edge, few of a large one's do.
    """
    order = np.random.default_rng(seed).permutation(len(latents.latents)).tolist()
    if stride >= 32:
        order.sort(key=lambda i: -latents.latents[i].shape[1])
    return order
