"""What AVIF and WebP make of the same photo: in the same bytes, and at their smallest.

    photo, a number of bytes ──shrunk_near, smallest──► files ──► figures side by side, HTML

Each figure is the rival's own file, which the browser decodes; where it was shrunk, the browser
enlarges it.
"""

import html
from collections.abc import Iterator

from PIL import Image

from perco_lite.app.panels import data_uri, gallery
from perco_lite.evaluation.codecs.classical import BaselineResult, available, smallest
from perco_lite.evaluation.codecs.shrunk import floor_bytes, shrunk_near
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
        same = shrunk_near(photo, codec, target_bytes)
        if same is None:
            floor = floor_bytes(codec)
            figures.append(
                _missing(f"{name} in {target_bytes:,} bytes: none; one grey pixel takes {floor:,}")
            )
        else:
            small = same.size != photo.size
            how = f", shrunk to {same.size[0]}×{same.size[1]}" if small else ""
            label = f"{name} in {len(same.result.data):,} bytes{how}: {same.psnr:.2f} dB"
            figures.append(_figure(photo, same.result, label))
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
