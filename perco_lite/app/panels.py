"""What a visitor is shown, as HTML that holds all it shows: no file on the server, no network.

    file, pictures, figures ──► slider, bar of bytes, index map, tables, bytes in hexadecimal

Every function returns a string; the few lines of script are handlers in it, for a page that puts
HTML in place runs no other. Texts of visitors are escaped.
"""

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from PIL import Image

from perco_lite.coding.bitstream import UnpackedFile
from perco_lite.coding.index_prior import find_prior
from perco_lite.files import printable
from perco_lite.widgets import PART_COLOURS

_MAX_CELLS = 40_000  # of an index map that can be hovered
_SHOWN_LINES = 64  # of a file in hexadecimal


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def image_uri(image: Image.Image, lossless: bool = True) -> str:
    """A picture as an address: PNG, or JPEG at a quality nobody sees."""
    stream = io.BytesIO()
    if lossless:
        image.save(stream, "PNG", compress_level=3)
        return data_uri(stream.getvalue(), "image/png")
    image.save(stream, "JPEG", quality=92, subsampling=0)
    return data_uri(stream.getvalue(), "image/jpeg")


def sentence(text: str, kind: str = "note") -> str:
    """One line: a note, or with ``kind`` "error" what went wrong."""
    role = ' role="alert"' if kind == "error" else ""
    return f'<p class="perco-{kind}"{role}>{html.escape(printable(text))}</p>' if text else ""


def progress(what: str, done: int = 0, steps: int = 0) -> str:
    """How far something is; without ``steps``, that it runs."""
    how_far = f'value="{done}" max="{steps}"' if steps else ""
    count = f" {done} of {steps}" if steps else ""
    what = html.escape(what)
    bar = f'<progress {how_far} aria-label="{what}"></progress>'
    return f'<p class="perco-note">{bar} {what}{count}</p>'


def download(data: bytes, name: str, text: str, kind: str = "application/octet-stream") -> str:
    """A link that saves bytes under a name; they are in the link."""
    name, text = html.escape(name), html.escape(text)
    return f'<a class="perco-save" download="{name}" href="{data_uri(data, kind)}">{text}</a>'


def slider(original: Image.Image, painted: Image.Image, left: str, right: str) -> str:
    """Two pictures of one size over each other, and a knob that moves the border between them."""
    handler = "this.parentNode.style.setProperty('--at', this.value + '%')"
    return (
        f'<div class="perco-slider" style="--at:50%">'
        f'<img src="{image_uri(painted)}" alt="{html.escape(right)}">'
        f'<img class="perco-over" src="{image_uri(original, lossless=False)}" '
        f'alt="{html.escape(left)}">'
        f'<span class="perco-left">{html.escape(left)}</span>'
        f'<span class="perco-right">{html.escape(right)}</span>'
        f'<input type="range" min="0" max="100" value="50" oninput="{handler}" '
        f'aria-label="border between {html.escape(left)} and {html.escape(right)}"></div>'
    )


def picture(image: Image.Image, alt: str, label: str = "") -> str:
    """One picture with a line below it."""
    caption = f"<figcaption>{html.escape(label)}</figcaption>" if label else ""
    return f'<figure><img src="{image_uri(image)}" alt="{html.escape(alt)}">{caption}</figure>'


def result(shown: str, data: bytes) -> str:
    """A painted picture, and links that save the file and, as PNG, the picture."""
    save = download(data, "photo.perco", f"save the file ({len(data):,} bytes)")
    # the picture is in the page already
    handler = "this.href=this.closest('.perco-result').querySelector('img').src"
    png = f'<a class="perco-save" download="painted.png" href="#" onclick="{handler}">'
    return (
        f'<div class="perco-result">{shown}<p class="perco-links">{save} {png}save the picture</a>'
        "</p></div>"
    )


def details(file: UnpackedFile, rows: Iterable[tuple[str, str]]) -> str:
    """Where the bytes went, figures, and the index map."""
    about = byte_bar(file.ledger) + table(rows)
    return f'<div class="perco-details"><div>{about}</div>{index_map(file)}</div>'


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, one pair a line."""
    cells = (f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)
    return f'<table class="perco-figures">{"".join(cells)}</table>'


def byte_bar(parts: Mapping[str, int]) -> str:
    """Where the bytes of a file went: a bar, each part as long as it is large, and its legend."""
    pieces = "".join(
        f'<span style="flex:{count} 0 0;background:{PART_COLOURS[part]}" title="{part}: {count:,} '
        f'bytes"></span>'
        for part, count in parts.items()
        if count
    )
    legend = " ".join(
        f'<span><i style="background:{PART_COLOURS[part]}"></i>{part} {count:,}</span>'
        for part, count in parts.items()
    )
    total = f"<span><b>{sum(parts.values()):,} bytes</b></span>"
    return f'<div class="perco-bar">{pieces}</div><div class="perco-legend">{legend} {total}</div>'


def code_colours(size: int) -> np.ndarray:
    """A colour for each of ``size`` codes, (size,3) uint8: neighbours in number are unlike."""
    turn = np.arange(size) * 0.618034 % 1  # the golden ratio spreads any number of hues evenly
    light = 0.35 + 0.5 * (np.arange(size) * 0.754878 % 1)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (turn[:, None] - np.array([0, 1 / 3, 2 / 3])))
    return np.round(255 * (0.25 + 0.75 * wave) * light[:, None] / 0.85).astype(np.uint8)


def index_map(file: UnpackedFile) -> str:
    """The indices as a picture, one cell an index; hovering one tells its code and its bits."""
    h, w = file.indices.shape
    size, rate = file.rate.codebook_size, file.rate
    cells = Image.fromarray(code_colours(size)[file.indices])
    bits = _bits_of_indices(file)
    how = "under the prior" if file.header.prior_coded else "each, all the same"
    about = f"{h}×{w} indices of {size:,} codes, {bits.sum():,.0f} bits {how}"
    told = {"codes": file.indices.ravel().tolist(), "bits": bits.ravel().round(1).tolist()}
    handler = (
        "const m=this,d=m.told||=JSON.parse(m.dataset.told),b=m.getBoundingClientRect(),"
        f"x=Math.min({w - 1},Math.max(0,Math.floor((event.clientX-b.left)/b.width*{w}))),"
        f"y=Math.min({h - 1},Math.max(0,Math.floor((event.clientY-b.top)/b.height*{h}))),"
        f"i=y*{w}+x;m.nextElementSibling.textContent="
        f"'row '+(y+1)+', column '+(x+1)+': code '+d.codes[i]+', '+d.bits[i]+' bits, '+"
        f"d.codes.filter(c=>c==d.codes[i]).length+' of {h * w} cells have it'"
    )
    hover = ""
    if h * w <= _MAX_CELLS:
        told = html.escape(json.dumps(told, separators=(",", ":")))
        hover = f'data-told="{told}" onpointermove="{handler}" onpointerdown="{handler}"'
    return (
        f'<figure class="perco-map"><img src="{image_uri(cells)}" {hover} style="aspect-ratio:'
        f'{file.width}/{file.height}" alt="index map, {about}"><figcaption>{about}; '
        f"one for {rate.stride}×{rate.stride} pixels</figcaption></figure>"
    )


def _bits_of_indices(file: UnpackedFile) -> np.ndarray:
    """What each index cost, (h,w) float: by the prior, or log2 K each."""
    if not file.header.prior_coded:
        return np.full(file.indices.shape, file.rate.bits_per_index)
    shares = find_prior(file.model_id, file.rate.name).walk(file.indices)
    bits = [np.log2(total / size) for _, size, total in shares]
    return np.array(bits).reshape(file.indices.shape)


def heat_map(values: np.ndarray, top: float) -> Image.Image:
    """Values (H,W) as a picture: black is 0, white ``top`` and more, through red and yellow."""
    level = np.clip(values / top, 0, 1) * 3
    return Image.fromarray(
        np.round(255 * np.clip(np.stack([level, level - 1, level - 2], -1), 0, 1)).astype(np.uint8)
    )


def gallery(figures: Sequence[str]) -> str:
    """Figures side by side, as many as fit."""
    return f'<div class="perco-gallery">{"".join(figures)}</div>'


def hexadecimal(data: bytes, marked: Iterable[int] = ()) -> str:
    """The bytes of a file, 16 a line; ``marked`` are the places of bytes that stand out.

    Of a long file, its first lines and those around the marked bytes.
    """
    marked, count = set(marked), -(-len(data) // 16)
    shown = set(range(count))
    if count > _SHOWN_LINES:
        near = {place // 16 + i for place in marked for i in (-1, 0, 1)}
        shown &= {0, 1, *sorted(near)[:_SHOWN_LINES]}
    lines = []
    for line in range(count):
        if line in shown:
            places = range(16 * line, min(16 * line + 16, len(data)))
            cells = (
                f"<mark>{data[i]:02x}</mark>" if i in marked else f"{data[i]:02x}" for i in places
            )
            lines.append(f"<span>{16 * line:04x}</span>  {' '.join(cells)}")
        elif line - 1 in shown:
            lines.append("…")
    return f'<pre class="perco-hex">{chr(10).join(lines)}</pre>'
