"""The `perco compare` command: a photo at our rates, beside what other formats make of our bytes.

    photo ──compress──► .perco, N bytes ──decompress──► picture ─┐
      └──encode_shrunk, at most N bytes each──► AVIF, WebP, JPEG ─┴──► one sheet, a line a rate

As in ``main``, what the command needs is imported when it runs.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perco_lite.cli.options import Device, Dtype, Json, OwnSteps, Weights, emit, fail, say
from perco_lite.cli.pretrained import caption_writer

if TYPE_CHECKING:
    from PIL import Image

    from perco_lite.coding.bitstream import PercoFile

NAMES = {"avif": "AVIF", "webp": "WebP", "jpeg": "JPEG", "jpeg2000": "JPEG 2000"}
TILE, FONT = 360, 21  # pixels


def compare(
    photo: Annotated[Path, typer.Argument(help="A photo.", readable=False)],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="PNG to write; default: NAME_compared.png beside it."),
    ] = None,
    caption: Annotated[
        str | None,
        typer.Option(help='What is on it; "" = nothing. Default: one is written.'),
    ] = None,
    rate: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; default: all of these weights.")
    ] = None,
    against: Annotated[
        str, typer.Option(help="Comma-separated: avif, webp, jpeg, jpeg2000.")
    ] = "avif,webp,jpeg",
    steps: OwnSteps = None,
    seed: Annotated[int, typer.Option(help="Of the painting.", min=0)] = 0,
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Put a photo at our rates beside AVIF, WebP and JPEG of the same bytes, in one picture."""
    from perco_lite.data import load_photo
    from perco_lite.files import save_png

    rivals = list(dict.fromkeys(name.strip() for name in against.split(",") if name.strip()))
    if not rivals or set(rivals) - set(NAMES):
        fail(f"got --against {against!r}; give some of {', '.join(NAMES)}, with commas between")
    output = output or photo.with_name(f"{photo.stem}_compared.png")
    if output.suffix.lower() != ".png":
        fail(f"got -o {output}; the sheet is a PNG, so name a file that ends in .png")
    image = load_photo(photo)

    from perco_lite.coding.bitstream import unpack
    from perco_lite.loading import load_codec

    codec = load_codec(weights, device, dtype)
    caption = caption_writer()(image) if caption is None else caption
    rates = [codec.rate(name).name for name in rate or codec.rates]
    files = [codec.compress(image, caption, name) for name in dict.fromkeys(rates)]
    parsed = [unpack(data) for data in files]
    painted = codec.decompress(parsed, steps, seed=seed)
    rows = []
    for data, file, picture in zip(files, parsed, painted, strict=True):
        ours = _ours(image, data, file, picture)
        rows.append([ours, *(_rival(image, name, len(data)) for name in rivals)])
    save_png(draw_comparison(image, rows, photo.name), output)
    if as_json:
        shown = [{k: v for k, v in one.items() if k != "image"} for row in rows for one in row]
        emit(json.dumps({"output": str(output), "files": shown}, indent=1))
        return
    for row in rows:
        parts = "; ".join(f"{one['name']} {_said(one)}" for one in row)
        say(f"{row[0]['rate']}: {parts}")
    say(f"{output}")


def _ours(image: "Image.Image", data: bytes, file: "PercoFile", picture: "Image.Image") -> dict:
    from perco_lite.metrics import psnr

    about = {"name": "perco_lite", "rate": file.rate.name, "bytes": len(data)}
    about |= {"target_bytes": len(data), "reached": True, "width": image.width}
    about |= {"caption": file.caption}
    return about | {"height": image.height, "psnr": psnr(image, picture), "image": picture}


def _rival(image: "Image.Image", codec: str, target_bytes: int) -> dict:
    from perco_lite.evaluation.codecs.shrunk import encode_shrunk
    from perco_lite.metrics import psnr

    found = encode_shrunk(image, codec, target_bytes)
    (width, height), result = found.size, found.result
    about = {"name": NAMES[codec], "bytes": len(result.data), "target_bytes": target_bytes}
    about |= {"reached": result.reached, "width": width, "height": height}
    return about | {"psnr": psnr(image, result.image), "image": result.image}


def _said(one: dict) -> str:
    if not one["reached"]:
        return f"has no file so small (its smallest: {one['bytes']:,})"
    return f"{one['bytes']:,} bytes, {one['psnr']:.1f} dB"


def draw_comparison(
    original: "Image.Image", rows: list[list[dict]], title: str = ""
) -> "Image.Image":
    """A sheet: the original, ours and the others, a line a rate; all of a line have its bytes.

    ``rows``: a list a rate, ours first, of dicts with name, bytes, target_bytes, reached, width,
    height and image (PIL, of the original's size). Who has no file so small has an empty place.
    """
    from PIL import Image

    from perco_lite.plotting import Tile, contact_sheet

    blank = Image.new("RGB", original.size, (225, 225, 228))
    lines = []
    for row in rows:
        ours, *others = row
        tiles = [
            Tile(original, f"the photo\n{original.width}×{original.height}"),
            Tile(ours["image"], f"perco_lite\n{ours['bytes']:,} bytes", accent=True),
        ]
        for one in others:
            if not one["reached"]:
                label = f"{one['name']}: none so small\nits smallest: {one['bytes']:,} bytes"
                tiles.append(Tile(blank, label))
                continue
            whole = (one["width"], one["height"]) == original.size
            shrunk = "" if whole else f", sent as {one['width']}×{one['height']}"
            tiles.append(Tile(one["image"], f"{one['name']}{shrunk}\n{one['bytes']:,} bytes"))
        lines.append(tiles)
    head = f"{title}: the same bytes in every line" if title else "The same bytes in every line"
    return contact_sheet(lines, tile_width=TILE, title=head, font_size=FONT)
