"""The photo of notebook 00 by name, path and upload; its bytes drawn."""

import io
import sys
from datetime import datetime, timezone

import pytest

from conftest import make_photo
from perco_lite.course.tour import LONGEST, PhotoChoice, draw_bytes, label, uploads
from perco_lite.pixels import PhotoError


def png(image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def choice():
    return PhotoChoice("coffee.png")


def test_a_sample_brings_its_caption(choice):
    assert choice.image.size == (600, 400) and choice.caption
    assert choice.message == "coffee.png: 600×400 pixels"
    choice.choose("rocket.jpg", "a  rocket ")
    assert choice.caption == "a rocket" and choice.name == "rocket.jpg"


def test_a_path_is_shrunk_and_says_so(tmp_path):
    (tmp_path / "mine.png").write_bytes(png(make_photo(1600, 400)))
    mine = PhotoChoice(tmp_path / "mine.png")
    assert mine.image.size == (LONGEST, LONGEST // 4) and mine.caption == ""
    assert mine.message == "mine.png: 768×192 pixels, shrunk from 1,600×400"


def test_what_is_no_photo(choice, tmp_path):
    with pytest.raises(FileNotFoundError, match="got 'cofee.png', expected a photo's path or one"):
        PhotoChoice("cofee.png")
    with pytest.raises(PhotoError, match="notes.txt"):
        choice.upload("notes.txt", b"no photo")
    assert choice.name == "coffee.png", "the one before stays"


def test_the_form(choice):
    form = choice.form()
    (samples, upload), caption, said, view = form.children[0].children, *form.children[1:]
    samples.value = "chelsea.png"
    assert choice.name == "chelsea.png" and caption.value == choice.caption != ""
    assert said.value.startswith("chelsea.png: 451×300")
    caption.value = "a cat"
    assert choice.caption == "a cat"
    before = view.value
    about = {"type": "image/png", "size": 1, "last_modified": datetime.now(tz=timezone.utc)}
    good, bad = memoryview(png(make_photo(80, 40))), memoryview(b"x")
    upload.set_trait("value", ({"name": "mine.png", "content": good, **about},))
    assert choice.image.size == (80, 40) and choice.caption == "" and view.value != before
    upload.set_trait("value", ({"name": "b.png", "content": bad, **about},))
    assert "b.png" in said.value and choice.name == "mine.png"


def test_uploads_of_both_versions_of_ipywidgets():
    file = {"content": b"x", "metadata": {}}
    assert uploads({"a.png": file}) == [{"name": "a.png", **file}]
    assert uploads(({"name": "a.png", **file},)) == [{"name": "a.png", **file}]


def test_a_page_without_widgets_has_the_photo(choice, monkeypatch):
    assert "application/vnd.jupyter.widget-view+json" in choice._repr_mimebundle_()
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert set(choice._repr_mimebundle_()) == {"image/jpeg", "text/plain"}


def test_every_byte_is_drawn(tiny_codec):
    photo = make_photo(96, 64)
    data = tiny_codec.compress(photo, "a red barn", tiny_codec.rates[0])
    figure = draw_bytes(data)
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert drawn == [f"{byte:02x}" for byte in data]
    said = label("ours", data, photo, photo)
    assert said.startswith(f"ours: {len(data)} bytes\n") and said.endswith("PSNR inf dB")
