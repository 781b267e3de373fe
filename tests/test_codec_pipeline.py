"""PercoCodec as a `diffusers.DiffusionPipeline`: saving, loading, data types, schedulers."""

import json
import re
import shutil
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from PIL import Image
from safetensors.torch import load_file

from conftest import pixels
from perco_lite import PercoCodec
from perco_lite.coding.bitstream import unpack
from perco_lite.files import PARTS
from perco_lite.loading import load_codec, weights_digest

PHOTO = Image.linear_gradient("L").resize((90, 70))


@pytest.fixture(scope="module")
def codec(tiny_weights):
    """Loaded from disk, for this file alone."""
    codec = PercoCodec.from_pretrained(tiny_weights)
    codec.set_progress_bar_config(disable=True)
    return codec


def test_what_was_saved_is_what_is_loaded(tiny_codec, codec):
    assert codec.model_id == tiny_codec.model_id and codec.rates == tiny_codec.rates
    encoded = tiny_codec.compress(PHOTO, "a grey ramp", "0.0313")
    assert codec.compress(PHOTO, "a grey ramp", "0.0313") == encoded
    assert (pixels(codec.decompress(encoded, 2)) == pixels(tiny_codec.decompress(encoded, 2))).all()
    assert not any(module.training for module in modules(codec).values())


def modules(codec) -> dict[str, torch.nn.Module]:
    return {n: m for n, m in codec.components.items() if isinstance(m, torch.nn.Module)}


def test_half_precision_on_disk_is_float32_in_memory(tiny_weights, tmp_path, codec):
    half = PercoCodec.from_pretrained(tiny_weights).to(torch.float16)
    half.save_pretrained(tmp_path)
    for name in modules(codec):
        (file,) = (tmp_path / name).glob("*.safetensors")
        stored = {t.dtype for t in load_file(file).values() if t.is_floating_point()}
        assert stored == {torch.float16}, name
    loaded = PercoCodec.from_pretrained(tmp_path)
    for name, module in modules(loaded).items():
        assert {p.dtype for p in module.parameters()} == {torch.float32}, name
    assert loaded.model_id == codec.model_id, "rounded codes are still these codes"
    encoded = codec.compress(PHOTO, "a grey ramp", "0.0313")
    difference = pixels(loaded.decompress(encoded, 2)) - pixels(codec.decompress(encoded, 2))
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
def test_other_types_read_the_same_files(tiny_weights, codec, argument, recwarn):
    brief = PercoCodec.from_pretrained(tiny_weights, **{argument: torch.bfloat16})
    assert not [w for w in recwarn if "dtype" in str(w.message)]
    for name, module in modules(brief).items():
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}, name
    assert brief.model_id == codec.model_id
    encoded = codec.compress(PHOTO, "a grey ramp", "0.0313")
    difference = pixels(brief.decompress(encoded, 2)) - pixels(codec.decompress(encoded, 2))
    assert 0 < np.abs(difference).mean() < 4
    assert unpack(brief.compress(PHOTO, "a grey ramp", "0.0313")).model_id == codec.model_id


def test_the_folder_is_what_diffusers_makes(tiny_weights):
    index = json.loads((tiny_weights / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "PercoCodec"
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["text_encoder"] == ["transformers", "CLIPTextModel"]
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]
    suffixes = {path.suffix for path in tiny_weights.rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}, "no pickle anywhere"


def test_older_transformers_can_read_it(tiny_weights):
    # transformers 5 writes neither of these names by itself, transformers 4 knows no others
    index = json.loads((tiny_weights / "model_index.json").read_text(encoding="utf-8"))
    assert index["tokenizer"] == ["transformers", "PreTrainedTokenizerFast"]
    config = json.loads((tiny_weights / "tokenizer" / "tokenizer_config.json").read_text("utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    (file,) = (tiny_weights / "text_encoder").glob("*.safetensors")
    assert all(name.startswith("text_model.") for name in load_file(file))


def test_saved_again_it_is_the_same(codec, tiny_weights, tmp_path):
    codec.save_pretrained(tmp_path)
    for name in modules(codec):
        (before,) = (tiny_weights / name).glob("*.safetensors")
        after = load_file(tmp_path / name / before.name)
        assert after.keys() == load_file(before).keys()
        assert all((after[key] == value).all() for key, value in load_file(before).items())


def test_the_digest_knows_every_weight(tiny_weights, tmp_path):
    codec = PercoCodec.from_pretrained(tiny_weights)
    before = weights_digest(codec)
    codec.save_pretrained(tmp_path)
    assert re.fullmatch("[0-9a-f]{16}", before)
    assert weights_digest(PercoCodec.from_pretrained(tmp_path)) == before
    assert weights_digest(codec.to(torch.float16)) == before, "they are stored in float16"
    for name in ("autoencoder", "conditioner", "text_encoder", "unet"):
        changed = PercoCodec.from_pretrained(tiny_weights)
        last = list(getattr(changed, name).parameters())[-1]
        with torch.no_grad():
            last.view(-1)[0] += 1
        assert weights_digest(changed) != before, name
    assert changed.model_id == codec.model_id, "a painter of another taste reads the same files"


def test_the_digest_knows_no_names(tiny_weights):
    codec = PercoCodec.from_pretrained(tiny_weights)
    before = weights_digest(codec)
    codec.text_encoder = torch.nn.Sequential(codec.text_encoder)  # each name begins with "0."
    assert weights_digest(codec) == before, "transformers 4 and 5 name the same weights differently"


def test_a_missing_part_is_an_error(tiny_weights, tmp_path):
    shutil.copytree(tiny_weights, tmp_path / "weights")
    shutil.rmtree(tmp_path / "weights" / "conditioner")
    with pytest.raises((OSError, ValueError)):
        PercoCodec.from_pretrained(tmp_path / "weights")


def test_components_can_be_replaced_on_loading(tiny_weights, codec):
    other = PercoCodec.from_pretrained(tiny_weights, unet=codec.unet)
    assert other.unet is codec.unet and other.conditioner is not codec.conditioner


@pytest.mark.parametrize(
    ("kind", "tolerance"), [(DPMSolverMultistepScheduler, 2.0), (EulerDiscreteScheduler, 0.1)]
)
def test_other_schedulers_solve_the_same_equation(tiny_weights, kind, tolerance, tmp_path):
    codec = PercoCodec.from_pretrained(tiny_weights)
    encoded = codec.compress(PHOTO, "a grey ramp", "0.1250")
    before = pixels(codec.decompress(encoded, 20, temperature=1.0))
    another_seed = pixels(codec.decompress(encoded, 20, seed=1, temperature=1.0))
    codec.scheduler = kind.from_config(codec.scheduler.config)
    after = pixels(codec.decompress(encoded, 20, temperature=1.0))
    assert (after != before).any()
    assert np.abs(after - before).mean() < tolerance < np.abs(another_seed - before).mean() / 4
    codec.save_pretrained(tmp_path)
    assert isinstance(PercoCodec.from_pretrained(tmp_path).scheduler, kind)


def test_progress_bar_and_device(codec, capsys):
    assert codec.to("cpu") is codec and codec.device.type == "cpu"
    encoded = codec.compress(PHOTO)
    codec.decompress(encoded, 1)
    assert capsys.readouterr().err == ""
    codec.set_progress_bar_config(desc="painting")
    codec.decompress(encoded, 1)
    assert "painting" in capsys.readouterr().err
    codec.set_progress_bar_config(disable=True)


def test_bundled_weights_are_the_default(tiny_weights, monkeypatch, codec, tmp_path):
    monkeypatch.setattr("perco_lite.codec.BUNDLED", tiny_weights)
    assert PercoCodec.from_pretrained().model_id == codec.model_id
    monkeypatch.setattr("perco_lite.codec.BUNDLED", tmp_path)
    with pytest.raises(FileNotFoundError, match="reinstall the package, or train your own"):
        PercoCodec.from_pretrained()


HOSTILE = {  # what model_index.json says of a part; each of these would import a module
    "a file of the folder": ("unet", ["evil", "UNet2DConditionModel"]),
    "a module of Python": ("scheduler", ["antigravity", "DDIMScheduler"]),
    "a module that is there already": ("tokenizer", ["os", "system"]),
    "an unknown class": ("unet", ["diffusers", "StableDiffusionPipeline"]),
    "another part's class": ("text_encoder", ["diffusers", "UNet2DConditionModel"]),
    "of a module of ours": ("conditioner", ["perco_lite.cli.main", "app"]),
    "another part": ("helper", ["evil", "Helper"]),
    "a class that is no text": ("unet", [["evil"], {"a": 1}]),
    "no class": ("unet", None),
    "a pipeline of its own": ("_class_name", ["evil", "PercoCodec"]),
    "a library that the folder has a file for": ("unet", ["diffusers", "UNet2DConditionModel"]),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("source", ["folder", "hub"])
def test_weights_run_nothing(tiny_weights, tmp_path, monkeypatch, kind, source):
    """``model_index.json`` names the classes of the parts; diffusers imports what it names."""
    folder, (part, named) = tmp_path / "weights", HOSTILE[kind]
    shutil.copytree(tiny_weights, folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, part: named}))
    code = f"open({str(tmp_path / 'it ran')!r}, 'w')\nfrom diffusers import *\nevil = True\n"
    for place in (folder, folder / "unet", folder / "helper", tmp_path):
        place.mkdir(exist_ok=True)
        (place / "evil.py").write_text(code)
    if "has a file for" in kind:
        (folder / "unet" / "diffusers.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)  # as the folder that Python is started in
    if source == "hub":
        monkeypatch.setattr(PercoCodec, "download", lambda *_, **__: str(folder))
    with pytest.raises(ValueError) as caught:
        PercoCodec.from_pretrained("somebody/weights" if source == "hub" else folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(folder)) + 250
    assert "evil" not in sys.modules and "antigravity" not in sys.modules
    assert not (tmp_path / "it ran").exists()
    with pytest.raises(ValueError, match="names code|code of its own|holds a"):
        load_codec("somebody/weights" if source == "hub" else str(folder), "cpu")


def test_a_codec_names_the_parts_of_the_table(tiny_weights):
    index = json.loads((tiny_weights / "model_index.json").read_text())
    assert {name for name, source in index.items() if isinstance(source, list)} == set(PARTS)
    for library, classes in PARTS.values():
        missing = [name for name in classes if not hasattr(import_module(library), name)]
        assert set(missing) <= {"TokenizersBackend"}, "of transformers 5"
