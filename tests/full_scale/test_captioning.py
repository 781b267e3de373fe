"""Captions from pictures, by tiny random BLIPs that are saved as the hub has them."""

import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from perco_lite.cli import pretrained as pretrained_cli
from perco_lite.data import load_captions
from perco_lite.full_scale.captioning import CAPTIONER, Captioner, _check_kind
from perco_lite.full_scale.pretrained import WrongModel
from perco_lite.full_scale.tiny_checkpoint import (
    SMALL,
    WORDS,
    save_lively,
    tiny_blip,
    word_tokenizer,
)


@pytest.fixture(scope="session")
def blip(tmp_path_factory):
    return tiny_blip(tmp_path_factory.mktemp("blip") / "blip")


@pytest.fixture(scope="session")
def blip2(tmp_path_factory):
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        OPTConfig,
    )

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("blip2")
    tokenizer = word_tokenizer("<image>")
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    qformer = {**SMALL, "vocab_size": len(tokenizer), "encoder_hidden_size": 32}
    text = {**SMALL, "vocab_size": len(tokenizer), "ffn_dim": 48, "word_embed_proj_dim": 32}
    text |= {"bos_token_id": 5, "eos_token_id": 3, "pad_token_id": 0}
    config = Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=OPTConfig(**text).to_dict(),
        num_query_tokens=4,
        image_token_index=6,
    )
    # in two files, as BLIP-2 is on the hub
    save_lively(Blip2ForConditionalGeneration(config), folder, max_shard_size="60KB")
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    Blip2Processor(images, tokenizer, num_query_tokens=4).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        ramp = Image.linear_gradient("L").rotate(90 * number).resize((50 + number, 40))
        ramp.convert("RGB").save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("kind", ["blip", "blip2"])
def test_lines_of_at_most_32_tokens_that_do_not_depend_on_the_batch(kind, request, photos):
    folder = request.getfixturevalue(kind)
    captioner = Captioner(folder)
    images = [Image.open(path).convert("RGB") for path in sorted(photos.iterdir())]
    lines = captioner.describe(images)
    assert len(lines) == 5 and all(line and line == " ".join(line.split()) for line in lines)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert max(len(tokenizer.tokenize(line)) for line in lines) <= 32
    assert len(set(lines)) > 1, "a picture says what its line is"
    assert [captioner.describe([image])[0] for image in images] == lines
    assert set(" ".join(lines).split()) <= set(WORDS) | {"[UNK]"}, "no special token is left"


def test_folder_to_json_and_compress_reads_it(perco, blip, photos, tiny_weights):
    output = photos / "captions.json"  # the default: there training looks for it
    code, out, err = perco("caption", photos, "--model", blip, "--batch-size", 2)
    assert (code, err) == (0, f"{output}: 5 new captions, 0 kept\n")
    captions = load_captions(output)
    assert list(captions) == [f"{n}.png" for n in range(5)] and all(captions.values())
    assert out.splitlines() == [f"{name}: {text}" for name, text in captions.items()]
    code, out, err = perco(
        "compress", photos / "3.png", "--captions", output, "--weights", tiny_weights
    )
    assert code == 0 and "has no caption" not in err
    code, out, _ = perco("inspect", photos / "3.perco", "--json")
    assert json.loads(out)[0]["caption"] == captions["3.png"]


def test_existing_captions_are_kept_and_nothing_is_loaded_for_them(
    perco, blip, photos, tmp_path, monkeypatch
):
    output = tmp_path / "captions.json"
    mine = {"1.png": "by hand", "2.png": ["one", "two"], "elsewhere.jpg": "of another folder"}
    output.write_text(json.dumps(mine))
    assert perco("caption", photos, "-o", output, "--model", blip)[0] == 0
    captions = json.loads(output.read_text())
    assert {name: captions[name] for name in mine} == mine and len(captions) == 6
    monkeypatch.setattr(pretrained_cli, "_load_captioner", None)
    before = output.read_bytes()
    code, out, err = perco("caption", photos, "-o", output)
    assert (code, out, err) == (0, "", f"{output}: 0 new captions, 6 kept\n")
    assert output.read_bytes() == before


def test_what_was_done_before_an_interruption_is_on_disk(
    perco, blip, photos, tmp_path, monkeypatch
):
    output = tmp_path / "captions.json"
    real, calls = Captioner.describe, []

    def describe(self, images):
        calls.append(len(images))
        if len(calls) == 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(self, images)

    monkeypatch.setattr(Captioner, "describe", describe)
    options = ("-o", output, "--model", blip, "--batch-size", 2)
    code, _, err = perco("caption", photos, *options)
    assert (code, calls) == (2, [2, 2, 1])
    assert "error: 1 photos at once: not enough memory; lower --batch-size (now 2)" in err
    assert list(load_captions(output)) == ["0.png", "1.png", "2.png", "3.png"]
    code, _, err = perco("caption", photos, *options)
    assert (code, calls[3:]) == (0, [1]) and "1 new captions, 4 kept" in err
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


def test_unreadable_photos_are_named_and_skipped(perco, blip, photos, tmp_path):
    (photos / "2.png").write_bytes(b"no photo")
    (photos / "9.jpg").write_bytes((photos / "1.png").read_bytes()[:60])
    output = tmp_path / "captions.json"
    code, _, err = perco("caption", photos, "-o", output, "--model", blip, "--batch-size", 1)
    assert code == 2 and len(load_captions(output)) == 4
    assert [line.split()[1] for line in err.splitlines() if line.startswith("error")] == [
        str(photos / "2.png"),
        str(photos / "9.jpg"),
    ]


def test_no_hub_is_one_line(perco, photos, tmp_path):
    options = ("-o", tmp_path / "captions.json", "--model", CAPTIONER)
    code, out, err = perco("caption", photos, *options)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert "Salesforce/blip-image-captioning-base (not in the cache, and the hub was not" in err
    assert "or give the folder of a copy" in err
    assert not (tmp_path / "captions.json").exists()


def test_bad_arguments_are_one_line(perco, blip, photos, tmp_path, tiny_stable_diffusion):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.json").write_text('{"a.png": ')
    options = ("--model", blip, "-o")
    for arguments, reason in [
        ((tmp_path / "empty", *options, tmp_path / "c.json"), "no photos in"),
        ((tmp_path / "nowhere", *options, tmp_path / "c.json"), "no file or folder at"),
        ((photos, *options, tmp_path / "broken.json"), "is not a JSON object"),
        ((photos, *options, tmp_path / "broken.json" / "c.json"), "cannot write"),
        ((photos, *options, tmp_path / "c.json", "--device", "nowhere"), "no device 'nowhere'"),
        ((photos, "--model", tiny_stable_diffusion, "-o", tmp_path / "c.json"), "no config.json"),
    ]:
        code, out, err = perco("caption", *arguments)
        assert code == 2 and reason in err and err.count("error") == 1, err
    assert (tmp_path / "broken.json").read_text() == '{"a.png": ', "never written over"


def test_other_models_and_missing_weights_are_refused(blip, tiny_stable_diffusion, tmp_path):
    with pytest.raises(WrongModel, match="is a clip_text_model model, expected blip or blip-2"):
        Captioner(tiny_stable_diffusion / "text_encoder")
    copy = shutil.copytree(blip, tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    gone = next(key for key in weights if key.startswith("vision_model.post_"))
    del weights[gone]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"missing {gone}; unexpected none"):
        Captioner(copy)
    for text in ("[]", "5", "[" * 100_000, "{"):
        (copy / "config.json").write_text(text)
        with pytest.raises(WrongModel, match="config.json is damaged"):
            _check_kind(copy)
    for kind in ('["blip"]', '{"a": 1}', '"' + "x" * 9999 + '"'):
        (copy / "config.json").write_text('{"model_type": ' + kind + "}")
        with pytest.raises(WrongModel, match="model, expected blip") as caught:
            _check_kind(copy)
        assert len(str(caught.value)) < 400
    (copy / "config.json").write_text("{")
    with pytest.raises(WrongModel, match="config.json is damaged"):
        Captioner(copy)


def test_a_missing_shard_is_named(blip2, tmp_path):
    copy = shutil.copytree(blip2, tmp_path / "copy")
    shards = sorted(copy.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {shards[1].name}"):
        Captioner(copy)
