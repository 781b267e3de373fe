"""How far flat colours come back: 27 swatches of the colour cube at each rate, in levels of 255.

python scripts/swatches.py [--weights FOLDER]

A swatch is 128×128 pixels of one colour. Printed: the mean over swatches of the mean error of a
swatch's mean colour, the worst swatch, and what became of it. For the model card.
"""

import argparse
import itertools

import numpy as np
from PIL import Image

from perco_lite.loading import load_codec

LEVELS, SIDE = (0, 128, 255), 128


def measure(codec, rate: str) -> list[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """Error, colour and decoded mean colour of each swatch, worst first."""
    colours = list(itertools.product(LEVELS, repeat=3))
    images = [Image.new("RGB", (SIDE, SIDE), colour) for colour in colours]
    painted, rows = codec.decompress(codec.compress(images, "", rate)), []
    for colour, picture in zip(colours, painted, strict=True):
        mean = np.asarray(picture).astype(float).mean((0, 1))
        error = float(np.abs(mean - colour).mean())
        rows.append((error, colour, tuple(int(level) for level in mean.round())))
    return sorted(rows, reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights")
    codec = load_codec(parser.parse_args().weights)
    codec.set_progress_bar_config(disable=True)
    for rate in codec.rates:
        rows = measure(codec, rate)
        error, colour, became = rows[0]
        mean = sum(row[0] for row in rows) / len(rows)
        print(f"{rate}: off by {mean:.1f} of 255; worst {error:.0f}: {colour} became {became}")


if __name__ == "__main__":
    main()
