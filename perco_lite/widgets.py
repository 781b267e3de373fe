"""An explorer for notebooks: turn a knob, and the photo is compressed and painted again.

    rate, caption ──► compress ──► data ──► ledger ───────────────────┐
    steps, guidance, seed ──────────┴─────► decompress ──► picture ───┴──► sheet, one JPEG

Imported by notebooks only. Where no kernel runs (GitHub, nbviewer, a page made by nbconvert) the
sheet drawn last stays in the notebook as an ordinary picture.

Taught in notebook 00.
"""

import base64
import html
import io

from PIL import Image, ImageDraw

from perco_lite.codec import DEFAULT_GUIDANCE, PercoCodec
from perco_lite.coding.bitstream import ledger
from perco_lite.data import to_rgb
from perco_lite.metrics import bits_per_pixel, psnr
from perco_lite.plotting import PAPER, Tile, contact_sheet, label_font

# seaborn's colour-blind palette, as in the figures around it
PART_COLOURS = {"header": "#0173b2", "caption": "#de8f05", "indices": "#029e73"}
STEPS = (1, 2, 5, 10, 20, 50)
PANEL, SHEET, GAP, FONT, BAR = 360, 640, 10, 14, 14  # pixels: widest photo, narrowest sheet, …


class CodecExplorer:
    """Knobs for rate, steps, guidance, seed and caption around one photo.

    Make it the last value of a cell. The knobs ``rate``, ``steps``, ``guidance``, ``seed`` and
    ``caption`` are ipywidgets: setting a ``value`` from code does what moving it by hand does.
    What the values last set gave is in ``data`` (the file), ``picture`` (PIL, what it decodes to)
    and ``sheet`` (PIL, what is drawn); ``view.value`` is the sheet as JPEG.
    Raises ``ImportError`` without ipywidgets, ``ValueError`` for a rate the weights do not serve.
    """

    def __init__(
        self,
        codec: PercoCodec,
        image: Image.Image,
        caption: str = "",
        rate: str | None = None,
        steps: int = 20,
        guidance: float = DEFAULT_GUIDANCE,
        seed: int = 0,
    ):
        try:
            import ipywidgets
        except ImportError as error:
            raise ImportError(
                'the explorer needs ipywidgets; pip install "perco_lite[notebooks]"'
            ) from error
        self.codec, self.image = codec, to_rgb(image)
        rate = codec.rates[0] if rate is None else codec.rate(rate).name
        # a decode takes seconds: wait until the knob is let go
        look = {"continuous_update": False, "style": {"description_width": "5em"}}
        look["layout"] = {"width": "30em"}

        def knob(kind, name: str, value, **options):
            return kind(value=value, description=name, **options, **look)

        choice, slide = ipywidgets.SelectionSlider, ipywidgets.FloatSlider
        self.rate = knob(choice, "rate", rate, options=codec.rates)
        self.steps = knob(choice, "steps", steps, options=sorted({*STEPS, steps}))
        self.guidance = knob(slide, "guidance", guidance, min=0, max=12, step=0.5)
        self.seed = knob(ipywidgets.IntSlider, "seed", seed, min=0, max=max(9, seed))
        self.caption = knob(ipywidgets.Text, "caption", caption)
        self.message = ipywidgets.HTML()
        self.view = ipywidgets.Image(format="jpeg")
        self.knobs = (self.rate, self.steps, self.guidance, self.seed, self.caption)
        self.box = ipywidgets.VBox([*self.knobs, self.message, self.view])
        for one in self.knobs:
            one.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, change=None) -> None:
        """Compress, decompress and draw with the knobs' values."""
        self.message.value = "painting …"
        try:
            data = self.codec.compress(self.image, self.caption.value, self.rate.value)
            how = {"num_inference_steps": self.steps.value, "guidance_scale": self.guidance.value}
            # the file is our own, so a photo of any size is painted
            how |= {"seed": self.seed.value, "max_pixels": None}
            picture = self.codec.decompress(data, **how)  # type: ignore[arg-type]
        except ValueError as error:
            if change is None:
                raise
            # raised in a callback it would only reach a log, where nobody looks
            self.message.value = f"<b>not drawn:</b> {html.escape(str(error))}"
            return
        self.data, self.picture = data, picture
        self.sheet = draw_sheet(self.image, picture, data)  # type: ignore[arg-type]
        stream = io.BytesIO()
        self.sheet.save(stream, "JPEG", quality=85)
        self.view.value = stream.getvalue()
        self.message.value = ""

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """The knobs for a live notebook and, for every other reader, the sheet as a picture."""
        return {
            **live_view(self.box),
            "image/jpeg": base64.b64encode(self.view.value).decode("ascii"),
            "text/plain": f"CodecExplorer at rate {self.rate.value}: run the cell for its knobs",
        }


def live_view(widget) -> dict:
    """What a live notebook shows of an ipywidgets' widget, as a MIME bundle.

    Version 7, which Colab has, can display a widget but does not say how.
    """
    if hasattr(widget, "_repr_mimebundle_"):
        return widget._repr_mimebundle_()
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    return {"text/plain": repr(widget), "application/vnd.jupyter.widget-view+json": view}


def draw_sheet(original: Image.Image, picture: Image.Image, data: bytes) -> Image.Image:
    """Original and picture side by side, and below them where each byte of the file went."""
    tiles = [Tile(original), Tile(picture)]
    photos = contact_sheet([tiles], min(original.width, PANEL), font_size=FONT, gap=GAP)
    size = (max(SHEET, photos.width), photos.height + BAR + FONT + 2 * GAP)
    sheet = Image.new("RGB", size, PAPER)
    sheet.paste(photos)
    draw, font = ImageDraw.Draw(sheet), label_font(FONT)
    rate, quality = bits_per_pixel(data, *original.size), psnr(original, picture)
    text = f"original, and {len(data):,} bytes = {rate:.4f} bpp painted; PSNR {quality:.2f} dB"
    # where labels would stand; they may be wider than a small photo
    draw.text((GAP, photos.height - GAP - 2 * FONT), text, fill="black", font=font)
    _draw_bar(draw, ledger(data), (GAP, photos.height, size[0] - GAP), font)
    return sheet


def _draw_bar(draw: ImageDraw.ImageDraw, parts: dict[str, int], place, font) -> None:
    """A bar of ``sum(parts)`` bytes from ``left`` to ``right``, and its legend under it."""
    left, top, right = place
    total, before, x = sum(parts.values()), 0, left
    for part, colour in PART_COLOURS.items():
        start = left + round((right - left) * before / total)
        before += parts[part]
        end = left + round((right - left) * before / total)
        if end > start:
            draw.rectangle((start, top, end - 1, top + BAR - 1), fill=colour)
        draw.rectangle((x, top + BAR + 7, x + 9, top + BAR + 16), fill=colour)
        label = f"{part} {parts[part]:,}"
        draw.text((x + 15, top + BAR + 3), label, fill="black", font=font)
        x += 15 + round(font.getlength(label)) + 2 * GAP
