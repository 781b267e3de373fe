"""What notebook 00 shows before anything is explained: your photo, its bytes, its price.

    a sample's name, a path, an upload ──► PhotoChoice: image of at most 768 pixels, caption
    data ──► draw_bytes: each byte a square, coloured by the part that owns it

Paper: nothing on this.
"""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from perco_lite.coding.bitstream import ledger
from perco_lite.data import load_photo, skimage_photos
from perco_lite.metrics import bits_per_pixel, psnr
from perco_lite.pixels import PhotoError, decode_photo
from perco_lite.widgets import PART_COLOURS, live_view

LONGEST = 768  # pixels: a photo of twelve megapixels would take most of a minute
SHOWN = 360  # pixels, the width of what is drawn of it


class PhotoChoice:
    """The photo of a tour: ``image`` (PIL, RGB), ``caption``, ``name``; and a form to change it.

    Make it the last value of a cell: an upload, the samples and a box for the caption, where a
    kernel runs; elsewhere the photo. ``choose`` and ``upload`` do what the form does.
    """

    def __init__(self, photo: str | Path, caption: str | None = None):
        self.message, self._boxes = "", None
        self.choose(photo, caption)

    def choose(self, photo: str | Path, caption: str | None = None) -> None:
        """Take a sample by its name, or a photo file by its path.

        ``caption`` None: the sample's own, or none. Raises ``FileNotFoundError`` for what is
        neither, ``PhotoError`` for a file that is no photo.
        """
        samples = {sample.name: sample for sample in skimage_photos()}
        if str(photo) in samples:
            sample = samples[str(photo)]
            self._take(sample.image, sample.name, sample.caption if caption is None else caption)
        elif Path(photo).is_file():
            self._take(load_photo(photo), Path(photo).name, caption or "")
        else:
            raise FileNotFoundError(
                f"got {str(photo)!r:.200}, expected a photo's path or one of {', '.join(samples)}"
            )

    def upload(self, name: str, content: bytes, caption: str = "") -> None:
        """Take the bytes of a photo file; ``PhotoError`` for others."""
        self._take(decode_photo(io.BytesIO(content), name), name, caption)

    def _take(self, image: Image.Image, name: str, caption: str) -> None:
        before, image = image.size, image.copy()
        image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        self.image, self.name, self.caption = image, name, " ".join(caption.split())
        shrunk = f", shrunk from {before[0]:,}×{before[1]:,}" if image.size != before else ""
        self.message = f"{name}: {image.width}×{image.height} pixels{shrunk}"

    def jpeg(self) -> bytes:
        """The photo, small."""
        stream, small = io.BytesIO(), self.image.copy()
        small.thumbnail((SHOWN, SHOWN))
        small.save(stream, "JPEG", quality=80)
        return stream.getvalue()

    def form(self):
        """The photo as ipywidgets: samples, upload, caption, and what was chosen."""
        import ipywidgets

        names = [sample.name for sample in skimage_photos()]
        known = self.name if self.name in names else None
        samples = ipywidgets.Dropdown(options=names, value=known, description="sample")
        upload = ipywidgets.FileUpload(accept="image/*", description="your photo")
        wide = {"width": "32em"}
        caption = ipywidgets.Text(value=self.caption, description="caption", layout=wide)
        said = ipywidgets.HTML(f"{self.message}; run the cells below")
        view = ipywidgets.Image(value=self.jpeg(), format="jpeg", width=SHOWN)

        def show(problem: object = "") -> None:
            said.value = str(problem) or f"{self.message}; run the cells below"
            view.value, caption.value = self.jpeg(), self.caption

        def sample_chosen(change) -> None:
            self.choose(change["new"])
            show()

        def uploaded(change) -> None:
            problem = ""
            for file in uploads(change["new"]):
                try:
                    self.upload(file["name"], bytes(file["content"]))
                except PhotoError as error:  # raised in a callback, nobody would see it
                    problem = str(error)
            show(problem)

        def told(change) -> None:
            self.caption = " ".join(change["new"].split())

        samples.observe(sample_chosen, names="value")
        upload.observe(uploaded, names="value")
        caption.observe(told, names="value")
        return ipywidgets.VBox([ipywidgets.HBox([samples, upload]), caption, said, view])

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """The form for a live notebook; for every other reader, the photo."""
        picture = base64.b64encode(self.jpeg()).decode("ascii")
        text = f"{self.message}: {self.caption!r}"
        bundle = {"image/jpeg": picture, "text/plain": text}
        try:
            return live_view(self.form()) | bundle
        except ImportError:  # no widgets here
            return bundle


def uploads(value: tuple | dict) -> list[dict]:
    """Files of ipywidgets' FileUpload: in version 8 one after the other, in 7 (Colab's) by name."""
    if isinstance(value, dict):
        return [{"name": name, **file} for name, file in value.items()]
    return list(value)


def label(name: str, data: bytes, original: Image.Image, image: Image.Image) -> str:
    """Two lines for a sheet: name and bytes; bits per pixel and PSNR."""
    rate = bits_per_pixel(data, *original.size)
    quality = f"PSNR {psnr(original, image):.1f} dB"
    return f"{name}: {len(data):,} bytes\n{rate:.4f} bpp, {quality}"


def draw_bytes(data: bytes, columns: int = 27):
    """Draw a `.perco` file byte by byte, coloured by the part that owns it; the figure."""
    import matplotlib.pyplot as plt

    parts = ledger(data)
    start = parts["header"] - 2  # two bytes of the header, the checksum, stand at the end
    counts = [start, parts["indices"], parts["caption"], 2]
    owners = np.repeat(["header", "indices", "caption", "header"], counts)
    rows = -(-len(data) // columns)
    figure, axes = plt.subplots(figsize=(7.6, 0.6 + 0.3 * rows))
    for part, colour in PART_COLOURS.items():
        places = np.flatnonzero(owners == part)
        look = {"s": 290, "marker": "s", "color": colour, "label": f"{part}: {parts[part]} bytes"}
        axes.scatter(places % columns, places // columns, **look)
    text = {"ha": "center", "va": "center", "color": "white", "fontsize": 8, "weight": "bold"}
    for place, byte in enumerate(data):
        axes.text(place % columns, place // columns, f"{byte:02x}", **text)
    axes.set(xlim=(-0.7, columns - 0.3), ylim=(rows - 0.4, -0.6))
    axes.axis("off")
    figure.legend(loc="outside upper left", ncols=3, markerscale=0.5, frameon=False)
    return figure
