"""A photo for codecs, of which sizes grow with quality."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photo():
    """Smooth shapes with some grain; its sides are odd, and no multiple of a block."""
    down, right = np.mgrid[0:61, 0:97] / 20
    waves = np.stack([np.sin(right + down), np.cos(right * down / 2), np.sin(down)], -1)
    grain = np.random.default_rng(0).normal(0, 6, waves.shape)
    return Image.fromarray((128 + 90 * waves + grain).clip(0, 255).astype(np.uint8))
