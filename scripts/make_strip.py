"""Draw docs/strip.png, the picture at the top of the README: `python scripts/make_strip.py`."""

from pathlib import Path

from perco_lite.data import skimage_photos
from perco_lite.evaluation.codecs.classical import smallest
from perco_lite.loading import load_codec
from perco_lite.plotting import Tile, contact_sheet

PHOTO, RATES = "coffee.png", ("0.0019", "0.0313")


def main() -> None:
    codec = load_codec()
    sample = next(photo for photo in skimage_photos() if photo.name == PHOTO)
    tiles = [Tile(sample.image, f"original\n{sample.image.width}x{sample.image.height}")]
    for rate in RATES:
        data = codec.compress(sample.image, sample.caption, rate)
        label = f"perco_lite, rate {rate}\n{len(data):,} bytes"
        tiles.append(Tile(codec.decompress(data), label, accent=True))
    for name in ("jpeg", "webp", "avif"):
        result = smallest(sample.image, name)
        tiles.append(Tile(result.image, f"{name.upper()}, smallest\n{len(result.data):,} bytes"))
    contact_sheet([tiles], tile_width=300).save(
        Path(__file__).parents[1] / "docs" / "strip.png", optimize=True
    )


if __name__ == "__main__":
    main()
