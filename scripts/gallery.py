"""The gallery of the site: scikit-image's photos at every rate, beside AVIF of the same bytes.

    photo ──compress──► .perco ──decompress──► picture ─┬─► build/site/gallery/KEY/*.webp, *.perco
      └──encode_shrunk──► AVIF of no more bytes ────────┘   and gallery.json, what is written there

Run by `make site`. KEY is of the weights and the file format: what is there is not painted again.
"""

import hashlib
import json
from pathlib import Path

from PIL import Image

from perco_lite.coding.bitstream import WRITTEN_VERSION
from perco_lite.data import Sample, skimage_photos
from perco_lite.files import write_whole
from perco_lite.loading import BUNDLED

PHOTO = """<div class="gallery-photo">
<fieldset><legend>Bytes</legend>{rates}</fieldset>
<fieldset><legend>Compared with</legend>
<label><input type="radio" name="{name}-other" value="original" checked> the original</label>
<label><input type="radio" name="{name}-other" value="avif"> AVIF of the same bytes</label>
</fieldset>
<div class="photo-pair"><img src="{picture}" alt="" width="{width}" height="{height}">
<img class="above" src="{original}" alt="" width="{width}" height="{height}">
<div class="line"></div></div>
<label>Left of the line what it is compared with, right of it perco_lite
<input type="range" min="0" max="100" value="50"></label>
<p class="about" aria-live="polite"></p>
<script type="application/json">{files}</script>
</div>"""
KEPT = {"format": "webp", "quality": 88, "method": 4}  # how the site shows pictures


def key() -> str:
    """Of what makes the pictures: weights with their settings, file format, this script."""
    files = [*sorted(BUNDLED.rglob("*.safetensors")), *sorted(BUNDLED.rglob("*.json"))]
    files = [file for file in files if "captioner" not in file.parts]  # captions are people's
    text = b"".join(file.read_bytes() for file in (*files, Path(__file__)))
    text += bytes([WRITTEN_VERSION])
    return hashlib.sha256(text).hexdigest()[:16]


def pictures(cache: Path, photos: int = 0) -> tuple[Path, list[dict]]:
    """Folder of the pictures, and a dict a photo: name, caption, original, files by rate.

    Paints what ``cache`` has not got yet; ``photos``: at most so many, 0 = all.
    """
    folder = cache / key()
    codec, rows = None, []
    for sample in skimage_photos()[: photos or None]:
        about = folder / f"{Path(sample.name).stem}.json"
        if not about.exists():
            if codec is None:
                from perco_lite.loading import load_codec

                codec = load_codec(None, "cpu")
            write_whole(about, json.dumps(_paint(codec, sample, folder)).encode())
        rows.append(json.loads(about.read_text(encoding="utf-8")))
    return folder, rows


def _paint(codec, sample: Sample, folder: Path) -> dict:
    from perco_lite.evaluation.codecs.shrunk import encode_shrunk

    stem, image = Path(sample.name).stem, sample.image
    row = {"name": stem, "caption": sample.caption, "width": image.width, "height": image.height}
    row |= {"original": _keep(image, folder / f"{stem}.webp"), "files": {}}
    files = {rate: codec.compress(image, sample.caption, rate) for rate in codec.rates}
    painted = codec.decompress(list(files.values()))
    for (rate, data), picture in zip(files.items(), painted, strict=True):
        write_whole(folder / f"{stem}_{rate}.perco", data)
        near = encode_shrunk(image, "avif", len(data))
        row["files"][rate] = {
            "bytes": len(data),
            "perco": f"{stem}_{rate}.perco",
            "picture": _keep(picture, folder / f"{stem}_{rate}.webp"),
            "avif": _keep(near.result.image, folder / f"{stem}_{rate}_avif.webp"),
            "avif_bytes": len(near.result.data),
            "avif_size": near.size,
            "reached": near.result.reached,
        }
    return row


def _keep(image: Image.Image, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **KEPT)
    return path.name


def gallery_text(row: dict) -> str:
    """One photo: a slider between two pictures, and what to choose between."""
    files = {"original": row["original"]}
    radios, shown_first = [], list(row["files"])[len(row["files"]) // 2]
    for rate, one in row["files"].items():
        size = "×".join(map(str, one["avif_size"]))
        avif = f"AVIF: {one['avif_bytes']:,} bytes, sent as {size} pixels and enlarged."
        if not one["reached"]:
            avif = f"AVIF has no file so small; its smallest, {one['avif_bytes']:,} bytes: {size}."
        file = f'<a href="{one["perco"]}" download>{one["bytes"]:,} bytes</a>'
        text = f"perco_lite: {file} at rate {rate}."
        files[rate] = {"picture": one["picture"], "text": text}
        files[rate]["alt"] = f"{row['caption']}, painted by perco_lite from {one['bytes']:,} bytes"
        files[rate]["avif"] = {"picture": one["avif"], "text": avif}
        files[rate]["avif"]["alt"] = f"{row['caption']}, as AVIF of {one['avif_bytes']:,} bytes"
        checked = " checked" * (rate == shown_first)
        radios.append(
            f'<label><input type="radio" name="{row["name"]}-rate" value="{rate}"{checked}> '
            f"{one['bytes']:,}</label>"
        )
    first = row["files"][shown_first]
    shown = {key: row[key] for key in ("name", "width", "height", "original")}
    shown |= {"picture": first["picture"], "rates": " ".join(radios)}
    block = PHOTO.format(**shown, files=json.dumps(files, ensure_ascii=False).replace("</", "<\\/"))
    return f"## {row['caption'][:1].upper()}{row['caption'][1:]}\n\n{block}\n"
