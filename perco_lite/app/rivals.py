"""What AVIF and WebP make of the same photo: in the same bytes, and at their smallest.

    photo, a number of bytes ──encode_shrunk, smallest──► files ──► figures side by side, HTML

Each figure is the rival's own file, which the browser decodes; where it was shrunk, the browser
enlarges it.
"""

import html
from collections.abc import Iterator

from PIL import Image

from perco_lite.app.panels import data_uri, gallery
from perco_lite.evaluation.codecs.classical import BaselineResult, available, smallest
from perco_lite.evaluation.codecs.shrunk import encode_shrunk
from perco_lite.metrics import psnr

RIVALS = {"avif": "AVIF", "webp": "WebP"}


def draw_rivals(photo: Image.Image, target_bytes: int) -> Iterator[str]:
    """Yield the figures made so far, after each one; the last are all.

    A codec that this Pillow lacks, and one that cannot make so small a file, is said by name.
    """
    figures = []
    for codec, name in RIVALS.items():
        if not available()[codec]:
            figures.append(_missing(f"{name}: this Pillow cannot write it"))
            continue
        same = encode_shrunk(photo, codec, target_bytes)
        size, pixels = len(same.result.data), f"{same.size[0]}×{same.size[1]}"
        if same.result.reached:
            how = f", shrunk to {pixels}" if same.size != photo.size else ""
            label = f"{name} in {size:,} bytes{how}: {psnr(photo, same.result.image):.2f} dB"
            figures.append(_figure(photo, same.result, label))
        else:
            none = f"{name} in {target_bytes:,} bytes: none; {pixels} pixels take it {size:,}"
            figures.append(_missing(none))
        yield gallery(figures)
        least = smallest(photo, codec)
        size, times = len(least.data), len(least.data) / target_bytes
        label = f"{name} at its smallest, {size:,} bytes ({times:.0f} × ours)"
        figures.append(_figure(photo, least, f"{label}: {psnr(photo, least.image):.2f} dB"))
        yield gallery(figures)


def _figure(photo: Image.Image, result: BaselineResult, label: str) -> str:
    kind = f"image/{result.codec}"
    return (
        f'<figure><img src="{data_uri(result.data, kind)}" alt="{html.escape(label)}" '
        f'style="aspect-ratio:{photo.width}/{photo.height}">'
        f"<figcaption>{html.escape(label)}</figcaption></figure>"
    )


def _missing(why: str) -> str:
    return f'<figure class="perco-missing"><figcaption>{html.escape(why)}</figcaption></figure>'
