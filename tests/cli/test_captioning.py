"""Words that come by themselves, into files of `perco compress` and by `perco caption`."""

import json

import pytest

from conftest import make_photo
from perco_lite import loading
from perco_lite.captioning import captioner as captioner_module
from perco_lite.cli import main, pretrained
from perco_lite.coding.bitstream import unpack
from perco_lite.data import load_captions, load_photo
from perco_lite.full_scale import captioning


@pytest.fixture
def folder(captioner, tmp_path, monkeypatch):
    """Where the bundled captioner seems to be: a small one, untrained."""
    captioner.save_pretrained(tmp_path / "captioner")
    monkeypatch.setattr(captioner_module, "BUNDLED", tmp_path / "captioner")
    return tmp_path / "captioner"


@pytest.fixture
def perco(perco, folder, tiny_codec, monkeypatch):
    monkeypatch.setattr(loading, "load_codec", lambda *_: tiny_codec)
    monkeypatch.setattr(main, "caption_writer", pretrained.caption_writer)
    return perco


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(5):
        make_photo(50 + number, 40, seed=number).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def own(folder, path, beams=captioner_module.BEAMS):
    return captioner_module.Captioner.from_pretrained(folder)(load_photo(path), beams)


def test_a_photo_without_a_caption_gets_one_which_is_printed(perco, folder, photos):
    code, out, err = perco("compress", photos / "1.png", photos / "2.png")
    assert (code, err) == (0, "")
    for name, line in zip("12", out.splitlines(), strict=True):
        caption = own(folder, photos / f"{name}.png")
        assert caption and line.endswith(f", caption written: {caption!r}")
        assert unpack((photos / f"{name}.perco").read_bytes()).caption == caption


def test_an_empty_caption_is_none_and_a_given_one_stays(perco, photos, tmp_path):
    for caption in ("", "A red barn."):
        code, out, _ = perco("compress", photos / "1.png", "--caption", caption)
        assert code == 0 and "written" not in out
        assert unpack((photos / "1.perco").read_bytes()).caption == caption
    (tmp_path / "c.json").write_text('{"1.png": "By hand."}')
    options = ("--captions", tmp_path / "c.json", "--overwrite")
    code, out, err = perco("compress", photos / "1.png", photos / "2.png", *options)
    assert code == 0 and "written" not in out and "no caption for 2.png; used none" in err
    assert unpack((photos / "2.perco").read_bytes()).caption == ""


def test_without_a_captioner_files_have_no_caption_and_a_note_says_so(perco, folder, photos):
    (folder / captioner_module.FILE).unlink()
    code, out, err = perco("compress", photos / "1.png", photos / "2.png")
    assert code == 0 and "written" not in out and err.count("\n") == 1
    assert err.startswith("note: no captioner in ") and err.endswith("files have no caption\n")
    assert unpack((photos / "1.perco").read_bytes()).caption == ""


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_of_a_folder_in_batches(perco, folder, photos, beams):
    options = ("--model", "lite", "--batch-size", 2, "--beams", beams)
    code, out, err = perco("caption", photos, *options)
    assert (code, err) == (0, f"{photos / 'captions.json'}: 5 new captions, 0 kept\n")
    captions = load_captions(photos / "captions.json")
    assert captions == {f"{n}.png": own(folder, photos / f"{n}.png", beams) for n in range(5)}
    assert out.splitlines() == [f"{name}: {text}" for name, text in captions.items()]


def test_where_no_hub_is_reached_ours_is_taken_and_a_note_says_so(perco, folder, photos):
    code, _, err = perco("caption", photos)
    note, count = err.splitlines()
    assert code == 0 and count.endswith("5 new captions, 0 kept")
    assert "Salesforce/blip-image-captioning-base (not in the cache" in note
    assert note.endswith("Taking the small captioner of this package, --model lite")
    captions = json.loads((photos / "captions.json").read_text())
    assert captions["1.png"] == own(folder, photos / "1.png")


def test_a_folder_of_another_captioner(perco, folder, photos, tmp_path):
    elsewhere = folder.rename(tmp_path / "mine")
    assert perco("caption", photos, "--model", elsewhere)[0] == 0
    code, _, err = perco("caption", photos, "--model", "lite", "-o", tmp_path / "c.json")
    assert code == 2 and "no captioner in" in err and err.count("\n") == 1


def test_blip_has_no_beams(perco, photos, monkeypatch):
    monkeypatch.setattr(captioning, "Captioner", None)
    code, _, err = perco("caption", photos, "--model", "some/blip", "--beams", 2)
    assert code == 2 and "got --beams 2 for some/blip" in err
