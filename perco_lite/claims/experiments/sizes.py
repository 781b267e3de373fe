"""Experiment on size: the same pixels as small pieces, and inside ever larger pictures.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    16 photos, 512x512 pixels of each ─┬─► 64 pieces of 256      ─┐
                                       ├─► 16 pictures of 512     ├─ compress, decompress ─► cut
                                       ├─► 4 mosaics of 1024      │  the photos out again ─► rows
                                       └─► 1 mosaic of 2048      ─┘

Photos of 2048 pixels were not at hand, and enlarged ones are too smooth. A mosaic keeps sharpness
and rate as they are, so that only the size of the picture differs. What it cannot show: objects
that grow with the picture.

Paper: PerCo's limitations (trained at 512x512); overlapping patches (Hoogeboom et al., 2023).
Differs from the paper: from 1.5 megapixels on, the U-Net works in overlapping tiles (``tiling``).
"""

import time

from PIL import Image

from perco_lite.claims.workbench import PAPER_NOISE, Outcome, Workbench, centre, claim_photos

MOSAIC = 4  # photos a side


def sizes(bench: Workbench) -> Outcome:
    """Quarters, single photos, and mosaics of 2x2 and 4x4 photos at the lowest rate.

    Half the usual steps, nearest codes, no caption (a mosaic has none). Too few photos are
    repeated to fill the mosaic and measured once.
    """
    side = 2 * bench.settings.crop
    large = [s for s in claim_photos() if min(s.image.size) >= side][: MOSAIC**2]
    if not large:
        raise ValueError(
            f"got no photo of {side} pixels a side, expected at least one: put Kodak's where "
            "data/README.md says, or take a smaller crop"
        )
    photos = [centre(s.image, side, side) for s in large]
    notes = bench.notes()
    if len(photos) < MOSAIC**2:
        notes.append(f"{len(photos)} photos of {side} pixels, repeated to fill mosaics of 16")
    places = [photos[i % len(photos)] for i in range(MOSAIC**2)]
    widths = {"quarters": side // 2, "single": side}
    widths |= {"mosaic 2x2": 2 * side, "mosaic 4x4": 4 * side}
    rows = []
    for setting, size in widths.items():
        painted, seconds, count = _paint(bench, photos, places, size)
        for sample, original, picture in zip(large, photos, painted, strict=False):
            row = {"photo": sample.name, "rate": bench.lowest, "setting": setting, "pixels": size}
            row |= bench.figures(original, picture)
            rows.append(row | {"bytes": count, "seconds_per_megapixel": seconds})
    return Outcome(rows, notes=notes)


def _paint(
    bench: Workbench, photos: list[Image.Image], places: list[Image.Image], size: int
) -> tuple[list[Image.Image], float, float]:
    """The photos as painted in pictures of ``size``; seconds a megapixel; index bytes a photo."""
    side = photos[0].width
    if size <= side:
        pieces = [piece for photo in photos for piece in cut(photo, size)]
    else:
        each = (size // side) ** 2
        groups = [places[i : i + each] for i in range(0, len(places), each)]
        pieces = [join(group, size // side) for group in groups]
    files = bench.codec.compress(pieces, "", bench.lowest, rounds=0)  # seconds matter
    started = time.perf_counter()
    steps, seeds = max(1, bench.settings.steps // 2), list(range(len(files)))
    how = {"seed": seeds, **PAPER_NOISE, "max_pixels": None}
    painted = bench.codec.decompress(files, steps, 1.0, **how)
    seconds = (time.perf_counter() - started) / (len(pieces) * size * size / 1e6)
    share = sum(map(len, files)) / len(files) * (side / size) ** 2
    if size <= side:
        each = (side // size) ** 2
        groups = [painted[i : i + each] for i in range(0, len(painted), each)]
        return [join(group, side // size) for group in groups], seconds, share
    return [piece for picture in painted for piece in cut(picture, side)], seconds, share


def cut(picture: Image.Image, side: int) -> list[Image.Image]:
    """Squares of a square picture, row by row."""
    starts = range(0, picture.width, side)
    return [picture.crop((x, y, x + side, y + side)) for y in starts for x in starts]


def join(pieces: list[Image.Image], columns: int) -> Image.Image:
    """Inverse of ``cut``."""
    side = pieces[0].width
    picture = Image.new("RGB", (columns * side, len(pieces) // columns * side))
    for number, piece in enumerate(pieces):
        picture.paste(piece, (number % columns * side, number // columns * side))
    return picture
