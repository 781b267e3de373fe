"""`perco train prior`: from photos and a trained codec to the prior of each of its rates.

    photos ──► cached latents ──► grids of each rate ──► fit_prior ──► index_prior.npz
                                     └─ one photo in 20 is held out ──► what it saves, in bits

Paper: none; see ``prior_training``.
Differs from the paper: the report says what frequencies alone save, and what neighbours add.
"""

import random
from pathlib import Path

from perco_lite.latent_store import cache_latents
from perco_lite.loading import load_codec
from perco_lite.photo_store import PhotoStore
from perco_lite.prior_training import (
    collect_grids,
    fit_prior,
    order_0_bits,
    prior_bits,
    write_priors,
)
from perco_lite.recipes import find_training_data

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
    package as ``perco_lite/index_prior.npz``. The same seed gives the same file on the same
    machine. Raises ``FileNotFoundError`` or ``ValueError`` without photos or weights.
    """
    store = PhotoStore(find_training_data(data))
    if len(store) < 2:
        raise ValueError(f"got {len(store)} photos, expected thousands; one in 20 is held out")
    codec = load_codec(weights, device)
    path = Path(output).with_name("latents.safetensors")
    latents = cache_latents(codec.autoencoder, store, path, photos, large, seed)
    held = set(sorted(set(latents.photos))[::HELD_OUT])
    pairs = list(zip(latents.latents, latents.photos, strict=True))
    random.Random(seed).shuffle(pairs)
    seen = [one for one, photo in pairs if photo not in held]
    unseen_latents = [one for one, photo in pairs if photo in held][: CHECKED // 2]
    priors, report = {}, {}
    for rate in codec.rates:
        size = codec.rate(rate).codebook_size
        grids = collect_grids(codec, seen, rate, MAX_INDICES)
        unseen = collect_grids(codec, unseen_latents, rate)
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
