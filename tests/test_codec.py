"""Photos to bytes and back: every size, rate and kind of photo, batches, seeds, captions."""

import math
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import build_tiny_codec, make_photo, pixels
from perco_lite import data
from perco_lite.coding.bitstream import BitstreamError, PercoFile, ledger, pack, unpack
from perco_lite.coding.entropy_coding import pack_text
from perco_lite.rates import RATES, get_rate
from perco_lite.tiling import BATCH_PIXELS, group_by_size

RATE_NAMES = ("0.0019", "0.0098", "0.0313", "0.1250")


# --- there and back ---


@pytest.mark.parametrize("rate", RATE_NAMES)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 64), (100, 70), (65, 129)])
def test_any_size_at_any_rate(tiny_codec, size, rate):
    encoded = tiny_codec.compress(make_photo(*size), "a cat", rate)
    file, point = unpack(encoded), get_rate(rate)
    assert file.rate == point and (file.width, file.height) == size
    assert file.indices.shape == tuple(math.ceil(side / point.stride) for side in size[::-1])
    assert (file.indices == tiny_codec.encode(make_photo(*size), rate)[0].numpy()).all()
    header = 6 + sum(1 + (side > 128) for side in size)
    index_bytes = math.ceil(file.indices.size * point.bits_per_index / 8)
    caption = len(pack_text("a cat", with_table=True)[1])
    assert ledger(encoded) == {"header": header, "caption": caption, "indices": index_bytes}
    assert header <= 10 and header + caption + index_bytes == len(encoded)
    decoded = tiny_codec.decompress(encoded, 1)
    assert decoded.size == size and decoded.mode == "RGB"


@pytest.mark.parametrize("size", [(768, 512), (512, 768)])
def test_a_kodak_photo_pays_six_bytes(tiny_codec, size):
    encoded = tiny_codec.compress(make_photo(*size))
    assert ledger(encoded) == {"header": 6, "caption": 0, "indices": 96}
    assert len(encoded) == 102
    first = pack(unpack(encoded), version=1)
    assert ledger(first) == {"header": 10, "caption": 0, "indices": 96}


def test_padding_repeats_the_edges_and_is_cropped_again(tiny_codec):
    photo, rate = make_photo(70, 50), "0.0098"
    padded = np.pad(np.asarray(photo), ((0, 14), (0, 26), (0, 0)), mode="edge")
    small = tiny_codec.compress(photo, "a cat", rate)
    large = tiny_codec.compress(Image.fromarray(padded), "a cat", rate)
    assert (unpack(small).indices == unpack(large).indices).all()
    assert len(np.unique(unpack(small).indices)) > 1, "else any padding would do"
    whole = pixels(tiny_codec.decompress(large, 2))
    assert whole.shape == (64, 96, 3)
    assert (pixels(tiny_codec.decompress(small, 2)) == whole[:50, :70]).all()


def test_the_photo_the_rate_and_the_caption_all_count(tiny_codec):
    photo, other = make_photo(128, 128), make_photo(128, 128, seed=1)
    assert tiny_codec.compress(photo) == tiny_codec.compress(photo)
    assert tiny_codec.compress(photo) != tiny_codec.compress(other)
    decoded = {
        name: pixels(tiny_codec.decompress(encoded, 2, guidance_scale=8))
        for name, encoded in {
            "cat": tiny_codec.compress(photo, "a cat", "0.0313"),
            "barn": tiny_codec.compress(photo, "a red barn beside a pond", "0.0313"),
            "other": tiny_codec.compress(other, "a cat", "0.0313"),
            "rate": tiny_codec.compress(photo, "a cat", "0.0098"),
        }.items()
    }
    for name in ("barn", "other", "rate"):
        assert (decoded[name] != decoded["cat"]).any(), name


# --- kinds of photos ---


def kinds() -> dict[str, Image.Image]:
    photo = make_photo(40, 24)
    turned, deep = photo.copy(), np.linspace(0, 65535, 40 * 24, dtype=np.uint16)
    turned.getexif()[0x0112] = 6
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    return {
        "exif": turned,
        "grey": photo.convert("L"),
        "palette": photo.convert("P"),
        "alpha": clear,
        "16 bit": Image.fromarray(deep.reshape(24, 40)),
        "cmyk": photo.convert("CMYK"),
        "1 bit": photo.convert("1"),
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_image_is_read_as_a_person_would(tiny_codec, kind):
    image = kinds()[kind]
    upright = data.to_rgb(image)
    encoded = tiny_codec.compress(image, "", "0.1250")
    assert encoded == tiny_codec.compress(upright, "", "0.1250")
    file = unpack(encoded)
    assert (file.width, file.height) == upright.size == ((24, 40) if kind == "exif" else (40, 24))
    if kind != "exif":  # Pillow's CMYK alone loses nothing
        plain = tiny_codec.compress(make_photo(40, 24), "", "0.1250")
        assert (plain == encoded) == (kind == "cmyk")


def test_an_array_is_told_what_to_become(tiny_codec):
    with pytest.raises(TypeError, match="fromarray"):
        tiny_codec.compress(np.zeros((8, 8, 3), np.uint8))


# --- captions ---


@pytest.mark.parametrize(
    "caption",
    ["", " ", "a cat", "👩🏽‍🚀 été\u0301 日本\n\x00tab\t", "\ud800 alone", "word " * 3000],
    ids=["none", "blank", "plain", "unicode", "surrogate", "long"],
)
def test_a_caption_comes_back_exactly(tiny_codec, caption):
    encoded = tiny_codec.compress(make_photo(9, 9), caption)
    assert unpack(encoded).caption == caption
    # a byte names the method where the caption table is not the one
    assert ledger(encoded)["caption"] <= len(caption.encode("utf-8", "surrogatepass")) + 1
    assert tiny_codec.decompress(encoded, 1).size == (9, 9), "whatever it is, it can be embedded"


# --- batches, seeds, guidance ---


def test_a_batch_gives_what_each_gives_alone(tiny_codec):
    photos = [make_photo(100, 70), make_photo(64, 64, 1), make_photo(97, 65, 2)]
    wanted = ("a", "0.0313"), ("two dogs", "0.0019"), ("", "0.1250")
    files = [tiny_codec.compress(p, *how) for p, how in zip(photos, wanted, strict=True)]
    together = tiny_codec.decompress(files, 3, seed=[5, 6, 7])
    for file, seed, picture in zip(files, (5, 6, 7), together, strict=True):
        alone = tiny_codec.decompress(file, 3, seed=seed)
        assert picture.size == alone.size
        assert np.abs(pixels(picture) - pixels(alone)).max() <= 1
    assert [p.size for p in together] == [p.size for p in photos]


def test_files_of_one_size_share_calls(tiny_codec):
    photos = [make_photo(60, 60, seed) for seed in range(3)]
    files = tiny_codec.compress(photos, ["a", "b", "c"], "0.0098")
    assert [unpack(file).caption for file in files] == ["a", "b", "c"]
    files.append(tiny_codec.compress(make_photo(200, 60), "d", "0.0098"))
    assert sizes_of_calls(tiny_codec, files, 2, 1) == [3, 3, 1, 1]


def test_large_photos_are_not_decoded_all_at_once():
    rate = get_rate("0.0098")
    photo = PercoFile(rate, 768, 512, "", np.zeros((16, 24), np.int64), 0)
    panorama = PercoFile(rate, 32, 32 * 4000, "", np.zeros((4000, 1), np.int64), 0)
    files = [photo, panorama] * 5
    groups = group_by_size(files)
    assert sorted(i for group in groups for i in group) == list(range(10))
    for group in groups:
        together = sum(files[i].indices.size * rate.stride**2 for i in group)
        assert together <= BATCH_PIXELS or len(group) == 1
        assert len({files[i].indices.shape for i in group}) == 1
    assert [len(group) for group in groups] == [4, 1, 1, 1, 1, 1, 1]


def sizes_of_calls(codec, *arguments) -> list[int]:
    """Batch sizes of the U-Net calls during one decompress."""
    sizes = []
    hook = codec.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    codec.decompress(*arguments)
    hook.remove()
    return sizes


def test_same_seed_same_picture(tiny_codec):
    file = tiny_codec.compress(make_photo(64, 64), "a cat")
    first, again, another = (pixels(tiny_codec.decompress(file, 2, seed=s)) for s in (3, 3, 4))
    assert (first == again).all()
    assert np.abs(first - another).mean() > 1
    assert (pixels(tiny_codec.decompress(file, 2)) == pixels(tiny_codec(file, 2, seed=0))).all()


def test_the_id_follows_codebooks_in_training():
    codec = build_tiny_codec()
    before = codec.model_id
    codec.conditioner.branch("0.0019").quantizer.codebook.mul_(-1)
    assert codec.model_id != before == build_tiny_codec().model_id


def test_generators_instead_of_seeds(tiny_codec):
    files = [tiny_codec.compress(make_photo(64, 64, seed), "a cat") for seed in range(2)]
    seeded = tiny_codec.decompress(files, 2, seed=[8, 9])
    generators = [torch.Generator().manual_seed(s) for s in (8, 9)]
    drawn = tiny_codec.decompress(files, 2, generator=generators)
    assert all((pixels(a) == pixels(b)).all() for a, b in zip(seeded, drawn, strict=True))
    alone = tiny_codec.decompress(files[0], 2, generator=torch.Generator().manual_seed(8))
    assert np.abs(pixels(alone) - pixels(seeded[0])).max() <= 1


def test_lists(tiny_codec):
    photos = [make_photo(9, 9), make_photo(20, 9)]
    assert tiny_codec.compress(photos, "a cat") == [tiny_codec.compress(p, "a cat") for p in photos]
    assert tiny_codec.compress([]) == [] and tiny_codec.decompress([]) == []
    (only,) = tiny_codec.decompress([tiny_codec.compress(photos[1])], 1)
    assert only.size == (20, 9)


# --- errors ---


def test_codebooks_are_hashed_once_a_call(tiny_codec, monkeypatch):
    encoded = tiny_codec.compress(make_photo(64, 64))
    hashed = Mock(wraps=tiny_codec.conditioner.fingerprint)
    monkeypatch.setattr(tiny_codec.conditioner, "fingerprint", hashed)
    tiny_codec.decompress([encoded, unpack(encoded)], 1)
    hashed.assert_called_once()


def test_files_that_cannot_be_decoded(tiny_codec):
    encoded = tiny_codec.compress(make_photo(64, 64), "a cat")
    file = unpack(encoded)
    stranger = pack(replace(file, model_id=file.model_id ^ 0x8000))
    with pytest.raises(BitstreamError, match="load the weights that made it"):
        tiny_codec.decompress([encoded, stranger], 1)
    for bad in (b"", encoded[:-1], b"\x89PNG", "a path", None, memoryview(encoded)):
        with pytest.raises(BitstreamError):
            tiny_codec.decompress(bad, 1)
    unserved = RATES[1]
    assert unserved.name not in tiny_codec.rates
    other = pack(PercoFile(unserved, 64, 64, "", np.zeros((1, 1), np.int64), file.model_id))
    with pytest.raises(ValueError, match="one of the paper, not of these weights; expected one of"):
        tiny_codec.decompress(other, 1)


def test_arguments_that_make_no_sense(tiny_codec):
    photo = make_photo(9, 9)
    with pytest.raises(ValueError, match="2 captions for 1 images; pass one for each"):
        tiny_codec.compress([photo], ["a", "b"])
    for rate in ("0.5", 0.5, None):
        with pytest.raises(ValueError, match="expected one of 0.0019, 0.0098, 0.0313, 0.1250"):
            tiny_codec.compress(photo, "", rate)
    with pytest.raises(ValueError, match="at most 65535"):
        tiny_codec.compress(photo, "x" * 65_536)
    file = tiny_codec.compress(photo)
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"num_inference_steps is {steps}, expected 1 to 1000"):
            tiny_codec.decompress(file, steps)
    with pytest.raises(ValueError, match="got 2 seeds for 1 files"):
        tiny_codec.decompress([file], 1, seed=[1, 2])
