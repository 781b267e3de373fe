"""Experiments that paint: rate, conditioning, guidance, steps, seeds, bottleneck.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    Workbench ──paint with one thing changed──► pictures ──► a row a photo and setting
                                                       └──► patch Fréchet draws a setting

Each function is one experiment: it takes a workbench and returns an ``Outcome``. What is compared
shares photos, bits, captions and noise, except for the one thing that its ``setting`` names.

Paper: PerCo, Sec. 4.2 to 4.4 (main results, ablations).
Differs from the paper: where it trains a model anew without text or without grid, we take them from
a model that was trained with both.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perco_lite.claims.workbench import Outcome, Workbench
from perco_lite.coding.bitstream import unpack
from perco_lite.data import tensor_to_image
from perco_lite.evaluation.codecs.classical import available, smallest
from perco_lite.evaluation.metrics.patch_distance import patch_frechet_draws

GUIDANCE = (1.0, 2.0, 3.0, 5.0)
STEPS = (1, 5, 20, 50)  # 50 at the lowest rate only
NOTHING = "NA"
PAPER_GUIDANCE = 3.0
MODERN = ("avif", "webp")  # the smallest classical codecs


def rate(bench: Workbench) -> Outcome:
    """perco, its bits without diffusion, and the smallest files of AVIF and WebP."""
    sets, sizes, notes = {}, {}, []
    for name in bench.codec.rates:
        sets[name, "perco"], sets[name, "no diffusion"] = bench.paint(name), estimates(bench, name)
        sizes[name, "perco"] = sizes[name, "no diffusion"] = list(map(len, bench.files(name)))
    sets["", "autoencoder"] = autoencoder_alone(bench)
    for codec in MODERN:
        if not available()[codec]:
            notes.append(f"{codec} not measured: this Pillow has none")
            continue
        results = [smallest(image, codec) for image in bench.images]
        sets["", codec] = [result.image for result in results]
        sizes["", codec] = [len(result.data) for result in results]
    return _outcome(bench, sets, sizes, notes)


def conditions(bench: Workbench) -> Outcome:
    """Text and grid at the lowest rate: their own, another photo's, none; and the text "NA".

    Text is measured with the paper's guidance, which exaggerates it; the grid without.
    """
    name = bench.lowest
    texts = {"own": bench.captions, "another's": bench.captions[1:] + bench.captions[:1]}
    texts["NA"] = [NOTHING] * len(bench.captions)
    sets = {
        (name, f"text: {key}"): bench.paint(name, guidance=PAPER_GUIDANCE, texts=text)
        for key, text in texts.items()
    }
    # with an empty text guidance is without effect, and costs twice the time
    sets[name, "text: none"] = bench.paint(name, texts=[""] * len(bench.captions))
    own = bench.condition(name)
    sets[name, "grid: own"] = bench.paint(name)
    sets[name, "grid: another's"] = bench.paint(name, condition=own.roll(-1, 0))
    sets[name, "grid: none"] = bench.paint(name, condition=torch.zeros_like(own))
    return _outcome(bench, sets)


def guidance(bench: Workbench) -> Outcome:
    """Guidance 1 (off) to 5 at the lowest rate."""
    name = bench.lowest
    sets = {(name, f"{scale:g}"): bench.paint(name, guidance=scale) for scale in GUIDANCE}
    return _outcome(bench, sets)


def steps(bench: Workbench) -> Outcome:
    """1, 5 and 20 steps at every rate, 50 at the lowest."""
    sets = {
        (name, str(count)): bench.paint(name, steps=count)
        for name in bench.codec.rates
        for count in STEPS
        if count <= 20 or name == bench.lowest
    }
    return _outcome(bench, sets)


def seeds(bench: Workbench) -> Outcome:
    """Pictures from several seeds at every rate; ``spread`` is over the seeds, in grey levels."""
    rows = []
    for name in bench.codec.rates:
        many = [bench.paint(name, seed=seed) for seed in range(bench.settings.seeds)]
        for seed, pictures in enumerate(many):
            rows += bench.rows(pictures, rate=name, setting=f"seed {seed}")
        for photo, several in zip(bench.names, zip(*many, strict=True), strict=True):
            grey = [np.asarray(picture.convert("L"), float) for picture in several]
            spread = float(np.std(grey, axis=0, ddof=1).mean())
            rows.append({"photo": photo, "rate": name, "setting": "spread", "spread": spread})
    return Outcome(rows, notes=bench.notes())


def bottleneck(bench: Workbench) -> Outcome:
    """The grid as sent, with nearest codes only, not quantized at all; and the autoencoder alone.

    Unquantized: the hyper-encoder's unit vectors go on to the condition decoder as they are.
    """
    sets = {}
    for name in bench.codec.rates:
        nearest, features = unquantized(bench, name)
        sets[name, "as sent"] = bench.paint(name)
        sets[name, "nearest codes"] = bench.paint(name, condition=nearest)
        sets[name, "unquantized"] = bench.paint(name, condition=features)
    sets["", "autoencoder"] = autoencoder_alone(bench)
    return _outcome(bench, sets)


@torch.no_grad()
def unquantized(bench: Workbench, name: str) -> tuple[Tensor, Tensor]:
    """Conditions (N,C,h',w') from the nearest codes, and from the vectors before quantization."""
    conditioner, latents = bench.codec.conditioner, bench.latents()
    nearest = conditioner.decode(conditioner.encode(latents, name), name)
    return nearest, conditioner.unquantized(latents, name)


@torch.no_grad()
def autoencoder_alone(bench: Workbench) -> list[Image.Image]:
    """What the latents can hold: nothing quantized, nothing painted."""
    decode = bench.codec.autoencoder.decode
    return [tensor_to_image(decode(one[None])) for one in bench.latents()]


def estimates(bench: Workbench, name: str) -> list[Image.Image]:
    """What the bits imply by regression alone; ``ValueError`` for weights that estimate nothing."""
    pictures = [bench.codec.estimate(unpack(data)) for data in bench.files(name)]
    if None in pictures:
        raise ValueError(
            "these weights have no condition decoder, so no estimate; use the bundled ones"
        )
    return pictures


def _outcome(bench: Workbench, sets: dict, sizes: dict | None = None, notes=()) -> Outcome:
    """Rows and draws of {(rate, setting): pictures}; ``sizes``: of files, bytes a photo."""
    rows = []
    for key, pictures in sets.items():
        made = bench.rows(pictures, rate=key[0], setting=key[1])
        if sizes and key in sizes:
            made = [row | {"bytes": size} for row, size in zip(made, sizes[key], strict=True)]
        rows += made
    draws = patch_frechet_draws(bench.images, sets, bench.settings.draws)
    return Outcome(rows, draws, [*bench.notes(), *notes])
