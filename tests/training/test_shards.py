"""Photos to train on: order, captions, broken samples counted, errors raised at once."""

import io
import json
import tarfile

import pytest
import torch
from PIL import Image

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


def test_half_of_all_crops_are_flipped_whatever_their_scale(tmp_path):
    ramp = Image.linear_gradient("L").rotate(90).resize((90, 64)).convert("RGB")
    ramp.save(tmp_path / "ramp.png")
    crops = PhotoStore(tmp_path).crops(600, 64, torch.Generator().manual_seed(0))
    slopes = crops[:, 0, 32, -1] - crops[:, 0, 32, 0]
    enlarged = slopes.abs() < slopes.abs().max() - 0.03
    assert 180 < enlarged.sum() < 300  # of 600, 40 %
    for flipped in (slopes[enlarged] < 0, slopes[~enlarged] < 0):
        assert 0.4 < flipped.float().mean() < 0.6
