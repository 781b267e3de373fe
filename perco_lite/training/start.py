"""Weights that a training begins with, taken from those of another.

    other weights ──tensors of equal name and shape──► a codec; what has none starts anew

Paper: nothing on this.
"""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from perco_lite.codec import PercoCodec
from perco_lite.condition import LocalConditioner
from perco_lite.unet import start_silent


def adopt_weights(module: nn.Module, source: nn.Module) -> list[str]:
    """Copy the tensors that two modules have in common, by name and shape; names of the others."""
    theirs = source.state_dict()
    ours = module.state_dict()
    fresh = [n for n, v in ours.items() if n not in theirs or theirs[n].shape != v.shape]
    module.load_state_dict({n: v for n, v in theirs.items() if n in ours and n not in fresh}, False)
    return fresh


def go_on(codec: PercoCodec, start: str | Path) -> None:
    """Give a codec what it has in common with another's weights; says what starts anew."""
    for part, kind in (("conditioner", LocalConditioner), ("unet", UNet2DConditionModel)):
        old = kind.from_pretrained(start, subfolder=part, torch_dtype=torch.float32)
        names = adopt_weights(getattr(codec, part), old)
        print(f"{part}: {len(names)} tensors start anew: {', '.join(names) or 'none'}")
        if part == "conditioner":
            same = old.config.get("residual", False) == codec.conditioner.config.residual
    if not same:
        start_silent(codec.unet)  # what it said before would mean something else now
