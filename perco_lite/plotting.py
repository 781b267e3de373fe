"""Pictures of results: sheets of labelled photos, and the look of all figures.

    rows of (image, label) ──► contact_sheet ──► one image, every photo with its label under it
    points of a curve ──► draw_curve, draw_published ──► matplotlib axes
    figures, one a moment ──► show_moving ──► one PNG that moves, and comes to rest

Paper: nothing on this.

Taught in notebook 01.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

INK, PAPER, ACCENT = (28, 28, 30), (255, 255, 255), (176, 32, 46)


@dataclass(frozen=True)
class Tile:
    """One photo of a sheet; ``image`` None leaves the place empty. ``accent`` colours the label."""

    image: Image.Image | None
    label: str = ""
    accent: bool = False


def contact_sheet(
    rows: Sequence[Sequence[Tile]],
    tile_width: int = 320,
    title: str = "",
    font_size: int = 16,
    gap: int = 10,
) -> Image.Image:
    """Draw rows of tiles, each ``tile_width`` pixels wide with up to two lines of label below.

    A line that is too long for its place ends in "…". Raises ``ValueError`` without a tile.
    """
    if not any(rows):
        raise ValueError("got no tiles to draw, expected at least one; check the list of photos")
    font, large = label_font(font_size), label_font(font_size + 5)
    columns = max(len(row) for row in rows)
    label_height = round(2.6 * font_size)
    heights = [max((_height(tile, tile_width) for tile in row), default=0) for row in rows]
    top = 2 * gap + round(1.5 * font_size) if title else gap
    width = gap + columns * (tile_width + gap)
    height = top + sum(h + label_height + gap for h in heights)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), _fit(title, large, width - 2 * gap), fill=INK, font=large)
    y = top
    for row, row_height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            if tile.image is None:
                continue
            x = gap + column * (tile_width + gap)
            size = (tile_width, _height(tile, tile_width))
            sheet.paste(tile.image.convert("RGB").resize(size, Image.Resampling.LANCZOS), (x, y))
            colour = ACCENT if tile.accent else INK
            label = "\n".join(_fit(line, font, tile_width) for line in tile.label.split("\n")[:2])
            draw.multiline_text((x, y + size[1] + 4), label, fill=colour, font=font, spacing=2)
        y += row_height + label_height + gap
    return sheet


def label_font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's font: Pillow's own has no × and no …."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size)


def _height(tile: Tile, width: int) -> int:
    if tile.image is None:
        return 0
    return max(1, round(width * tile.image.height / tile.image.width))


def _fit(line: str, font, width: int) -> str:
    """The line, or as much of its start as fits with "…" behind it."""
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(line + "…") > width:
        line = line[:-1]
    return line + "…"


def use_theme() -> None:
    """The look of all figures: seaborn's colour-blind palette, sizes for a notebook's width."""
    import seaborn

    sizes = {
        "figure.figsize": (7.5, 3.6),
        "figure.dpi": 80,
        "figure.constrained_layout.use": True,
        "axes.titlelocation": "left",
        "image.interpolation": "nearest",
    }
    seaborn.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=sizes)


def show_photos(
    images: Sequence[Image.Image] | Sequence[Sequence[Image.Image]],
    labels: Sequence[str] | Sequence[Sequence[str]] = (),
    tile_width: int = 240,
    title: str = "",
):
    """A row (or rows) of labelled photos as a small JPEG for a notebook's output.

    ``labels`` have the shape of ``images``; a label may have two lines.
    """
    from IPython.display import Image as Picture

    if isinstance(images[0], Image.Image):
        images, labels = [images], [labels]  # type: ignore
    rows = []
    for row, texts in zip(images, labels or [()] * len(images), strict=True):
        texts = list(texts) or [""] * len(row)  # type: ignore[arg-type]
        rows.append([Tile(*pair) for pair in zip(row, texts, strict=True)])  # type: ignore
    file, sheet = io.BytesIO(), contact_sheet(rows, tile_width, title, font_size=14)
    sheet.save(file, "JPEG", quality=72)
    return Picture(data=file.getvalue(), format="jpeg")


def show_moving(figures: Iterable, seconds: float = 1.6, plays: int = 3):
    """Matplotlib figures of equal size as one animated PNG for a notebook's output; closes them.

    It plays in under five seconds, ``plays`` times, and rests on the last figure, which is also
    what a program shows that knows no animation. Colours are cut to 64, for the file's sake.
    """
    from IPython.display import Image as Picture
    from matplotlib import pyplot as plt

    drawn = []
    for figure in figures:
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi="figure", bbox_inches=None)
        plt.close(figure)
        drawn.append(Image.open(stream).convert("RGB"))
    if not drawn:
        raise ValueError("got no figures, expected at least one")
    if plays * seconds > 5:
        raise ValueError(
            f"got {plays} plays of {seconds} s, expected at most 5 s in all: who cannot stop it "
            "must not read beside it"
        )
    all_of_them = Image.new("RGB", (drawn[0].width, drawn[0].height * len(drawn)))
    for number, picture in enumerate(drawn):
        all_of_them.paste(picture, (0, number * picture.height))
    palette = all_of_them.quantize(64)
    # dithering would flicker, and cost bytes
    frames = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in drawn]
    file, each = io.BytesIO(), round(1000 * seconds / len(frames))
    options = {"duration": each, "loop": plays, "default_image": True}
    frames[-1].save(file, "PNG", save_all=True, append_images=frames, **options)
    return Picture(data=file.getvalue(), format="png")


# One look for each codec in every figure, a shrunk rival in the whole one's colour; what others
# published has none. Name, colour, marker, line.
_WHOLE = {
    "jpeg": ("JPEG", "C1", "v"),
    "jpeg2000": ("JPEG 2000", "C3", "^"),
    "webp": ("WebP", "C2", "D"),
    "avif": ("AVIF", "C4", "P"),
    "jpegxl": ("JPEG XL", "C6", ">"),
}
CODEC_STYLES = {
    "perco": ("perco_lite", "C0", "o", "-"),
    "perco+steps=20": ("… in twenty steps", "C5", "X", "-"),
    "perco-estimate": ("… without diffusion", "C9", "s", "-."),
    "autoencoder": ("autoencoder alone", "C7", "", ":"),
    **{codec: (*look, "-") for codec, look in _WHOLE.items()},
    **{f"{codec}-shrunk": (f"{n}, shrunk", *look, ":") for codec, (n, *look) in _WHOLE.items()},
}


def draw_curve(axes, codec: str, points: Sequence) -> None:
    """Draw one measured curve with its 95 % intervals; without a rate, a dotted line across.

    ``points`` are ``results.CurvePoint``s, or anything with bpp, value, low and high.
    """
    name, colour, marker, line = CODEC_STYLES.get(codec, (codec, None, "o", "-"))
    for point in points:
        if point.bpp is None:
            axes.axhline(point.value, color=colour, linestyle=line, label=name)
    points = [point for point in points if point.bpp is not None]
    if points:
        bpp, values = [point.bpp for point in points], [point.value for point in points]
        # a shifted bootstrap interval need not hold its own figure
        below = [max(0.0, p.value - p.low) for p in points]
        above = [max(0.0, p.high - p.value) for p in points]
        look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5, "capsize": 2}
        axes.errorbar(bpp, values, [below, above], label=name, **look)


def draw_published(axes, points: Sequence, methods: Sequence[str]) -> None:
    """Draw figures of others, a line a method: grey, dashed, hollow, and named as published.

    ``points`` are ``results.PublishedPoint``s of one metric. Each of ``methods`` keeps its marker
    in every figure that is drawn with the same list, whether it has points there or not.
    """
    for method, marker in zip(methods, "osD^vP*Xhd<>p8" * len(methods), strict=False):
        own = [(p.bpp, p.value) for p in points if p.method == method and p.bpp is not None]
        own.sort(key=lambda pair: pair[0])
        look = {"color": "0.5", "linestyle": "--", "linewidth": 1, "marker": marker}
        look |= {"markerfacecolor": "none", "markersize": 6, "label": f"{method} (published)"}
        axes.plot([bpp for bpp, _ in own], [value for _, value in own], **look)
