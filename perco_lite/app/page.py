"""The page: which part of it is where.

    photo or file, knobs │ picture, figures, index map
    ─────────────────────┴────────────────────────────
    AVIF and WebP │ several seeds │ break the file

A photo and a file live in the page alone and are sent along; what each event does: ``events``.
"""

import abc
import base64
import html
from pathlib import Path
from types import SimpleNamespace

from PIL import Image

from perco_lite.app import panels
from perco_lite.app.answers import MAX_GUIDANCE, Answers
from perco_lite.app.events import connect_events
from perco_lite.app.intake import MAX_BYTES, MAX_PIXELS, samples, shrink
from perco_lite.app.painting import AT_ONCE, MAX_SEEDS

TITLE = "perco_lite: a photo in a hundred bytes"
STYLE = Path(__file__).with_name("style.css")
SWEEP = 10, 20  # seconds: how often uploads are looked for, and how old one gets
WAITING = 40  # visitors in the queue; more are told to come back

INTRODUCTION = f"""# {TITLE}
A photo becomes a grid of numbers and a caption, some 70 to 4,500 bytes, and a small diffusion model
paints it back from these. **What comes back is a painting with the right layout and colours, not
the photo.** Photos stay on this server for seconds and nobody looks at them; at most
{MAX_BYTES >> 20} MB and {MAX_PIXELS // 10**6} megapixels each."""
PICK = """element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) trigger('click', {number: +button.value});
});"""


def build_page(answers: Answers):
    """The page as ``gradio.Blocks``, to be launched."""
    import gradio as gr

    box = SimpleNamespace()  # every part of the page, by the name that answers give it
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=SWEEP) as page:
        gr.Markdown(INTRODUCTION)
        box.file = gr.Textbox(visible=False)
        with gr.Row():
            with gr.Column(min_width=300):
                _lay_out_input(gr, box, answers)
            with gr.Column(min_width=300, scale=2):
                box.status = gr.HTML(elem_id="status", min_height=32)
                box.result = gr.HTML(elem_id="result")
                box.details = gr.HTML(elem_id="details")
        _lay_out_experiments(gr, box)
        connect_events(gr, box, answers)
    return page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)


def _lay_out_input(gr, box: SimpleNamespace, answers: Answers) -> None:
    with gr.Tab("A photo"):
        box.photo = _photo_box(gr)
        info = "Tick before choosing: otherwise 768×512 pixels' worth."
        box.full_size = gr.Checkbox(False, label="Full size", info=info)
        box.about = gr.HTML()
        box.tray = gr.HTML(_tray(), js_on_load=PICK)
        box.caption = gr.Textbox(label="Caption", lines=2, info=_about_caption(answers))
        label = "Rate: fewest bytes on the left, most on the right"
        box.rate = gr.Slider(0, len(answers.rates) - 1, 0, step=1, label=label)
        box.rates = gr.HTML(answers.rate_bytes(None, "", {}))
        box.compress = gr.Button("Compress and paint", variant="primary")
    with gr.Tab("A .perco file"):
        box.upload = gr.File(label="A .perco file, from anywhere", type="binary")
        box.about_file = gr.HTML()
        box.paint = gr.Button("Paint it", variant="primary")
    with gr.Accordion("How it is painted", open=False):
        label = "Steps; 0: as many as suit these weights"
        box.steps = gr.Slider(0, 50, 0, step=1, label=label)
        label = "Guidance: weight of the caption; 0: what suits these weights, 1: off"
        box.guidance = gr.Slider(0, MAX_GUIDANCE, 0, step=0.5, label=label)
        box.seed = gr.Number(0, precision=0, minimum=0, label="Seed")


def _lay_out_experiments(gr, box: SimpleNamespace) -> None:
    with gr.Tab("AVIF and WebP"):
        box.rivals = gr.HTML("<p>The same photo in the same bytes, and at their smallest.</p>")
    with gr.Tab("Several seeds"):
        box.count = gr.Slider(2, MAX_SEEDS, 3, step=1, label="How many")
        box.more = gr.Button("Paint them side by side")
        box.seeds = gr.HTML(elem_id="seeds")
    with gr.Tab("Break the file"):
        box.bits = gr.Slider(1, 32, 1, step=1, label="Bits to flip")
        label = "Which: another number, other bits"
        box.which = gr.Number(0, precision=0, minimum=0, label=label)
        box.flip = gr.Button("Flip them")
        box.damage = gr.HTML(elem_id="damage")


def _photo_box(gr):
    """Gradio's image box, through which bytes go as they are, and pictures inside the page.

    Gradio would decode photos with Pillow's defaults, and keep every picture it shows as a file.
    """

    def read(self, payload) -> bytes | None:
        if payload is None:
            return None
        if payload.url and payload.url.startswith("data:"):
            return base64.b64decode(payload.url.partition(",")[2])
        return Path(payload.path).read_bytes()

    def show(self, picture: Image.Image | None):
        return None if picture is None else self.data_model(url=panels.image_uri(picture))

    own = {"preprocess": read, "postprocess": show, "get_block_name": lambda self: "image"}
    # not by `class`: Gradio's metaclass would write a .pyi beside this file
    kind = abc.ABCMeta.__new__(type(gr.Image), "PhotoBox", (gr.Image,), own)
    return kind(
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        label="A photo: drop, paste, or take one",
        buttons=["fullscreen"],
        height=280,
    )


def _tray() -> str:
    buttons = []
    for number, sample in enumerate(samples()):
        name = html.escape(sample.caption or sample.name)
        thumbnail = panels.image_uri(shrink(sample.image, 168 * 124), lossless=False)
        buttons.append(
            f'<button type="button" value="{number}" title="{name}">'
            f'<img src="{thumbnail}" alt="sample: {name}"></button>'
        )
    return f'<div class="perco-samples">{"".join(buttons)}</div>'


def _about_caption(answers: Answers) -> str:
    written = "Written by a small model; change it as you like. " if answers.describe else ""
    return f"{written}English, some ten words; it costs about a byte a word."
