"""Experiment on training: a feature loss or none, one U-Net for all rates or for one.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    the loaded weights ─┬─► "one rate": N steps at the highest rate ───────────┐
                        ├─► "one rate, feature loss": and the feature distance ─┼─► pictures of
                        ├─► "all rates": N steps, the rates in turn ────────────┤   other photos
                        └─► "start": no step ───────────────────────────────────┘

All runs draw the same photos, crops and noise. A hundred steps from weights that were trained with
neither of the two show which way they pull, not where they would end.

Paper: PerCo, Sec. 3.3 (LPIPS above 0.05 bpp) and 4.1 (one model per rate).
Differs from the paper: a hundred steps instead of 281,250; SqueezeNet's features instead of LPIPS;
codes and text encoder stay as they are. "All rates" costs as many steps in all as "one rate".
"""

import copy
import tempfile
from pathlib import Path

from perco_lite.claims.workbench import Outcome, Workbench
from perco_lite.codec import PercoCodec
from perco_lite.evaluation.metrics.patch_distance import patch_frechet_draws
from perco_lite.rates import get_rate
from perco_lite.training.codec import CodecLoss, CodecStage
from perco_lite.training.latents import LatentStore, cache_latents
from perco_lite.training.loop import TrainingSettings, train
from perco_lite.training.photos import PhotoStore
from perco_lite.training.shards import find_training_data
from perco_lite.unet import velocity_losses

FEATURE_WEIGHT = 0.1  # as PerCo (SD) sets LPIPS's; the paper's is not known
BATCH, CROP = 8, 24  # crops of 24x24 latents
LEARNING_RATE = 2e-4


def trainings(bench: Workbench) -> Outcome:
    """Three short runs from the same weights, measured at the highest rate they serve.

    ``FileNotFoundError`` where there are no training photos.
    """
    settings, rate = bench.settings, bench.highest
    store = PhotoStore(find_training_data(None), limit=settings.training_photos)
    with tempfile.TemporaryDirectory() as folder:
        latents = cache_latents(
            bench.codec.autoencoder, store, Path(folder, "latents.safetensors"), len(store), 0
        )
    runs = {"start": None, "one rate": ([rate], False)}
    runs["all rates"] = list(bench.codec.rates), False
    notes = bench.notes()
    if bench.features is None:
        notes.append(f"one rate, feature loss: not trained, {bench.missing}")
    else:
        runs["one rate, feature loss"] = [rate], True
    sets, rows = {}, []
    for setting, run in runs.items():
        codec = continued(bench, latents, store.captions, *run) if run else bench.codec
        trained = Workbench(codec, bench.samples, settings)
        sets[rate, setting] = trained.paint(rate)
        made = trained.rows(sets[rate, setting], rate=rate, setting=setting)
        one_each = trained.latents().split(1), trained.condition(rate).split(1), trained.captions
        for number, (row, *one, text) in enumerate(zip(made, *one_each, strict=True)):
            (loss,) = velocity_losses(codec, *one, [text], rate, number)
            rows.append(row | {"v_loss": loss})
    return Outcome(rows, patch_frechet_draws(bench.images, sets, settings.draws), notes)


def continued(
    bench: Workbench,
    latents: LatentStore,
    captions: list[list[str]],
    rates: list[str],
    with_features: bool,
) -> PercoCodec:
    """A copy of the codec, trained on at these rates; its moving-average weights."""
    codec = PercoCodec(**{n: copy.deepcopy(part) for n, part in bench.codec.components.items()})
    codec.set_progress_bar_config(disable=True)
    codec.text_encoder.requires_grad_(False)
    perceptual = (copy.deepcopy(bench.features), FEATURE_WEIGHT) if with_features else (None, 0.0)
    loss = CodecLoss(codec, *perceptual, freeze_codes=True)
    loss.rates = [get_rate(name) for name in rates]
    crop = min(CROP, latents.smallest // 8 * 8)
    stage = CodecStage(codec, loss, latents, captions, crop=crop)
    count = bench.settings.training_steps
    how = {"steps": count, "warmup_steps": max(1, count // 10), "checkpoint_minutes": 60}
    how |= {"batch_size": BATCH, "learning_rate": LEARNING_RATE}
    with tempfile.TemporaryDirectory() as folder:
        train(stage, TrainingSettings(folder, **how))
        codec = PercoCodec.from_pretrained(f"{folder}/weights")
    codec.set_progress_bar_config(disable=True)
    return codec.to(bench.codec.device)
