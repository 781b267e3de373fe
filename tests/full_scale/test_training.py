"""The paper's training from end to end, around a tiny random Stable Diffusion on nine photos."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from conftest import make_photo
from perco_lite import PercoCodec
from perco_lite.cli.main import app
from perco_lite.data import Sample
from perco_lite.full_scale import stable_diffusion
from perco_lite.full_scale import training as base_recipe
from perco_lite.full_scale.photo_stream import PhotoStream
from perco_lite.full_scale.training import StreamedStage, train_base_recipe
from perco_lite.plotting import Tile, contact_sheet
from perco_lite.training.codec import CodecLoss, preview_sheet
from tests.training.conftest import fresh_accelerator, rows  # noqa: F401

UNET = "weights/unet/diffusion_pytorch_model.safetensors"
CONDITIONER = "weights/conditioner/diffusion_pytorch_model.safetensors"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The paper's recipe with small new parts, and no pictures."""
    for name, size in {"width": 8, "features": 8, "code_dim": 4}.items():
        monkeypatch.setitem(stable_diffusion.PAPER, name, size)
    monkeypatch.setattr(base_recipe, "preview_sheet", lambda codec, path: None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for n in range(9):
        make_photo(90, 70 + n, seed=n).save(folder / f"{n}.png")
    captions = {f"{n}.png": f"photo number {n}" for n in range(8)}
    (folder / "captions.json").write_text(json.dumps(captions))
    return folder


def run(base, photos, output, **changes) -> dict:
    settings = {"rates": "0.0313", "crop": 8, "steps": 4, "batch_size": 4, "learning_rate": 1e-2}
    settings |= {"warmup_steps": 1, "lr_schedule": "constant", **changes}
    return train_base_recipe(str(base), str(photos), output, **settings)


@pytest.mark.parametrize("layers", ["linear", "lora"])
def test_the_chosen_layers_learn_and_a_run_resumes_exactly(
    tiny_stable_diffusion, photos, tmp_path, layers
):
    settings = {"layers": layers, "lora_rank": 2, "accumulation": 2, "quantizer_init": "data"}
    run(tiny_stable_diffusion, photos, tmp_path / "whole", **settings)
    while not (tmp_path / "sliced" / "log.csv").exists() or len(rows(tmp_path / "sliced")) < 4:
        run(tiny_stable_diffusion, photos, tmp_path / "sliced", minutes=1e-7, **settings)
    assert rows(tmp_path / "whole") == rows(tmp_path / "sliced")
    assert [row["step"] for row in rows(tmp_path / "whole")] == list("1234")
    for file in (UNET, CONDITIONER):
        whole, sliced = (load_file(tmp_path / name / file) for name in ("whole", "sliced"))
        assert all(torch.equal(whole[name], sliced[name]) for name in whole)

    fresh = PercoCodec.from_stable_diffusion(tiny_stable_diffusion, ("0.0313",)).unet.state_dict()
    learned = load_file(tmp_path / "whole" / UNET)
    assert learned.keys() == fresh.keys(), "what is saved is an ordinary U-Net"
    changed = {n for n, v in learned.items() if n != "conv_in.weight" and (v != fresh[n]).any()}
    assert "conv_in.bias" in changed and any("attn2.to_k" in name for name in changed)
    assert not any("norm" in name or "resnets.0.conv" in name for name in changed)
    assert any("time_emb_proj" in name for name in changed) is (layers == "linear")


def test_what_was_trained_is_a_codec(tiny_stable_diffusion, photos, tmp_path, capsys):
    summary = run(tiny_stable_diffusion, photos, tmp_path, steps=2, gradient_checkpointing=True)
    assert summary["samples"] == 8 and "of the weights learn (linear)" in capsys.readouterr().out
    assert all(float(row["velocity"]) > 0 == float(row["regression"]) for row in rows(tmp_path))
    codec = PercoCodec.from_pretrained(tmp_path / "weights")
    codec.set_progress_bar_config(disable=True)
    image = Image.open(photos / "3.png")
    data = codec.compress(image, "photo number 3", "0.0313")
    assert codec.decompress(data, 2).size == image.size
    original = load_file(tiny_stable_diffusion / "vae/diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "weights/autoencoder/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(original[name], after[name]) for name in original), "the VAE stays"


def test_captions_come_from_a_file_or_the_run_stops(tiny_stable_diffusion, photos, tmp_path):
    for n in range(9):
        (tmp_path / f"{n}.png").write_bytes((photos / f"{n}.png").read_bytes())
    with pytest.raises(ValueError, match="no captions for the photos in .*perco caption FOLDER"):
        run(tiny_stable_diffusion, tmp_path, tmp_path / "out")
    run(tiny_stable_diffusion, tmp_path, tmp_path / "out", steps=1, text_dropout=1.0)
    captions = {"captions": photos / "captions.json"}
    run(tiny_stable_diffusion, tmp_path, tmp_path / "other", steps=1, **captions)


def test_lpips_is_for_fine_rates_and_named_where_it_is_missing(
    tiny_stable_diffusion, photos, tmp_path, monkeypatch
):
    def missing(download):
        raise FileNotFoundError("no weights; `perco download metrics` fetches them")

    monkeypatch.setattr(base_recipe, "Lpips", missing)
    with pytest.raises(FileNotFoundError, match="perco download metrics"):
        run(tiny_stable_diffusion, photos, tmp_path / "fine", rates="0.1250")
    run(tiny_stable_diffusion, photos, tmp_path / "coarse", steps=1)

    class Squares(torch.nn.Module):
        def forward(self, one, other):
            return (one - other).square().mean((1, 2, 3))

    monkeypatch.setattr(base_recipe, "Lpips", lambda download: Squares())
    run(tiny_stable_diffusion, photos, tmp_path / "fine", rates="0.1250", steps=2)
    assert all(float(row["features"]) > 0 for row in rows(tmp_path / "fine"))


def test_a_base_that_predicts_noise_is_converted_where_asked(
    tiny_stable_diffusion_epsilon, photos, tmp_path
):
    with pytest.raises(ValueError, match="predicts noise .*perco train codec: --convert-epsilon"):
        run(tiny_stable_diffusion_epsilon, photos, tmp_path, steps=1)
    run(tiny_stable_diffusion_epsilon, photos, tmp_path, steps=1, convert_epsilon=True)
    scheduler = PercoCodec.from_pretrained(tmp_path / "weights").scheduler
    assert scheduler.config.prediction_type == "v_prediction"


def test_passes_and_processes_take_other_photos(tiny_stable_diffusion, photos):
    codec = PercoCodec.from_stable_diffusion(tiny_stable_diffusion, ("0.0313",))

    def batches(part, parts, accumulation, count, steps=(0, 1)):
        stream = PhotoStream(photos, 64, 0, part, parts)
        stage = StreamedStage(codec, CodecLoss(codec), stream, accumulation, crop=8)
        drawn = [
            stage.batch(step, count, torch.Generator().manual_seed(0), number)["latents"]
            for step in steps
            for number in range(accumulation)
        ]
        return {one.sum().item() for one in torch.cat(drawn)}

    whole = batches(0, 1, 1, 4)
    assert batches(0, 1, 2, 2) == whole, "two passes take what one would"
    assert len(whole) == 8 and not batches(0, 2, 1, 2) & batches(1, 2, 1, 2)
    assert batches(0, 1, 1, 4, steps=(1,)) < whole, "a resumed run takes the second half"


def test_the_preview_shows_no_estimate_where_there_is_none(tiny_stable_diffusion, tmp_path):
    """Stable Diffusion's condition implies no picture; its first channels are not latents."""
    codec = PercoCodec.from_stable_diffusion(tiny_stable_diffusion, ("0.0313",))
    photo = Image.new("RGB", (96, 64), "red")
    preview_sheet(codec, tmp_path / "sheet.png", [Sample("red.png", photo, "", "test")])
    one_row = contact_sheet([[Tile(photo, "red.png"), Tile(photo, "0.0313: 99 bytes")]], 256)
    assert Image.open(tmp_path / "sheet.png").size == one_row.size


def test_the_command(tiny_stable_diffusion, photos, tmp_path):
    options = {"base": tiny_stable_diffusion, "data": photos, "output": tmp_path / "run"}
    options |= {"steps": 1, "batch-size": 2, "crop": 8, "mixed-precision": "no"}
    arguments = [str(part) for n, v in options.items() for part in (f"--{n}", v)]
    result = CliRunner().invoke(app, ["train", "codec", *arguments, "--config", "t4"])
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "run" / "summary.json").read_text())["settings"]
    assert (settings["steps"], settings["accumulation"]) == (1, 2)
    assert settings["learning_rate"] == 2e-4
    assert PercoCodec.from_pretrained(tmp_path / "run" / "weights").rates == ("0.0313",)
