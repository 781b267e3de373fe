"""What the tests of full_scale/ share: a narrow codec around a checkpoint, changed configs."""

import json

from perco_lite import PercoCodec

NARROW = {"width": 8, "features": 16}


def build(folder, rates=("0.0019",), **options) -> PercoCodec:
    codec = PercoCodec.from_stable_diffusion(folder, rates, conditioner=NARROW, **options)
    codec.set_progress_bar_config(disable=True)
    return codec


def change(path, **values):
    """Change a config; ``...`` takes an entry away."""
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
