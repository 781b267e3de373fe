"""perco with one thing changed: the right thing, and no other."""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from conftest import build_telling_codec, make_photo, pixels
from perco_lite.captioning.captioner import Captioner
from perco_lite.coding.bitstream import unpack
from perco_lite.data import image_to_tensor, pad_to_multiple
from perco_lite.evaluation.codecs import variants
from perco_lite.evaluation.codecs.ours import Decoding, Perco, PercoFiles
from perco_lite.evaluation.codecs.variants import build_variant, is_ours, read_changes
from perco_lite.evaluation.datasets import open_dataset
from perco_lite.metrics import Unavailable
from perco_lite.rates import get_rate

RATE = "0.0313"
DECODING = Decoding(steps=2, seed=3)
CAPTIONS = {"0.png": "two dogs run", "1.png": "a plate of food", "2.png": "a red barn"}


@pytest.fixture
def photos(tmp_path):
    for number in range(4):
        make_photo(seed=number).save(tmp_path / f"{number}.png")
    (tmp_path / "captions.json").write_text(json.dumps(CAPTIONS))
    return open_dataset(str(tmp_path))


@pytest.fixture
def attempt(tiny_codec, photos):
    """What a variant makes of one of the photos."""

    def make(name, number=0, codec=tiny_codec, decoding=DECODING):
        method = build_variant(name, PercoFiles(codec), (RATE,), decoding, photos)
        photo = photos.photos[number]
        (made,) = method.run([(photo, photos.load(photo), [RATE])])
        if made.error is not None:
            raise made.error
        assert (made.codec, made.rate, made.photo) == (name, RATE, photo)
        return made, method.how(RATE)

    return make


def test_settings_of_painting(attempt, tiny_codec, photos):
    made, how = attempt("perco+steps=3+guidance=2.5+temperature=0.5+anchor=0+seed=7")
    image = photos.load(photos.photos[0])
    data = tiny_codec.compress(image, CAPTIONS["0.png"], RATE)
    assert made.data == data
    expected = tiny_codec.decompress(data, 3, 2.5, seed=7, anchor=0, temperature=0.5)
    assert np.array_equal(pixels(made.image), pixels(expected))
    told = {"steps": "3", "guidance": "2.5", "temperature": "0.5", "anchor": "0", "seed": "7"}
    assert how | told == how and how["sampler"] == "DDIMScheduler"
    _, how = attempt("perco+guidance=3")
    assert (how["steps"], how["seed"]) == ("2", "3"), "what is not named is as in perco"


def test_few_steps_and_the_papers_loop(attempt, photos):
    codec = build_telling_codec()
    codec.register_to_config(few_steps={RATE: [999]})
    codec.set_progress_bar_config(disable=True)
    perco = Perco(PercoFiles(codec), (RATE,), Decoding())
    own = perco.how(RATE)
    assert (own["steps"], own["sampler"], own["anchor"], own["temperature"]) == (
        "1",
        "fast",
        "0",
        "1",
    )
    made, how = attempt("perco+steps=20", codec=codec, decoding=Decoding())
    assert (how["steps"], how["sampler"], how["anchor"]) == ("20", "DDIMScheduler", "1")
    assert np.array_equal(pixels(made.image), pixels(codec.decompress(made.data, 20)))
    _, how = attempt("perco+steps=1+sampler=paper", codec=codec, decoding=Decoding())
    assert (how["steps"], how["sampler"]) == ("1", "DDIMScheduler")


def test_a_sampler_that_weights_lack_is_known_beforehand(attempt):
    with pytest.raises(ValueError, match="not trained to paint 0.0313 in few steps"):
        attempt("perco+sampler=fast")


def test_other_captions_are_in_the_file(attempt, captioner, monkeypatch):
    assert unpack(attempt("perco+caption=none")[0].data).caption == ""
    assert unpack(attempt("perco+caption=other")[0].data).caption == CAPTIONS["1.png"]
    assert unpack(attempt("perco+caption=other", 2)[0].data).caption == CAPTIONS["0.png"]
    assert unpack(attempt("perco+caption=other", 3)[0].data).caption == CAPTIONS["0.png"]
    monkeypatch.setattr(Captioner, "from_pretrained", classmethod(lambda cls: captioner))
    made, _ = attempt("perco+caption=machine")
    assert unpack(made.data).caption == captioner(make_photo(seed=0))


def test_captions_that_are_not_to_be_had(tiny_codec, photos, monkeypatch):
    def missing(cls):
        raise FileNotFoundError("no captioner here")

    monkeypatch.setattr(Captioner, "from_pretrained", classmethod(missing))
    files = PercoFiles(tiny_codec)
    with pytest.raises(Unavailable, match="no captioner here"):
        build_variant("perco+caption=machine", files, (RATE,), DECODING, photos)
    with pytest.raises(Unavailable, match="no other photo has a caption"):
        build_variant("perco+caption=other", files, (RATE,), DECODING)


def test_rounds_make_another_file(attempt, tiny_codec, photos):
    image = photos.load(photos.photos[0])
    made, _ = attempt("perco+rounds=0")
    assert made.data == tiny_codec.compress(image, CAPTIONS["0.png"], RATE, rounds=0)


def test_a_price_of_bits_reaches_the_encoder(attempt, tiny_codec, monkeypatch):
    asked, real = [], tiny_codec.compress
    monkeypatch.setattr(tiny_codec, "compress", lambda *a: asked.append(a[2:]) or real(*a))
    attempt("perco+price=0.1")
    attempt("perco+price=0+rounds=2")
    assert asked == [(RATE, None, 0.1), (RATE, 2, 0.0)]


def test_without_a_grid_the_photo_plays_no_part(attempt):
    pictures = [attempt("perco+grid=none+caption=none", number)[0] for number in (0, 1)]
    assert np.array_equal(*(pixels(made.image) for made in pictures))
    assert all(made.data is None for made in pictures)
    told = attempt("perco+grid=none")[0]
    assert not np.array_equal(pixels(told.image), pixels(pictures[0].image)), "its caption does"


def test_without_quantizing_vectors_go_on_as_they_are(attempt, photos):
    """With a codebook that has these very vectors, quantizing them changes nothing."""
    codec, image = build_telling_codec(), photos.load(photos.photos[0])
    codec.set_progress_bar_config(disable=True)
    made, how = attempt("perco+quantizer=off", codec=codec)
    assert made.data is None and made.image.size == image.size and how["steps"] == "2"
    branch = codec.conditioner.branch(RATE)
    condition = variants.unquantized(codec, image, RATE)
    nearest = codec.condition(unpack(codec.compress(image, "", RATE, rounds=0)))
    assert condition.shape == nearest.shape and not condition.allclose(nearest)
    with torch.no_grad():
        padded = pad_to_multiple(image_to_tensor(image), get_rate(RATE).stride)
        features = branch.hyper_encoder(codec.autoencoder.encode(padded)).permute(0, 2, 3, 1)
        vectors = normalize(branch.quantizer.project_in(features), dim=-1).flatten(0, 2)
        branch.quantizer.codebook[: len(vectors)] = vectors
    same = codec.condition(unpack(codec.compress(image, "", RATE, rounds=0)))
    assert condition.allclose(same, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["perco+", "perco+steps", "perco+steps=many", "perco+caption=own", "perco+colour=red"]
    + ["perco+grid=none+quantizer=off"],
)
def test_what_cannot_be_changed(name):
    with pytest.raises(ValueError, match="got codec"):
        read_changes(name)


def test_numbers_that_make_no_sense(tiny_codec):
    with pytest.raises(ValueError, match="expected steps of at least 1"):
        build_variant("perco+steps=0", PercoFiles(tiny_codec), (RATE,), DECODING)


def test_who_needs_weights():
    assert is_ours("perco+steps=20") and is_ours("perco-estimate") and not is_ours("jpeg")
