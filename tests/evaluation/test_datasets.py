"""Which photos an evaluation runs over, their captions and sizes, and what is refused."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from perco_lite.data import SKIMAGE_PHOTOS, load_captions
from perco_lite.evaluation import datasets
from perco_lite.evaluation.datasets import missing_kodak, open_dataset, parse_size


@pytest.fixture
def folder(tmp_path):
    """Three photos, made in no order."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    for name, size in (("b.png", (40, 30)), ("c.jpg", (30, 40)), ("a.png", (33, 17))):
        Image.new("RGB", size, (200, 90, 10)).save(folder / name)
    (folder / "notes.txt").write_text("no photo")
    return folder


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def names(photo_set):
    return [photo.name for photo in photo_set.photos]


def test_a_folder_by_name_at_its_own_size(folder):
    found = open_dataset(str(folder))
    assert names(found) == ["a.png", "b.png", "c.jpg"] and found.name == "holiday"
    assert found.load(found.photos[2]).size == (30, 40) and found.resize_rule == "own size"
    assert found.captions == "" and [photo.caption for photo in found.photos] == [None] * 3
    assert found.notes == ("3 of 3 photos have no caption (a.png, b.png, c.jpg)",)


def test_a_limit_keeps_the_first_and_knows_the_rest(folder):
    found = open_dataset(str(folder), limit=2)
    assert names(found) == ["a.png", "b.png"]
    assert found.all_names == {"a.png", "b.png", "c.jpg"}
    with pytest.raises(ValueError, match="limit of -1"):
        open_dataset(str(folder), limit=-1)


def test_squashing_is_pillows_bicubic(folder):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(noise).save(folder / "b.png")
    found = open_dataset(str(folder), resize="64x48")
    assert found.resize_rule == "squashed to 64x48, Pillow bicubic"
    expected = Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)
    assert found.load(found.photos[1]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("text", ["", "512", "4x4", "9000x512", "512x512px", "-5x512", "None"])
def test_other_rules_are_refused(text):
    with pytest.raises(ValueError, match="expected none or WIDTHxHEIGHT"):
        parse_size(text)


def test_captions_beside_the_photos_and_given(folder):
    write(folder / "captions.json", {"a.png": ["first", "second"], "b.png": "", "c.jpg": []})
    found = open_dataset(str(folder))
    assert [photo.caption for photo in found.photos] == ["first", None, None]
    assert found.notes[0] == "2 of 3 photos have no caption (b.png, c.jpg)"
    given = write(folder.parent / "other.json", {"a.png": "given", "z.png": "nobody's"})
    other = open_dataset(str(folder), captions=given, limit=1)
    assert other.photos[0].caption == "given" and other.captions not in ("", found.captions)
    assert any("1 photos that do not exist (z.png)" in note for note in other.notes)


def test_the_digest_is_of_all_captions(folder):
    given = write(folder.parent / "c.json", {"a.png": "one", "c.jpg": "two"})
    digests = {open_dataset(str(folder), captions=given, limit=n).captions for n in (0, 1)}
    assert len(digests) == 1, "a limit must not look like other captions"
    write(given, {"a.png": "one", "c.jpg": "three"})
    assert open_dataset(str(folder), captions=given, limit=1).captions not in digests


def test_captions_of_other_photos_are_an_error(folder):
    given = write(folder.parent / "c.json", {"x.png": "one"})
    with pytest.raises(ValueError, match=r"captions for x.png, none of them for these photos \(a"):
        open_dataset(str(folder), captions=given)
    with pytest.raises(FileNotFoundError, match="no captions at"):
        open_dataset(str(folder), captions=folder / "nowhere.json")
    with pytest.raises(ValueError, match="is not a JSON object"):
        open_dataset(str(folder), captions=write(given, "not json"))


def test_coco_captions_file(tmp_path):
    content = {
        "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 9, "file_name": "9.jpg"}],
        "annotations": [
            {"id": 5, "image_id": 7, "caption": "later"},
            {"id": 3, "image_id": 7, "caption": " first \n"},
            {"id": 4, "image_id": 9, "caption": "nine"},
        ],
    }
    path = write(tmp_path / "captions_val.json", content)
    assert load_captions(path) == {"7.jpg": "first", "9.jpg": "nine"}


def test_coco30k_is_a_list_squashed_and_its_native_twin_is_not(folder, monkeypatch):
    monkeypatch.setattr(datasets, "COCO_PHOTOS", 2)
    chosen = write(folder.parent / "list.txt", "c.jpg\na.png\n\nc.jpg\n")
    squashed = open_dataset("coco30k", folder, names=chosen)
    native = open_dataset("coco30k-native", folder, names=chosen)
    assert names(squashed) == names(native) == ["a.png", "c.jpg"]
    assert squashed.load(squashed.photos[0]).size == (512, 512)
    assert native.load(native.photos[0]).size == (33, 17)
    assert squashed.resize_rule == "squashed to 512x512, Pillow bicubic"
    assert open_dataset("coco30k", folder, names=chosen, resize="none").size is None
    assert not any("the paper's has" in note for note in squashed.notes)
    monkeypatch.setattr(datasets, "COCO_PHOTOS", 30_000)
    notes = open_dataset("coco30k", folder, names=chosen).notes
    assert notes[0] == "the list has 2 names, the paper's has 30,000"


def test_coco30k_says_what_it_needs(folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no list of names at .*coco_names.txt.*--list"):
        open_dataset("coco30k", folder)
    monkeypatch.setenv("PERCO_LITE_DATA", str(folder))
    monkeypatch.setattr("perco_lite.data.pooch.os_cache", lambda name: folder / name)
    with pytest.raises(FileNotFoundError, match="no coco30k photos found; give their folder"):
        open_dataset("coco30k-native")
    missing = write(folder.parent / "list.txt", "a.png\nq.png")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 photos of .* are not in .* \(q.png\)"):
        open_dataset("coco30k", folder, names=missing)
    with pytest.raises(ValueError, match="is empty"):
        open_dataset("coco30k", folder, names=write(missing, "\n"))
    with pytest.raises(FileNotFoundError, match="no list of names"):
        open_dataset("coco30k", folder, names=folder / "nowhere.txt")


def test_named_sets_are_found(folder, monkeypatch):
    (folder / "kodak").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "kodak" / "kodim01.png")
    monkeypatch.setenv("PERCO_LITE_DATA", str(folder))
    kodak = open_dataset("kodak")
    assert names(kodak) == ["kodim01.png"] and kodak.size is None
    assert len(kodak.photos[0].caption.split()) > 5, "this project's own"
    samples = open_dataset("samples")
    assert names(samples) == sorted(SKIMAGE_PHOTOS)
    assert all(photo.caption for photo in samples.photos)


def test_what_is_no_folder(folder):
    with pytest.raises(FileNotFoundError, match="no folder at nowhere; give a folder of photos"):
        open_dataset("nowhere")
    for name in (str(folder), "samples"):
        with pytest.raises(ValueError, match="got a folder for"):
            open_dataset(name, folder)
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match="no photos in"):
        open_dataset(str(empty))


def test_unreadable_photos_are_told_apart(folder):
    (folder / "bad.png").write_bytes(b"not a photo")
    (folder / "empty.jpg").touch()
    good, bad = open_dataset(str(folder)).without_unreadable()
    assert names(good) == ["a.png", "b.png", "c.jpg"]
    assert [photo.name for photo, _ in bad] == ["bad.png", "empty.jpg"]
    assert "no image that Pillow knows" in str(bad[0][1]) and "is empty" in str(bad[1][1])


# --- shards, large photos, and what is not there ---


@pytest.fixture
def shards(tmp_path):
    """Three photos in two shards; the captions of two."""
    folder = tmp_path / "val"
    folder.mkdir()
    said = {"b": ["A dog runs.", "second"], "a": [], "c": ["two men"]}
    for number, keys in enumerate(("ba", "c")):
        with tarfile.open(folder / f"part-{number}.tar", "w") as shard:
            for key in keys:
                stream = io.BytesIO()
                Image.new("RGB", (64, 40 + ord(key) % 7), (9, 90, ord(key))).save(stream, "PNG")
                text = json.dumps({"captions": said[key], "source": "made up"}).encode()
                for name, data in ((f"{key}.png", stream.getvalue()), (f"{key}.json", text)):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    shard.addfile(entry, io.BytesIO(data))
    return folder


def test_photos_in_shards_are_read_where_they_lie(shards, monkeypatch):
    found = open_dataset(str(shards))
    assert names(found) == ["a.png", "b.png", "c.png"] and found.name == "val"
    assert [photo.caption for photo in found.photos] == [None, "A dog runs.", "two men"]
    for photo in found.photos:
        image = found.load(photo)
        assert image.getpixel((3, 3)) == (9, 90, ord(photo.name[0]))
        assert image.height == 40 + ord(photo.name[0]) % 7
    assert "captions: in the shards, the first of each" in found.notes
    good, bad = found.without_unreadable()
    assert names(good) == names(found) and not bad
    monkeypatch.setenv("PERCO_LITE_DATA", str(shards.parent))
    assert open_dataset("val").gaps == ("3 of 500 photos are here",)
    given = write(shards.parent / "c.json", {"a.png": "given"})
    assert open_dataset("val", captions=given).photos[0].caption == "given"


def test_a_shard_that_is_cut_or_says_a_name_twice(shards):
    whole = (shards / "part-0.tar").read_bytes()
    (shards / "part-2.tar").write_bytes(whole)
    with pytest.raises(ValueError, match="part-2.tar is no shard of photos .two photos are called"):
        open_dataset(str(shards))
    (shards / "part-2.tar").write_bytes(b"no tar")
    with pytest.raises(ValueError, match="part-2.tar is no shard of photos"):
        open_dataset(str(shards))
    (shards / "part-2.tar").unlink()
    (shards / "part-0.tar").write_bytes(whole.replace(b"\x89PNG", b"\x89BAD"))
    good, bad = open_dataset(str(shards)).without_unreadable()
    assert names(good) == ["c.png"] and [photo.name for photo, _ in bad] == ["a.png", "b.png"]


def test_shrinking_to_a_long_side_leaves_out_smaller_photos(folder):
    found = open_dataset(str(folder), resize="long:34")
    assert names(found) == ["b.png", "c.jpg"] and found.resize_rule.startswith(
        "long side shrunk to"
    )
    assert [found.load(photo).size for photo in found.photos] == [(34, 26), (26, 34)]
    assert "1 photos are below 34 pixels: a.png" in found.notes
    with pytest.raises(ValueError, match="got no photo of 99 pixels or more"):
        open_dataset(str(folder), resize="long:99")
    for text in ("long:", "long:4", "long", "long:99999"):
        with pytest.raises(ValueError, match="expected long:1024, sides from 8 to 8192"):
            parse_size(text)


def test_missing_photos_of_a_named_set_are_counted(folder, monkeypatch):
    (folder / "kodak").mkdir()
    Image.new("RGB", (40, 30)).save(folder / "kodak" / "kodim01.png")
    monkeypatch.setenv("PERCO_LITE_DATA", str(folder))
    kodak = open_dataset("kodak")
    (gap,) = kodak.gaps
    assert gap.startswith("1 of 24 photos are here; no kodim02, kodim03, ") and gap in kodak.notes
    assert missing_kodak([f"kodim{n:02}.png" for n in range(1, 24)]) == "kodim24"
    chosen = write(folder / "list.txt", "kodim01.png")
    assert open_dataset("kodak", names=chosen).gaps == (), "as asked for"
    with pytest.raises(FileNotFoundError, match="no large photos found; give their folder"):
        open_dataset("large")


def test_captions_that_the_coder_was_trained_on_are_counted(folder, monkeypatch):
    write(folder / "captions.json", {"a.png": "A dog  runs.", "b.png": "A cat.", "c.jpg": "None."})
    monkeypatch.setenv("PERCO_LITE_DATA", str(folder))
    assert not any("word for word" in note for note in open_dataset(str(folder)).notes)
    (folder / "captions").mkdir()
    write(folder / "captions" / "some_train.txt", "two men\na dog runs\nA CAT .\n")
    write(folder / "captions" / "heldout.txt", "none\n")
    notes = open_dataset(str(folder)).notes
    assert any(
        note.startswith("2 of 3 captions stand word for word") and "(a.png, b.png)" in note
        for note in notes
    )
