"""Photos to train on: order, captions, broken samples counted, errors raised at once."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import tracemalloc

import pytest
import torch
from PIL import Image

from perco_lite.full_scale.photo_stream import PhotoStream
from perco_lite.training import shards
from perco_lite.training.photos import PhotoStore

WIDTH, HEIGHT = 24, 16


def make_photo():
    return Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")


def encoded(suffix):
    stream = io.BytesIO()
    make_photo().save(stream, format="jpeg" if suffix == "jpg" else suffix)
    return stream.getvalue()


def write_shard(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_shards_in_order_with_captions(tmp_path):
    about = json.dumps({"captions": ["a ramp", "red"], "source": "toy", "squashed": True}).encode()
    write_shard(tmp_path / "b-001.tar", {"k3.jpg": encoded("jpg"), "k3.json": b"{}"})
    write_shard(
        tmp_path / "a-000.tar",
        {"k1.webp": encoded("webp"), "k1.json": about, "k2.png": encoded("png")},
    )
    photos = list(shards.read_training_photos(tmp_path))
    assert [photo.key for photo in photos] == ["k1", "k2", "k3"]
    assert all(p.image.mode == "RGB" and p.image.size == (WIDTH, HEIGHT) for p in photos)
    assert photos[0].captions == ["a ramp", "red"]
    assert photos[0].source == "toy" and photos[0].squashed
    assert photos[1].captions == [] and not photos[1].squashed
    assert len(list(shards.read_shards([tmp_path / "b-001.tar"]))) == 1


def test_broken_samples_are_skipped_and_counted(tmp_path):
    members = {"bad.webp": encoded("webp")[:60], "bad.json": b"{}", "worse.json": b"{}"}
    members |= {"json.png": encoded("png"), "json.json": b"{not json", "good.png": encoded("png")}
    write_shard(tmp_path / "a.tar", members)
    (tmp_path / "b.tar").write_bytes(b"this is no tar file" * 100)
    with pytest.warns(UserWarning, match="skipped 4 photos or shards") as caught:
        photos = list(shards.read_training_photos(tmp_path))
    assert [photo.key for photo in photos] == ["good"] and len(caught) == 1


def test_plain_folder_of_photos(tmp_path):
    make_photo().save(tmp_path / "one.png")
    make_photo().save(tmp_path / "two.jpg")
    (tmp_path / "three.png").write_bytes(b"broken")
    (tmp_path / "captions.json").write_text('{"one.png": ["a ramp"]}')
    with pytest.warns(UserWarning, match="skipped 1 photos"):
        photos = list(shards.read_training_photos(tmp_path))
    assert [(photo.key, photo.captions) for photo in photos] == [("one", ["a ramp"]), ("two", [])]
    assert not photos[0].squashed and photos[0].source == tmp_path.name


def test_nothing_to_train_on_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected webdataset shards \(\*\.tar"):
        shards.read_training_photos(tmp_path)
    with pytest.raises(FileNotFoundError, match="no training photos at"):
        shards.read_training_photos(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no shard"):
        shards.read_shards(tmp_path)


def test_a_shard_cut_short_anywhere_is_noticed(tmp_path):
    members = {f"k{n}.png": encoded("png") for n in range(4)}
    write_shard(tmp_path / "whole.tar", members)
    content = (tmp_path / "whole.tar").read_bytes()
    assert shards.read_samples(str(tmp_path / "whole.tar"))[1] is None
    step = 512 + -(-len(encoded("png")) // 512) * 512
    for length in (2 * step, 2 * step + 100, 2 * step + 512, 2 * step + 600, 4 * step):
        (tmp_path / "cut.tar").write_bytes(content[:length])
        samples, problem = shards.read_samples(str(tmp_path / "cut.tar"))
        assert "cut.tar: " in problem and len(samples) < 4, length


BROKEN_ABOUTS = {
    "number": b'{"captions": 5}',
    "null": b'{"captions": [null]}',
    "mixed": b'{"captions": ["a ramp", 5]}',
    "mapping": b'{"captions": {"a": 1}}',
    "list": b"[1]",
    "nested": b"[" * 100_000,
    "digits": b'{"captions": ' + b"9" * 10_000 + b"}",
    "latin": '{"captions": "café"}'.encode("latin-1"),
    "surrogate": b'{"captions": "\\ud800"}',
    "long": b'{"captions": {"a": "' + b"x" * 100_000 + b'"}}',
}


@pytest.mark.parametrize("kind", BROKEN_ABOUTS)
def test_a_broken_description_costs_its_sample_alone(tmp_path, kind):
    members = {"bad.png": encoded("png"), "bad.json": BROKEN_ABOUTS[kind]}
    members |= {"good.png": encoded("png"), "good.json": b'{"captions": "a ramp", "source": 5}'}
    write_shard(tmp_path / "a.tar", members)
    with pytest.warns(UserWarning, match=r"skipped 1 photos .*a\.tar:bad\.json is ") as caught:
        photos = list(shards.read_training_photos(tmp_path))
    assert [(photo.key, photo.captions) for photo in photos] == [("good", ["a ramp"])]
    assert len(str(caught[0].message)) < 500 and "\n" not in str(caught[0].message)
    stream = PhotoStream(tmp_path, 16, workers=1)
    with pytest.warns(UserWarning, match=r"skipped 1 photos .*a\.tar:bad\.json is ") as caught:
        assert stream.crops(0, 4)[1] == [["a ramp"]] * 4
    assert stream.captioned() and len(str(caught[0].message)) < 500


def test_half_a_character_in_a_captions_file_is_said(tmp_path):
    make_photo().save(tmp_path / "one.png")
    (tmp_path / "captions.json").write_text('{"one.png": ["a ramp", "\\ud800"]}')
    for read in (PhotoStore, PhotoStream):
        with pytest.raises(ValueError, match=r"captions.json: got .* for one.png, expected a str"):
            read(tmp_path)


def test_a_key_of_any_length_is_named_in_a_bounded_line(tmp_path):
    write_shard(tmp_path / "a.tar", {"k" * 60_000 + ".png": b"broken", "good.png": encoded("png")})
    with pytest.warns(UserWarning, match="skipped 1 photos") as caught:
        assert [p.key for p in shards.read_training_photos(tmp_path)] == ["good"]
    assert len(str(caught[0].message)) < 500


def special(kind: bytes, name="odd.png", **facts) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "good.png"
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info


@pytest.mark.parametrize(
    "info, why",
    [
        (special(tarfile.SYMTYPE), "is a link"),
        (special(tarfile.LNKTYPE), "is a link"),
        (special(tarfile.CHRTYPE, devmajor=1, devminor=5), "is a link, a device"),
        (special(tarfile.FIFOTYPE), "a device"),
        (special(tarfile.REGTYPE, "/etc/odd.png"), "has a name outside"),
        (special(tarfile.REGTYPE, "a/../../odd.png"), "has a name outside"),
        (special(tarfile.REGTYPE, size=2000), "has 2,000 bytes, expected at most 1,000"),
        (special(tarfile.REGTYPE, pax_headers={"GNU.sparse.size": "99999999999",
                 "GNU.sparse.numblocks": "0", "GNU.sparse.map": "0,1"}), "sparse file"),
    ],
)  # fmt: skip
def test_what_is_no_plain_small_file_of_a_shard_is_skipped(tmp_path, monkeypatch, info, why):
    monkeypatch.setattr(shards, "MAX_FILE_BYTES", 1000)
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(bytes(info.size)))
        good = tarfile.TarInfo("good.png")
        good.size = len(encoded("png"))
        tar.addfile(good, io.BytesIO(encoded("png")))
    with pytest.warns(UserWarning, match=f"skipped 1 photos .*odd.png .*{why}"):
        assert [p.key for p in shards.read_training_photos(tmp_path)] == ["good"]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_shard_is_not_unpacked(tmp_path, pack):
    write_shard(tmp_path / "plain.tar", {"k.png": bytes(2**26), "k.json": b"{}"})
    packed = tmp_path / "packed.tar"
    packed.write_bytes(pack((tmp_path / "plain.tar").read_bytes()))
    (tmp_path / "plain.tar").unlink()
    tracemalloc.start()
    with pytest.raises(ValueError, match="packed.tar: .*is compressed, .*decompress it first"):
        list(shards.read_training_photos(packed))
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.parametrize(
    "limit, message",
    [({"MAX_FILES": 7}, "holds over 7 files"), ({"MAX_SHARD_BYTES": 15_000}, "is over 15,000 b")],
)
def test_a_shard_is_read_up_to_a_limit(tmp_path, monkeypatch, limit, message):
    monkeypatch.setattr(shards, *limit.popitem())
    write_shard(tmp_path / "a.tar", {f"k{n}.png": encoded("png") for n in range(30)})
    samples, problem = shards.read_samples(str(tmp_path / "a.tar"))
    assert message in problem and 5 < len(samples) < 15


@pytest.mark.parametrize("content", [b"", bytes(1024), bytes(10240)])
def test_an_empty_shard_says_so(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"no photo .* in .*a\.tar; the first: .*empty"):
        PhotoStore(tmp_path)
    write_shard(tmp_path / "b.tar", {"k.png": encoded("png")})
    with pytest.warns(UserWarning, match="skipped 1 photos or shards .*empty"):
        assert len(PhotoStore(tmp_path)) == 1


def test_dangling_links_pipes_and_folders_are_skipped(tmp_path):
    folder, tars = tmp_path / "photos", tmp_path / "tars"
    for place, suffix in ((folder, ".png"), (tars, ".tar")):
        place.mkdir()
        (place / f"link{suffix}").symlink_to("nowhere")
        (place / f"folder{suffix}").mkdir()
        os.mkfifo(place / f"pipe{suffix}")
    make_photo().save(folder / "good.png")
    write_shard(tars / "good.tar", {"good.png": encoded("png")})
    for place, count in ((folder, 1), (tars, 3)):  # of photos, files alone are listed
        with pytest.warns(UserWarning, match=f"skipped {count} photos"):
            assert [p.key for p in shards.read_training_photos(place)] == ["good"]
    with pytest.warns(UserWarning, match="skipped 1 photos"):
        assert PhotoStream(folder, 16, workers=1).crops(0, 4)[0].shape == (4, 3, 16, 16)


def test_photos_that_are_all_broken_are_said(tmp_path):
    (tmp_path / "one.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="no photo to be read in .*; the first: .*one.png"):
        PhotoStore(tmp_path)


def test_photos_smaller_than_a_crop_are_skipped_and_counted(tmp_path):
    for name, side in {"a": 40, "b": 64, "c": 70}.items():
        make_photo().resize((90, side)).save(tmp_path / f"{name}.png")
    (tmp_path / "captions.json").write_text('{"a.png": "one", "b.png": "two", "c.png": "three"}')
    store = PhotoStore(tmp_path)
    with pytest.warns(UserWarning, match="skipped 1 of 3 photos, smaller than a crop of 64 pixels"):
        large = store.large_enough(64)
    assert large.captions == [["two"], ["three"]] and len(large.weights) == 2 and len(store) == 3
    assert large.crops(3, 64, torch.Generator()).shape == (3, 3, 64, 64)
    assert store.large_enough(40) is store
    assert store.large_enough(500) is store, "all are small: enlarged, as before"


def test_half_of_all_crops_are_flipped_whatever_their_scale(tmp_path):
    ramp = Image.linear_gradient("L").rotate(90).resize((90, 64)).convert("RGB")
    ramp.save(tmp_path / "ramp.png")
    crops = PhotoStore(tmp_path).crops(600, 64, torch.Generator().manual_seed(0))
    slopes = crops[:, 0, 32, -1] - crops[:, 0, 32, 0]
    enlarged = slopes.abs() < slopes.abs().max() - 0.03
    assert 180 < enlarged.sum() < 300  # of 600, 40 %
    for flipped in (slopes[enlarged] < 0, slopes[~enlarged] < 0):
        assert 0.4 < flipped.float().mean() < 0.6
