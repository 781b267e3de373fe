"""The explorer, driven as a reader's hand does: by setting values; asserted on what is drawn."""

import base64
import io
import sys
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image, ImageColor

from conftest import make_photo
from perco_lite.codec import DEFAULT_GUIDANCE
from perco_lite.widgets import BAR, GAP, PANEL, PART_COLOURS, CodecExplorer, draw_sheet, live_view

CAPTION = "a red barn beside a pond"


def photo():
    return make_photo(96, 64)


@pytest.fixture
def explorer(tiny_codec):
    return CodecExplorer(tiny_codec, photo(), CAPTION, steps=1)


def panel(explorer):
    """The painted photo, cut out of the sheet."""
    width, height = explorer.image.size
    left = 2 * GAP + width
    return explorer.sheet.crop((left, GAP, left + width, GAP + height))


def shown(explorer):
    return Image.open(io.BytesIO(explorer.view.value))


def bar(sheet):
    """Pixels of each part's colour in the widest row that has them: the bar, not the legend."""
    pixels = np.asarray(sheet)
    rows = {
        part: (pixels == ImageColor.getrgb(colour)).all(-1).sum(1)
        for part, colour in PART_COLOURS.items()
    }
    row = int(np.argmax(sum(rows.values())))
    return {part: int(counts[row]) for part, counts in rows.items()}


def test_draws_at_once(explorer, tiny_codec):
    assert explorer.rate.value == tiny_codec.rates[0]
    assert explorer.data == tiny_codec.compress(photo(), CAPTION, tiny_codec.rates[0])
    assert panel(explorer).tobytes() == explorer.picture.tobytes()
    original = explorer.sheet.crop((GAP, GAP, GAP + 96, GAP + 64))
    assert original.tobytes() == photo().tobytes()
    assert shown(explorer).size == explorer.sheet.size
    error = np.asarray(shown(explorer)).astype(int) - np.asarray(explorer.sheet)
    assert np.abs(error).mean() < 4, "the view shows the sheet"


@pytest.mark.parametrize(
    ("knob", "value"),
    [("rate", "0.1250"), ("steps", 2), ("guidance", 4.0), ("seed", 3), ("caption", "two dogs")],
)
def test_each_knob_draws_what_the_codec_gives(explorer, tiny_codec, knob, value):
    before = explorer.data, explorer.view.value
    getattr(explorer, knob).value = value
    rate = value if knob == "rate" else tiny_codec.rates[0]
    caption = value if knob == "caption" else CAPTION
    data = tiny_codec.compress(photo(), caption, rate)
    expected = tiny_codec.decompress(
        data,
        num_inference_steps=value if knob == "steps" else 1,
        guidance_scale=value if knob == "guidance" else DEFAULT_GUIDANCE,
        seed=value if knob == "seed" else 0,
    )
    assert explorer.data == data
    assert panel(explorer).tobytes() == expected.tobytes() == explorer.picture.tobytes()
    assert (explorer.data != before[0]) == (knob in ("rate", "caption"))
    if knob != "guidance":  # random weights may hardly react to the caption
        assert explorer.view.value != before[1]
    assert explorer.message.value == ""


def test_the_decoder_gets_every_knob(explorer, tiny_codec, monkeypatch):
    decompress = Mock(return_value=photo())
    monkeypatch.setattr(tiny_codec, "decompress", decompress)
    explorer.guidance.value, explorer.steps.value, explorer.seed.value = 2.5, 5, 7
    expected = {"num_inference_steps": 5, "guidance_scale": 2.5, "seed": 7, "max_pixels": None}
    assert decompress.call_args.kwargs == expected
    assert decompress.call_count == 3, "one decode for each change"


@pytest.mark.parametrize("rate", ["0.0019", "0.1250"])
def test_the_bar_is_the_ledger(explorer, rate):
    from perco_lite import ledger

    explorer.rate.value = rate
    parts, drawn = ledger(explorer.data), bar(explorer.sheet)
    whole = explorer.sheet.width - 2 * GAP
    assert sum(drawn.values()) == whole, "every byte has its place"
    for part, pixels in drawn.items():
        assert pixels == pytest.approx(whole * parts[part] / len(explorer.data), abs=1)


def test_a_part_without_bytes_is_not_in_the_bar(tiny_codec):
    explorer = CodecExplorer(tiny_codec, photo(), "", steps=1)
    assert bar(explorer.sheet)["caption"] == 0


def test_what_fails_is_said_and_the_last_picture_stays(explorer):
    before = explorer.data, explorer.view.value
    explorer.caption.value = "<b>" * 30_000
    assert "expected at most 65535" in explorer.message.value
    assert "not drawn" in explorer.message.value
    assert (explorer.data, explorer.view.value) == before
    explorer.caption.value = "two dogs"
    assert explorer.message.value == "" and explorer.view.value != before[1]


def test_readers_without_a_kernel_get_a_picture(explorer):
    bundle = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/jpeg"])))
    assert picture.format == "JPEG" and picture.size == explorer.sheet.size
    assert "0.0019" in bundle["text/plain"]


def test_version_7_of_ipywidgets_as_on_colab(explorer, monkeypatch):
    """It has no ``_repr_mimebundle_``; 7.7.1 itself was tried by hand."""
    ipywidgets = pytest.importorskip("ipywidgets")
    kind = "application/vnd.jupyter.widget-view+json"
    expected = explorer.box._repr_mimebundle_()[kind]
    monkeypatch.delattr(ipywidgets.Widget, "_repr_mimebundle_")
    assert live_view(explorer.box)[kind] == explorer._repr_mimebundle_()[kind] == expected


def test_large_photos_are_shown_smaller(explorer):
    large = make_photo(900, 500)
    sheet = draw_sheet(large, large, explorer.data)
    assert sheet.width == 3 * GAP + 2 * PANEL
    assert sheet.height > GAP + 200 + BAR and bar(sheet)["indices"] > 0


def test_starts_where_asked_and_says_what_it_cannot(tiny_codec, monkeypatch):
    explorer = CodecExplorer(tiny_codec, photo(), rate="0.0098", steps=3, seed=12)
    assert (explorer.rate.value, explorer.steps.value, explorer.seed.value) == ("0.0098", 3, 12)
    with pytest.raises(ValueError, match="0.0024"):
        CodecExplorer(tiny_codec, photo(), rate="0.0024")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r"perco_lite\[notebooks\]"):
        CodecExplorer(tiny_codec, photo())
