"""Is a caption heard? The same grid painted with "red" in the caption, and with "blue": a sheet.

python scripts/red_or_blue.py [-o out/red_or_blue.png] [--weights FOLDER] [--guidance 1 3 7]

scikit-image's photos at the lowest rate. Printed for each guidance: by how many levels of 255 a
picture is redder (red less blue, mean of the picture) with the one word than with the other, mean
of the photos, and beside it the standard deviation that the seed of the noise alone makes.
"""

import argparse
from pathlib import Path

import numpy as np

from perco_lite.coding.bitstream import unpack
from perco_lite.data import skimage_photos
from perco_lite.loading import load_codec
from perco_lite.plotting import Tile, contact_sheet

CAPTIONS = {
    "astronaut": "a smiling woman in a {} space suit",
    "chelsea": "a {} cat",
    "coffee": "a {} cup on a {} saucer",
    "motorcycle_left": "a {} motorcycle in a garage",
    "rocket": "a rocket under a {} sky",
}
COLOURS = ("red", "blue")
SEEDS = 5


def redness(picture) -> float:
    """Mean of red less mean of blue, in levels of 255."""
    red, _, blue = np.asarray(picture).astype(float).mean((0, 1))
    return red - blue


def measure(codec, guidances: list[float]) -> tuple[list[list[Tile]], dict[float, list[float]]]:
    """Rows of a sheet, one a photo, and by guidance [redder by, its seeds' deviation]."""
    rate, rows, figures = codec.rates[0], [], {}
    for photo in skimage_photos():
        words = CAPTIONS[Path(photo.name).stem]
        said = {colour: words.replace("{}", colour) for colour in COLOURS}
        files = {c: unpack(codec.compress(photo.image, text, rate)) for c, text in said.items()}
        row = [Tile(photo.image, photo.name)]
        for guidance in guidances:
            painted = {
                colour: [codec.decompress(f, guidance_scale=guidance, seed=s) for s in range(SEEDS)]
                for colour, f in files.items()
            }
            red, blue = (np.array([redness(p) for p in painted[colour]]) for colour in COLOURS)
            figures.setdefault(guidance, []).append(((red - blue).mean(), red.std(ddof=1)))
            row += [Tile(painted[c][0], f"{c}, guidance {guidance:g}") for c in COLOURS]
        rows.append(row)
    return rows, {guidance: np.mean(several, 0).tolist() for guidance, several in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("out/red_or_blue.png"))
    parser.add_argument("--weights")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1, 3, 7])
    options = parser.parse_args()
    codec = load_codec(options.weights)
    codec.set_progress_bar_config(disable=True)
    rows, figures = measure(codec, options.guidance)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(rows, tile_width=256).save(options.output)
    for guidance, (redder, noise) in figures.items():
        print(f"guidance {guidance:g}: {redder:+.1f} of 255 redder; seeds alone {noise:.1f}")
    print(options.output)


if __name__ == "__main__":
    main()
