"""Both training commands from end to end, with tiny models on six small photos."""

import json
import os
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from conftest import SENTENCES, TINY_AUTOENCODER
from perco_lite import data
from perco_lite.autoencoder import Autoencoder
from perco_lite.captions import build_text_encoder
from perco_lite.cli.main import app
from perco_lite.codec import PercoCodec
from perco_lite.loading import build_codec
from perco_lite.training import autoencoder as stage_1
from perco_lite.training import codec as stage_2
from perco_lite.training import text_encoder as stage_text
from perco_lite.training.autoencoder import load_autoencoder, train_autoencoder_recipe
from perco_lite.training.codec import adopt_weights, pack_weights, train_codec_recipe
from perco_lite.training.latents import cache_latents
from perco_lite.training.photos import PhotoStore
from perco_lite.training.text_encoder import train_text_recipe
from tests.training.conftest import rows, waves

SIZES = [(96, 80), (130, 90), (64, 64), (90, 140), (220, 204), (100, 100)]
SETTINGS = {"batch_size": 4, "learning_rate": 1e-3}


class TinyAutoencoder:
    """Takes Autoencoder's place in the recipes: small where one is made, the same where loaded."""

    from_pretrained = staticmethod(Autoencoder.from_pretrained)

    def __call__(self) -> Autoencoder:
        return Autoencoder(**TINY_AUTOENCODER)


def build_small_codec(autoencoder, tokenizer, conditioner):
    sizes = {"width": 8, "features": 16, "decoder_width": 8, "extra_channels": 4}
    return build_codec(
        autoencoder,
        tokenizer,
        {**sizes, **(conditioner or {})},
        unet={"widths": (16, 32), "norm_groups": 8, "heads": 2},
        text_encoder={"width": 32, "layers": 1, "heads": 2},
    )


def write_photos(folder: Path) -> Path:
    """A folder of six photos with captions, as a user would bring it: the last has none."""
    folder.mkdir()
    captions = {}
    for number, (width, height) in enumerate(SIZES):
        waves(width, height, number).save(folder / f"{number}.png")
        captions[f"{number}.png"] = SENTENCES[number % len(SENTENCES)]
    del captions["5.png"]
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A machine with `train/` in its data folder and nothing else, and tiny models."""
    folder = tmp_path_factory.mktemp("data")
    write_photos(folder / "train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERCO_LITE_DATA", str(folder))
        patch.setattr(data.pooch, "os_cache", lambda name: folder / "cache")
        patch.setattr(stage_1, "Autoencoder", TinyAutoencoder())
        patch.setattr(stage_2, "build_codec", build_small_codec)
        patch.setattr(stage_2, "PREVIEW_PHOTOS", 1)
        yield folder
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def autoencoder_run(home, tmp_path_factory):
    output = tmp_path_factory.mktemp("autoencoder")
    summary = train_autoencoder_recipe(None, output, perceptual_weight=0, steps=3, **SETTINGS)
    return output, summary


@pytest.fixture(scope="module")
def codec_run(home, autoencoder_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("codec")
    summary = train_codec_recipe(
        home / "train",
        autoencoder_run[0] / "weights",
        output,
        conditioner_warmup_steps=1,
        steps=3,
        **SETTINGS,
    )
    return output, summary


def photo() -> torch.Tensor:
    return data.image_to_tensor(waves(96, 64, 9))


# --- stage 1 ---


def test_autoencoder_is_trained_and_exported(home, autoencoder_run):
    output, summary = autoencoder_run
    assert summary["steps"] == 3 == len(rows(output))
    assert all(float(row["loss"]) > 0 and float(row["features"]) == 0 for row in rows(output))
    loaded = load_autoencoder(str(output / "weights"))
    assert loaded.decode(loaded.encode(photo())).shape == photo().shape
    # after three steps the running statistics are far off; those exported are measured afresh
    with pytest.warns(UserWarning, match="smaller than a crop"):
        store = PhotoStore(home / "train").large_enough(128)  # the default crop
    latents = loaded.encode(store.crops(64, 128, torch.Generator()))
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=0.25, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=0.25, rtol=0)


def test_decoder_of_leaves_the_latents_bit_identical(autoencoder_run, tmp_path):
    before = autoencoder_run[0] / "weights"
    train_autoencoder_recipe(
        None, tmp_path, decoder_of=str(before), perceptual_weight=0, steps=3, **SETTINGS
    )
    one, other = load_autoencoder(str(before)), load_autoencoder(str(tmp_path / "weights"))
    assert torch.equal(one.encode(photo()), other.encode(photo()))
    names = one.state_dict().keys()
    for name in names:
        same = torch.equal(one.state_dict()[name], other.state_dict()[name])
        assert same is not name.startswith("decoder"), name


def test_held_latents_move_less(autoencoder_run, tmp_path):
    before = load_autoencoder(str(autoencoder_run[0] / "weights")).encode(photo())
    moved = []
    for number, weight in enumerate((0.001, 100.0)):
        train_autoencoder_recipe(
            None,
            tmp_path / str(number),
            start=str(autoencoder_run[0] / "weights"),
            hold_latents=weight,
            optimizer="muon",
            perceptual_weight=0,
            crop=32,
            steps=12,
            **SETTINGS,
        )
        after = load_autoencoder(str(tmp_path / str(number) / "weights")).encode(photo())
        moved.append((after - before).square().mean().item())
        assert all("moved" in row for row in rows(tmp_path / str(number)))
    assert 0 < moved[1] < 0.5 * moved[0], moved


def test_latents_of_what_are_held_is_asked(home, tmp_path):
    with pytest.raises(ValueError, match="got hold_latents 0.1 without start.*give --start"):
        train_autoencoder_recipe(None, tmp_path, hold_latents=0.1, steps=1)


def test_decoder_of_a_whole_codec(codec_run, autoencoder_run):
    inside = load_autoencoder(str(codec_run[0] / "weights"))
    alone = load_autoencoder(str(autoencoder_run[0] / "weights"))
    assert torch.equal(inside.encode(photo()), alone.encode(photo()))


# --- stage 2 ---


def test_codec_is_trained_exported_and_works(codec_run):
    output, summary = codec_run
    assert summary["steps"] == 3 and summary["samples"] == 12
    assert [float(row["velocity"]) > 0 for row in rows(output)] == [False, True, True]
    assert Image.open(output / "preview.png").width > 256
    codec = PercoCodec.from_pretrained(output / "weights")
    codec.set_progress_bar_config(disable=True)
    image = waves(100, 70, 9)
    for rate in codec.rates:
        file = codec.compress(image, "two dogs", rate)
        decoded = codec.decompress(file, num_inference_steps=2)
        assert decoded.size == (100, 70)
        assert codec.decompress(file, num_inference_steps=2) == decoded
    assert "Ġdogs" in codec.tokenizer.get_vocab()  # learned from the photos' captions


def test_training_the_codec_leaves_its_autoencoder_alone(codec_run, autoencoder_run):
    file = "diffusion_pytorch_model.safetensors"
    before = load_file(autoencoder_run[0] / "weights" / file)
    after = load_file(codec_run[0] / "weights" / "autoencoder" / file)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_second_run_goes_on_with_the_cached_latents(codec_run, autoencoder_run, monkeypatch):
    output, _ = codec_run

    def refuse(self, image):
        raise AssertionError("the photos were encoded again")

    monkeypatch.setattr(Autoencoder, "encode", refuse)
    monkeypatch.setattr(stage_2, "preview_sheet", lambda codec, path: None)
    autoencoder = autoencoder_run[0] / "weights"
    summary = train_codec_recipe(
        None, autoencoder, output, conditioner_warmup_steps=1, steps=4, **SETTINGS
    )
    assert summary["steps"] == 4 and [row["step"] for row in rows(output)] == list("1234")


def test_rates_can_be_chosen(home, autoencoder_run, tmp_path, monkeypatch):
    monkeypatch.setattr(stage_2, "preview_sheet", lambda codec, path: None)
    autoencoder = autoencoder_run[0] / "weights"
    rates = "0.0059,0.0937"
    train_codec_recipe(home, autoencoder, tmp_path, rates=rates, crop=16, steps=1, **SETTINGS)
    assert PercoCodec.from_pretrained(tmp_path / "weights").rates == ("0.0059", "0.0937")


def test_an_autoencoder_goes_on_from_others(autoencoder_run, tmp_path):
    """The normalisation moves into the last layer: without a real step the latents stay."""
    before = autoencoder_run[0] / "weights"
    settings = SETTINGS | {"learning_rate": 1e-9}
    train_autoencoder_recipe(
        None, tmp_path, start=str(before), perceptual_weight=0, steps=1, **settings
    )
    one, other = load_autoencoder(str(before)), load_autoencoder(str(tmp_path / "weights"))
    torch.testing.assert_close(other.encode(photo()), one.encode(photo()), atol=0.02, rtol=0.02)


def test_a_codec_goes_on_from_another_with_a_text_encoder_of_its_own(
    home, autoencoder_run, codec_run, tmp_path, monkeypatch, capsys
):
    captioned = json.loads((home / "train" / "captions.json").read_text())
    folder = tmp_path / "train"
    folder.mkdir()
    for name, caption in captioned.items():
        (folder / name).write_bytes((home / "train" / name).read_bytes())
        captioned[name] = [caption, caption.upper()]
    (folder / "captions.json").write_text(json.dumps(captioned))

    class Features:
        from_file = classmethod(lambda cls, path: cls())

        def pooled(self, image):
            return torch.nn.functional.adaptive_avg_pool2d(image, (16, 12)).flatten(1)[:, :512]

    monkeypatch.setattr(stage_text, "SqueezeNet", Features)
    monkeypatch.setattr(
        stage_text,
        "build_text_encoder",
        lambda vocabulary: build_text_encoder(vocabulary, width=32, layers=1, heads=2),
    )
    text = tmp_path / "text"
    train_text_recipe(folder, text, steps=2, **SETTINGS)
    assert [row["step"] for row in rows(text)] == ["1", "2"]

    monkeypatch.setattr(stage_2, "preview_sheet", lambda codec, path: None)
    old, output = codec_run[0] / "weights", tmp_path / "codec"
    train_codec_recipe(
        folder,
        autoencoder_run[0] / "weights",
        output,
        text=text / "weights",
        start=old,
        freeze_codes=True,
        conditioner_warmup_steps=0,
        steps=2,
        **SETTINGS,
    )
    assert "conditioner: 0 tensors start anew: none" in capsys.readouterr().out
    before, after = PercoCodec.from_pretrained(old), PercoCodec.from_pretrained(output / "weights")
    assert before.conditioner.fingerprint() == after.conditioner.fingerprint()
    for name, value in before.conditioner.state_dict().items():
        settled = "hyper_encoder" in name or "codebook" in name
        assert not settled or torch.equal(value, after.conditioner.state_dict()[name]), name
    same = torch.equal(before.unet.conv_in.weight, after.unet.conv_in.weight)
    assert not same and torch.allclose(
        before.unet.conv_in.weight, after.unet.conv_in.weight, 0, 0.1
    )
    learned = load_file(text / "weights" / "text_encoder" / "model.safetensors")
    ours = after.text_encoder.state_dict()
    assert len(learned) == len([n for n in ours if "position_ids" not in n])
    for name, value in learned.items():
        place = name if name in ours else name.removeprefix("text_model.")
        assert torch.equal(value, ours[place]), name


def test_weights_without_counterpart_are_named():
    new = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 5), torch.nn.Linear(3, 1))
    old = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 4))
    kept = new[1].bias.clone()
    assert adopt_weights(new, old) == ["1.weight", "1.bias", "2.weight", "2.bias"]
    assert torch.equal(new[0].weight, old[0].weight) and torch.equal(new[1].bias, kept)


def test_text_needs_two_captions_a_photo(home, tmp_path):
    with pytest.raises(ValueError, match="got 0 photos with two captions or more.*without --text"):
        train_text_recipe(home / "train", tmp_path, steps=1, **SETTINGS)


def test_a_crop_of_no_whole_latents_is_explained(home, tmp_path):
    for crop in (20, 100, 0):
        with pytest.raises(ValueError, match=f"crop is {crop} pixels, expected a multiple of 8"):
            train_autoencoder_recipe(None, tmp_path, crop=crop, steps=1)


def test_a_line_of_pixels_is_skipped(home, tmp_path):
    store = PhotoStore(home / "train")
    store.photos[0] = torch.zeros(3, 1, 50_000, dtype=torch.uint8)
    with pytest.warns(UserWarning, match="skipped 1 photos over 32 times as long as wide"):
        latents = cache_latents(TinyAutoencoder()().eval(), store, tmp_path / "latents.safetensors")
    assert 0 not in latents.photos and 1 in latents.photos


def test_latents_are_encoded_again_for_another_encoder_only(home, tmp_path):
    torch.manual_seed(0)
    autoencoder, store = TinyAutoencoder()().eval(), PhotoStore(home / "train")
    file = tmp_path / "latents.safetensors"
    first = cache_latents(autoencoder, store, file)
    written = file.stat().st_mtime_ns
    with torch.no_grad():
        autoencoder.decoder[0].weight.add_(1)
    second = cache_latents(autoencoder, store, file)
    assert file.stat().st_mtime_ns == written and first.photos == second.photos
    assert all(torch.equal(a, b) for a, b in zip(first.latents, second.latents, strict=True))
    autoencoder.latent_std.mul_(2)
    third = cache_latents(autoencoder, store, file)
    torch.testing.assert_close(third.latents[0].float(), first.latents[0].float() / 2)
    for size in (0, 100):
        os.truncate(file, size)
        assert cache_latents(autoencoder, store, file).photos == first.photos
    assert [path.name for path in tmp_path.iterdir()] == ["latents.safetensors"]


def test_packed_weights_are_half_the_size_and_name_nobodys_folder(codec_run, tmp_path):
    whole = codec_run[0] / "weights"
    size = pack_weights(whole, tmp_path / "half")
    assert size == sum(f.stat().st_size for f in (tmp_path / "half").rglob("*") if f.is_file())
    model = "unet/diffusion_pytorch_model.safetensors"
    ratio = (tmp_path / "half" / model).stat().st_size / (whole / model).stat().st_size
    assert 0.45 < ratio < 0.6
    for config in (tmp_path / "half").rglob("*.json"):
        assert str(whole) not in config.read_text(), config
    codec = PercoCodec.from_pretrained(str(tmp_path / "half"))
    assert codec.model_id == PercoCodec.from_pretrained(str(whole)).model_id


# --- what is missing ---


def test_missing_photos_are_explained(home, tmp_path, monkeypatch):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    for train in (train_autoencoder_recipe, train_codec_recipe):
        with pytest.raises(FileNotFoundError, match="no training photos; give --data FOLDER"):
            train(None, autoencoder=None, output=tmp_path) if train is train_codec_recipe else (
                train(None, tmp_path, steps=1)
            )
    with pytest.raises(FileNotFoundError, match="no training photos at .*nowhere"):
        train_autoencoder_recipe(tmp_path / "nowhere", tmp_path, steps=1)


def test_missing_autoencoder_is_explained(home, tmp_path):
    with pytest.raises(FileNotFoundError, match="no autoencoder weights .*perco train autoenc"):
        train_codec_recipe(None, tmp_path, tmp_path / "out", steps=1)
    with pytest.raises(FileNotFoundError, match="no autoencoder weights"):
        train_autoencoder_recipe(None, tmp_path / "out", decoder_of=str(tmp_path), steps=1)


def test_missing_feature_weights_are_explained(home, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"squeezenet1_0_caffe_fp32\.npz is missing"):
        train_autoencoder_recipe(
            None, tmp_path, perceptual="squeezenet", perceptual_weight=0.05, steps=1
        )
    with pytest.raises(ValueError, match="perceptual is 'vgg', expected one of lpips, squeezenet"):
        train_autoencoder_recipe(None, tmp_path, perceptual="vgg", steps=1)


def test_anybody_can_train_with_the_defaults(home, tmp_path, monkeypatch):
    """No network, no weights of a backbone: one line says that the perceptual term is left out."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("PERCO_LITE_DOWNLOAD", raising=False)
    command = ["train", "autoencoder", "--steps", "1", "--batch-size", "2", "-o"]
    result = CliRunner().invoke(app, [*command, str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(said) == 2 and "skipped 5 of 6 photos, smaller than a crop of 128" in said[0]
    assert "training without the perceptual term: " in said[1]
    assert float(rows(tmp_path / "run")[0]["features"]) == 0


def test_the_default_term_is_lpips(home, tmp_path, monkeypatch):
    made = []

    class Fake(torch.nn.Module):
        def __init__(self, *given):
            made.append(given)
            super().__init__()

        def forward(self, image, target):
            return (image - target).abs().mean((1, 2, 3))

    monkeypatch.setattr(stage_1, "Lpips", Fake)
    train_autoencoder_recipe(None, tmp_path, steps=3, **SETTINGS)
    assert made == [("squeeze", False)]
    last = {name: float(value) for name, value in rows(tmp_path)[-1].items()}
    whole = last["l1"] + 4 * last["mse"] + 1.0 * last["features"]
    assert last["features"] > 0 and last["loss"] == pytest.approx(whole, rel=1e-4)
