"""The denoiser's inputs and sizes, its noise schedule, and the algebra of the velocity."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler

from perco_lite.captions import embed_captions
from perco_lite.condition import LocalConditioner
from perco_lite.rates import RATES
from perco_lite.unet import (
    add_linear,
    build_scheduler,
    build_unet,
    linear_velocity,
    predict_velocity,
    split_velocity,
    velocity_losses,
)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return build_unet(8, 32, widths=(16, 16, 32), norm_groups=8, heads=2).eval()  # patches of 2x2


@pytest.fixture(scope="module")
def unet_without_patches():
    torch.manual_seed(0)
    return build_unet(8, 32, patch=1, widths=(16, 32), norm_groups=8, heads=2).eval()


def inputs(count=2, height=8, width=12):
    random = torch.Generator().manual_seed(1)
    return {
        "noisy_latents": torch.randn(count, 4, height, width, generator=random),
        "timestep": torch.tensor([10, 700])[:count],
        "condition": torch.randn(count, 8, height, width, generator=random),
        "text_embeddings": torch.randn(count, 5, 32, generator=random),
        "rate_ids": torch.tensor([0, 4])[:count],
    }


def predict(unet, **changes):
    with torch.no_grad():
        return predict_velocity(unet, **{**inputs(), **changes})


@pytest.mark.parametrize(("height", "width"), [(8, 12), (5, 7), (1, 1), (3, 9), (64, 2)])
def test_velocity_has_the_size_of_the_latents(unet, unet_without_patches, height, width):
    for denoiser in (unet, unet_without_patches):
        with torch.no_grad():
            velocity = predict_velocity(denoiser, **inputs(2, height, width))
        assert velocity.shape == (2, 4, height, width) and velocity.isfinite().all()


def test_without_patches_it_is_the_plain_unet_on_the_concatenation(unet_without_patches):
    given = inputs()
    assert unet_without_patches.config.in_channels == 4 + 8
    with torch.no_grad():
        expected = unet_without_patches(
            torch.cat([given["noisy_latents"], given["condition"]], dim=1),
            given["timestep"],
            encoder_hidden_states=given["text_embeddings"],
            class_labels=given["rate_ids"],
        ).sample
    torch.testing.assert_close(predict(unet_without_patches), expected)


def test_patches_by_hand(unet):
    """Position (y,x) of the U-Net holds the four latents from (2y,2x) on; the edge is repeated."""
    seen = []
    handle = unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    given = inputs(2, 5, 7)
    try:
        with torch.no_grad():
            predict_velocity(unet, **given)
    finally:
        handle.remove()
    both = torch.cat([given["noisy_latents"], given["condition"]], dim=1)
    assert seen[0].shape == (2, 4 * 12, 3, 4)
    assert torch.equal(seen[0][:, 4::4][..., 1, 2], both[:, 1:, 2, 4])
    assert torch.equal(seen[0][:, 3::4][..., 1, 2], both[..., 3, 5])
    assert torch.equal(seen[0][:, 3::4][..., 2, 3], both[..., 4, 6])  # beyond the edge


def test_patches_come_back_to_their_places(unet, monkeypatch):
    def echo(sample, timestep, encoder_hidden_states, class_labels):
        return SimpleNamespace(sample=sample[:, :16])

    monkeypatch.setattr(unet, "forward", echo)
    given = inputs(2, 5, 7)
    assert torch.equal(predict_velocity(unet, **given), given["noisy_latents"])


@pytest.mark.parametrize(
    "name", ["noisy_latents", "timestep", "condition", "text_embeddings", "rate_ids"]
)
def test_every_input_has_a_say_and_stays_with_its_item(unet, name):
    changed = inputs()[name].clone()
    changed[1] = changed[1] + 1
    before, after = predict(unet), predict(unet, **{name: changed})
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-5)
    assert (after[1] - before[1]).abs().max() > 1e-4


def test_every_channel_of_the_condition_is_seen(unet):
    for channel in range(8):
        condition = inputs()["condition"]
        condition[:, channel] += 1
        assert (predict(unet, condition=condition) - predict(unet)).abs().max() > 1e-4


def test_one_timestep_for_all(unet):
    expected = predict(unet, timestep=torch.tensor([300, 300]))
    for timestep in (300, torch.tensor(300)):
        torch.testing.assert_close(predict(unet, timestep=timestep), expected)


def test_condition_of_another_size_is_explained(unet):
    with pytest.raises(ValueError, match=r"condition is \(8, 8\), latents are \(8, 12\), expected"):
        predict(unet, condition=torch.zeros(2, 8, 8, 8))


def test_default_sizes():
    with torch.device("meta"):
        unet = build_unet(LocalConditioner().channels, text_channels=192)
    count = sum(parameter.numel() for parameter in unet.parameters())
    assert 8e6 < count < 16e6
    assert unet.class_embedding.num_embeddings == len(RATES) == 8
    assert unet.config.in_channels == 2 * 2 * (4 + 16) and unet.config.out_channels == 2 * 2 * 4


def test_attention_only_at_the_coarsest_level(unet):
    names = {name.split(".attentions")[0] for name, _ in unet.named_modules() if "attn2" in name}
    assert names == {"down_blocks.2", "mid_block", "up_blocks.0"}


# --- the noise schedule ---


def test_zero_terminal_snr():
    alphas_cumprod = build_scheduler().alphas_cumprod
    assert len(alphas_cumprod) == 1000
    assert alphas_cumprod[-1] == 0  # pure noise, so that no brightness leaks into training
    assert (alphas_cumprod.diff() < 0).all()
    assert alphas_cumprod[0].item() == pytest.approx(1 - 0.00085)  # rescaling keeps the first


def test_sampling_starts_at_the_step_without_signal(tmp_path):
    build_scheduler().save_pretrained(tmp_path)
    for scheduler in (build_scheduler(), DDIMScheduler.from_pretrained(tmp_path)):
        assert scheduler.alphas_cumprod[-1] == 0
        for count in (1, 5, 20):
            scheduler.set_timesteps(count)
            expected = [999 - round(i * 1000 / count) for i in range(count)]
            assert scheduler.timesteps.tolist() == expected
        assert scheduler.config.prediction_type == "v_prediction"
        assert scheduler.final_alpha_cumprod == 1  # the last step leaves no noise


# --- velocity ---


def test_velocity_is_diffusers_own():
    timestep, random = torch.tensor([0, 400, 999]), torch.Generator().manual_seed(2)
    clean, noise = (torch.randn(3, 4, 5, 6, generator=random) for _ in range(2))
    scheduler = build_scheduler()
    alpha_bar = scheduler.alphas_cumprod[timestep].view(-1, 1, 1, 1)
    noisy = scheduler.add_noise(clean, noise, timestep)
    velocity = scheduler.get_velocity(clean, noise, timestep)
    torch.testing.assert_close(noisy[2], noise[2])  # at the last step there is nothing else
    torch.testing.assert_close(velocity[2], -clean[2])
    x0, epsilon = split_velocity(noisy, velocity, alpha_bar)
    torch.testing.assert_close(x0, clean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(epsilon, noise, atol=1e-5, rtol=1e-5)
    scheduler.set_timesteps(5)
    for item, t in enumerate(timestep.tolist()):
        step = scheduler.step(velocity[item], t, noisy[item])
        torch.testing.assert_close(step.pred_original_sample, x0[item], atol=1e-5, rtol=1e-5)


# --- what the estimate already says ---


@pytest.mark.parametrize("variance", [0.02, 0.5])
@pytest.mark.parametrize("timestep", [999, 700, 200, 0])
def test_no_linear_denoiser_around_the_estimate_is_better(timestep, variance):
    """Against least squares on a world where it is exactly so."""
    draw = torch.Generator().manual_seed(0)
    estimate = torch.randn(1, 4, 200, 200, generator=draw)
    clean = estimate + variance**0.5 * torch.randn(1, 4, 200, 200, generator=draw)
    noise = torch.randn(1, 4, 200, 200, generator=draw)
    alpha_bar = build_scheduler().alphas_cumprod[timestep]
    noisy = alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise
    target = alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean
    ours = linear_velocity(noisy, alpha_bar, estimate, torch.tensor([variance]))
    known = torch.stack([noisy.flatten(), estimate.flatten()], 1)
    best = known @ torch.linalg.lstsq(known, target.flatten()[:, None]).solution
    error, least = (ours - target).pow(2).mean(), (best[:, 0] - target.flatten()).pow(2).mean()
    assert error <= 1.001 * least + 1e-6


def test_at_pure_noise_it_is_the_estimate():
    noisy, estimate = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    velocity = linear_velocity(noisy, torch.tensor(0.0), estimate, torch.tensor([0.3, 0.1]))
    torch.testing.assert_close(velocity, -estimate)


def test_weights_without_a_variance_say_all_themselves():
    velocity = torch.randn(1, 4, 2, 2)
    assert add_linear(velocity, velocity, torch.tensor(0.5), velocity, None) is velocity


def test_velocity_loss_is_that_of_the_definition(tiny_codec):
    rate = RATES[0].name
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        indices = tiny_codec.conditioner.encode(latents, rate)
        condition = tiny_codec.conditioner.decode(indices, rate)
        got = velocity_losses(tiny_codec, latents, condition, ["a dog", ""], rate, seed=5)
        noise = torch.randn((5, 4, 8, 8), generator=torch.Generator().manual_seed(5))
        text = embed_captions(tiny_codec.tokenizer, tiny_codec.text_encoder, [""])
        expected = []
        for i, level in enumerate((199, 399, 599, 799, 999)):
            alpha_bar = tiny_codec.scheduler.alphas_cumprod[level]
            noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise[i]
            target = alpha_bar.sqrt() * noise[i] - (1 - alpha_bar).sqrt() * latents
            velocity = predict_velocity(
                tiny_codec.unet, noisy, level, condition, text, torch.tensor([0])
            )
            expected.append((velocity - target).pow(2).mean().item())
    assert got[1] == pytest.approx(sum(expected) / 5, rel=1e-4) and len(got) == 2
