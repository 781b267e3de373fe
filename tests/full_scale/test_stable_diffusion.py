"""A codec around a tiny random Stable Diffusion, saved in the hub's layout by diffusers itself."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from conftest import pixels
from perco_lite import PercoCodec, ledger
from perco_lite.autoencoder import StableDiffusionAutoencoder
from perco_lite.captions import embed_captions
from perco_lite.coding.bitstream import unpack
from perco_lite.full_scale.stable_diffusion import build_sd_scheduler
from perco_lite.rates import RATES
from perco_lite.sampling import draw_noise
from perco_lite.unet import predict_velocity
from tests.full_scale.conftest import build

PHOTO = Image.linear_gradient("L").resize((150, 90))
ALL = tuple(rate.name for rate in RATES)


@pytest.fixture(scope="module")
def codec(tiny_stable_diffusion):
    return build(tiny_stable_diffusion)


@pytest.fixture(scope="module")
def shared(tiny_stable_diffusion):
    """All rates around one U-Net."""
    return build(tiny_stable_diffusion, ALL)


@pytest.fixture(scope="module")
def pretrained(tiny_stable_diffusion):
    return UNet2DConditionModel.from_pretrained(tiny_stable_diffusion, subfolder="unet").eval()


# What it paints


def test_a_photo_becomes_bytes_and_a_photo_again(codec):
    data = codec.compress(PHOTO, "a red barn")
    assert ledger(data)["indices"] == 6, "3×2 cells of 64 pixels, 8 bits each"
    assert unpack(data).caption == "a red barn"
    decoded = codec.decompress(data, 2)
    assert decoded.size == PHOTO.size and np.ptp(pixels(decoded)) > 0


@pytest.mark.parametrize("rate", ALL)
@pytest.mark.parametrize("size", [(8, 8), (13, 75)])
def test_any_size_at_any_rate(shared, rate, size):
    data = shared.compress(PHOTO.resize(size), "a", rate)
    assert shared.decompress(data, 1).size == size


def test_untrained_it_paints_what_stable_diffusion_paints(codec, tiny_stable_diffusion):
    data = codec.compress(PHOTO, "a red barn")
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_stable_diffusion,
        scheduler=build_sd_scheduler(codec.scheduler.config),
        safety_checker=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    latents = draw_noise((4, 16, 24), [5])  # 128×192 pixels, the photo padded to whole cells
    theirs = pipeline(
        "a red barn", 128, 192, num_inference_steps=3, guidance_scale=3.0, latents=latents
    ).images[0]
    ours = codec.decompress(data, 3, seed=5)
    assert np.abs(pixels(theirs.crop((0, 0, 150, 90))) - pixels(ours)).max() <= 1
    assert (pixels(codec.decompress(data, 3, seed=6)) != pixels(ours)).any()


def test_without_an_estimate_the_anchor_has_no_effect(codec):
    data = codec.compress(PHOTO)
    assert codec.conditioner.estimate(codec.condition(unpack(data))) is None
    free, anchored = codec.decompress(data, 2, anchor=0.0), codec.decompress(data, 2, anchor=1.0)
    assert (pixels(free) == pixels(anchored)).all()


def test_without_an_estimate_indices_are_the_nearest_codes(codec):
    assert codec.compress(PHOTO) == codec.compress(PHOTO, rounds=0)


# U-Net


def test_the_extended_unet_is_the_pretrained_one_at_first(codec, pretrained):
    torch.manual_seed(1)
    noisy, text = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 32)
    condition, rate_ids = torch.randn(2, 16, 8, 8), torch.tensor([0, 0])
    with torch.no_grad():
        theirs = pretrained(noisy, 500, encoder_hidden_states=text).sample
        ours = predict_velocity(codec.unet, noisy, 500, condition, text, rate_ids)
    torch.testing.assert_close(ours, theirs)
    assert codec.unet.config.in_channels == 20 and codec.unet.class_embedding is None
    assert torch.equal(codec.unet.conv_in.bias, pretrained.conv_in.bias)
    assert (pretrained.conv_in.bias != 0).any(), "else the line above would prove nothing"
    assert (codec.unet.conv_in.weight[:, 4:] == 0).all()


def test_the_new_channels_learn(tiny_stable_diffusion):
    unet = build(tiny_stable_diffusion).unet
    inputs = torch.randn(1, 20, 8, 8)
    unet(inputs, 500, encoder_hidden_states=torch.randn(1, 7, 32)).sample.sum().backward()
    assert (unet.conv_in.weight.grad[:, 4:].abs().sum((0, 2, 3)) > 0).all()


def test_rates_that_share_a_unet_start_alike_and_may_differ(shared, pretrained):
    torch.manual_seed(1)
    noisy, text = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32)
    condition = torch.zeros(1, 16, 8, 8)
    with torch.no_grad():
        theirs = pretrained(noisy, 500, encoder_hidden_states=text).sample
        for rate_id in range(len(RATES)):
            ids = torch.tensor([rate_id])
            ours = predict_velocity(shared.unet, noisy, 500, condition, text, ids)
            torch.testing.assert_close(ours, theirs)
    assert shared.unet.class_embedding.weight.shape == (8, 64)
    assert shared.rates == ALL


def test_schedule_is_v_prediction_down_to_no_signal_with_the_checkpoints_betas(codec):
    scheduler = codec.scheduler
    assert scheduler.config.prediction_type == "v_prediction"
    assert scheduler.alphas_cumprod[-1] == 0 < scheduler.alphas_cumprod[-2]
    scheduler.set_timesteps(20)
    assert scheduler.timesteps[0] == 999 and len(scheduler.timesteps) == 20
    other = build_sd_scheduler({**scheduler.config, "beta_end": 0.02})
    assert other.config.beta_end == 0.02
    assert other.alphas_cumprod[500] < scheduler.alphas_cumprod[500]


# Conditions


@pytest.mark.parametrize("rate", ["0.0019", "0.0098", "0.0313", "0.1250"])
def test_condition_is_the_nearest_code_at_each_latent(shared, rate):
    branch = shared.conditioner.branch(rate)
    indices = torch.randint(0, branch.quantizer.codebook_size, (1, 2, 3))
    with torch.no_grad():
        condition = shared.conditioner.decode(indices, rate)
        quantized = branch.quantizer.decode(indices)
    cells = {"0.0019": 8, "0.0098": 4, "0.0313": 2, "0.1250": 1}[rate]
    assert torch.equal(condition, F.interpolate(quantized, scale_factor=cells, mode="nearest"))


def test_text_is_embedded_as_stable_diffusion_does(codec, tiny_stable_diffusion):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_stable_diffusion)
    for caption in ("", "a red barn, 3 dogs.", "red " * 100):
        theirs, _ = pipeline.encode_prompt(caption, "cpu", 1, False)
        ours = embed_captions(codec.tokenizer, codec.text_encoder, [caption])
        assert ours.shape == (1, 77, 32)
        torch.testing.assert_close(ours, theirs)


def test_latents_are_the_scaled_mode(codec, tiny_stable_diffusion):
    vae = AutoencoderKL.from_pretrained(tiny_stable_diffusion, subfolder="vae")
    image = torch.rand(1, 3, 32, 40) * 2 - 1
    with torch.no_grad():
        latents = codec.autoencoder.encode(image)
        torch.testing.assert_close(latents, vae.encode(image).latent_dist.mode() * 0.18215)
        torch.testing.assert_close(
            codec.autoencoder.decode(latents), vae.decode(latents / 0.18215).sample
        )
        reconstruction, same = codec.autoencoder(image)
    assert reconstruction.shape == image.shape and torch.equal(same, latents)


def test_statistics_in_a_vaes_config_are_used(tiny_stable_diffusion):
    folder = tiny_stable_diffusion / "vae"
    plain = StableDiffusionAutoencoder.from_pretrained(folder)
    statistics = {"latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [0.5, 1.0, 2.0, 4.0]}
    shifted = StableDiffusionAutoencoder.from_pretrained(folder, **statistics, scaling_factor=0.5)
    mean, std = (torch.tensor(values).view(1, 4, 1, 1) for values in statistics.values())
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        raw = plain.encode(image) / 0.18215
        wanted = (raw - mean) * 0.5 / std
        torch.testing.assert_close(shifted.encode(image), wanted)
        torch.testing.assert_close(shifted.decode(wanted), plain.decode(raw * 0.18215))


# Disk, types, helpers


def test_saved_and_loaded_it_is_the_same_codec(shared, tmp_path):
    shared.save_pretrained(tmp_path)
    loaded = PercoCodec.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.autoencoder) is StableDiffusionAutoencoder
    assert loaded.config.guidance_scale == 3.0 and loaded.config.temperature == 1.0
    for rate in ("0.0019", "0.1250"):
        data = shared.compress(PHOTO, "a red barn", rate)
        assert loaded.compress(PHOTO, "a red barn", rate) == data
        assert (pixels(loaded.decompress(data, 2)) == pixels(shared.decompress(data, 2))).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny_stable_diffusion, codec, dtype, tmp_path):
    half = build(tiny_stable_diffusion, dtype=dtype)
    for name, module in half.components.items():
        if isinstance(module, torch.nn.Module):
            assert {p.dtype for p in module.parameters()} == {dtype}, name
    assert half.model_id == codec.model_id
    half.save_pretrained(tmp_path)
    again = PercoCodec.from_pretrained(tmp_path, dtype=dtype)
    assert again.model_id == codec.model_id, "nor does saving blur the codes"
    assert again.compress(PHOTO, "a red barn") == half.compress(PHOTO, "a red barn")
    data = codec.compress(PHOTO, "a red barn")
    difference = np.abs(pixels(half.decompress(data, 2)) - pixels(codec.decompress(data, 2)))
    assert 0 < difference.mean() < 8


def test_new_weights_follow_the_seed(tiny_stable_diffusion, codec):
    torch.manual_seed(123)
    assert build(tiny_stable_diffusion).model_id == codec.model_id
    assert build(tiny_stable_diffusion, seed=1).model_id != codec.model_id


def test_helpers_of_diffusers_reach_it(tiny_stable_diffusion):
    codec = build(tiny_stable_diffusion)
    data = codec.compress(PHOTO, "a red barn")
    before = pixels(codec.decompress(data, 2))
    codec.enable_attention_slicing()
    assert np.abs(pixels(codec.decompress(data, 2)) - before).max() <= 1
    codec.autoencoder.enable_slicing()
    assert np.abs(pixels(codec.decompress(data, 2)) - before).max() <= 1
    codec.autoencoder.enable_tiling()  # a tile is 64 pixels here: other pixels near the seams
    assert codec.autoencoder.use_tiling and codec.decompress(data, 2).size == PHOTO.size
    codec.autoencoder.disable_tiling()
    codec.enable_model_cpu_offload(device="cpu")  # the hooks work as on a GPU, to no gain
    assert codec.compress(PHOTO, "a red barn") == data
    assert np.abs(pixels(codec.decompress(data, 2)) - before).max() <= 1


@pytest.mark.skipif(not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6")
def test_a_compiled_unet_takes_its_place(tiny_stable_diffusion, tmp_path):
    codec = build(tiny_stable_diffusion)
    data = codec.compress(PHOTO, "a red barn")
    before = pixels(codec.decompress(data, 2))
    codec.unet = torch.compile(codec.unet, backend="eager")
    with torch.compiler.set_stance("force_eager"):  # tracing it takes 8 s, and is torch's affair
        assert np.abs(pixels(codec.decompress(data, 2)) - before).max() <= 1
    codec.save_pretrained(tmp_path)
    assert PercoCodec.from_pretrained(tmp_path).model_id == codec.model_id
