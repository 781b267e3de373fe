"""Shapes, unit variance, statistics that move only with the encoder, saving and loading."""

import pytest
import torch

from conftest import TINY_AUTOENCODER
from perco_lite.autoencoder import Autoencoder, ResidualBlock


def tiny(**settings) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(**TINY_AUTOENCODER, **settings)


def with_statistics() -> Autoencoder:
    autoencoder = tiny()
    autoencoder.latent_mean.copy_(torch.tensor([0.3, -0.2, 0.0, 1.5]))
    autoencoder.latent_std.copy_(torch.tensor([0.1, 2.0, 1.0, 0.5]))
    return autoencoder


def photos(count=2, height=24, width=40):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("height", "width"), [(8, 8), (24, 40), (64, 8)])
def test_latents_are_an_eighth_of_the_image(height, width):
    autoencoder = tiny().eval()
    image = photos(2, height, width)
    latents = autoencoder.encode(image)
    assert latents.shape == (2, 4, height // 8, width // 8)
    assert autoencoder.decode(latents).shape == image.shape
    reconstruction, same = autoencoder(image)
    assert reconstruction.shape == image.shape and torch.equal(same, latents)


def test_default_size():
    with torch.device("meta"):
        autoencoder = Autoencoder()
        latents = autoencoder.encode(torch.empty(1, 3, 512, 768))
        assert latents.shape == (1, 4, 64, 96)
        assert autoencoder.decode(latents).shape == (1, 3, 512, 768)
    assert 3e6 < sum(p.numel() for p in autoencoder.parameters()) < 4.5e6


def test_number_of_latent_channels_is_a_setting():
    autoencoder = tiny(latent_channels=6)
    latents = autoencoder.encode(photos())
    assert latents.shape[1] == 6 and autoencoder.decode(latents).shape[1] == 3


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (1, 3, 20, 16), (1, 3, 16, 7)])
def test_wrong_images_are_explained(shape):
    with pytest.raises(ValueError, match=r"expected \(B,3,H,W\) with H and W multiples of 8; pad"):
        tiny().encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(4, 2, 2), (1, 3, 2, 2)])
def test_wrong_latents_are_explained(shape):
    with pytest.raises(ValueError, match=r"latents have shape .* expected \(B,4,h,w\)"):
        tiny().decode(torch.zeros(shape))


def test_latents_of_a_training_batch_have_unit_variance():
    autoencoder = with_statistics().train()  # running statistics that are far off
    _, latents = autoencoder(photos(4, 32, 32))
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4))


def test_larger_raw_latents_do_not_escape_the_noise():
    """The gradient sees the batch's own scale: pushing all raw latents outwards gains nothing."""
    autoencoder = tiny().train()
    _, latents = autoencoder(photos())
    gradient = torch.autograd.grad(
        (latents * torch.linspace(-1, 1, latents[0].numel()).view_as(latents[0])).sum(),
        autoencoder.encoder[-1].bias,
    )[0]
    assert gradient.abs().max() < 1e-3  # shifting a channel's mean changes nothing
    with torch.no_grad():
        autoencoder.encoder[-1].weight.mul_(10)
        autoencoder.encoder[-1].bias.mul_(10)
    torch.testing.assert_close(autoencoder(photos())[1], latents, atol=1e-4, rtol=1e-4)


def test_running_statistics_follow_the_encoder_in_training():
    autoencoder = with_statistics().train()
    mean, std = autoencoder.latent_mean.clone(), autoencoder.latent_std.clone()
    raw = autoencoder.encoder(photos()).detach()
    autoencoder(photos())
    torch.testing.assert_close(autoencoder.latent_mean, 0.98 * mean + 0.02 * raw.mean((0, 2, 3)))
    torch.testing.assert_close(autoencoder.latent_std, 0.98 * std + 0.02 * raw.std((0, 2, 3)))


@pytest.mark.parametrize("kept", [True, False])
def test_running_statistics_rest_where_the_latents_must_keep_their_meaning(kept):
    autoencoder = with_statistics().train(kept)  # kept though in training mode, or in use
    autoencoder.keeps_latents = kept
    mean, std = autoencoder.latent_mean.clone(), autoencoder.latent_std.clone()
    _, latents = autoencoder(photos())
    assert torch.equal(autoencoder.latent_mean, mean) and torch.equal(autoencoder.latent_std, std)
    assert torch.equal(latents, autoencoder.encode(photos()))
    raw = autoencoder.encoder(photos())
    torch.testing.assert_close(latents[:, 3], (raw[:, 3] - 1.5) / 0.5)  # by hand


def test_folding_leaves_the_latents_as_they_are():
    autoencoder = with_statistics().eval()
    before = autoencoder.encode(photos())
    raw = autoencoder.encoder(photos())
    autoencoder.fold_statistics()
    assert torch.equal(autoencoder.latent_mean, torch.zeros(4))
    assert torch.equal(autoencoder.latent_std, torch.ones(4))
    torch.testing.assert_close(autoencoder.encode(photos()), before, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(autoencoder.encoder(photos()), raw)  # it is the layer that changed


def test_noise_is_added_only_where_training_asks_for_it(monkeypatch):
    autoencoder = tiny().eval()
    image = photos(4, 64, 64)
    clean, latents = autoencoder(image)
    assert torch.equal(clean, autoencoder.decode(autoencoder.encode(image)))
    noisy, same = autoencoder(image, latent_noise=0.5)
    assert torch.equal(same, latents) and not torch.allclose(noisy, clean)

    monkeypatch.setattr(autoencoder, "decode", lambda latents: latents)
    decoded, _ = autoencoder(image, latent_noise=0.5)
    assert (decoded - latents).std().item() == pytest.approx(0.5, rel=0.1)


def test_gradient_reaches_every_parameter():
    autoencoder = tiny().train()
    reconstruction, _ = autoencoder(photos(), latent_noise=0.05)
    reconstruction.square().mean().backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_residual_blocks_start_near_the_identity():
    torch.manual_seed(0)
    x = torch.randn(1, 32, 8, 8)
    change = ResidualBlock(32)(x) - x
    assert 0 < change.std() < 0.02 * x.std()


def test_saved_in_diffusers_format_and_loaded_again(tmp_path):
    autoencoder = with_statistics().eval()
    autoencoder.save_pretrained(tmp_path)
    files = {file.name for file in tmp_path.iterdir()}
    assert files == {"config.json", "diffusion_pytorch_model.safetensors"}
    loaded = Autoencoder.from_pretrained(tmp_path)
    assert not loaded.training
    assert dict(loaded.config)["encoder_widths"] in ([16, 16], (16, 16))
    assert loaded.state_dict().keys() == autoencoder.state_dict().keys()
    for name, value in autoencoder.state_dict().items():  # the statistics are among them
        assert torch.equal(loaded.state_dict()[name], value), name
    assert torch.equal(loaded.encode(photos()), autoencoder.encode(photos()))
