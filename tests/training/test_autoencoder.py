"""Stage 1's objective and previews. (Whole runs of it are in test_commands.)"""

import csv

import pytest
import torch
from PIL import Image
from torch import nn

from conftest import TINY_AUTOENCODER
from perco_lite.autoencoder import Autoencoder
from perco_lite.training.autoencoder import AutoencoderLoss, AutoencoderStage


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    return Autoencoder(**TINY_AUTOENCODER)


class Difference(nn.Module):
    """In place of the feature distance: 100 for each photo."""

    def forward(self, image, target):
        return torch.full((len(image),), 100.0) + 0 * image.sum((1, 2, 3))


def test_the_objective_by_hand(autoencoder):
    loss = AutoencoderLoss(autoencoder, Difference(), perceptual_weight=0.5, latent_noise=0).train()
    image = torch.rand(2, 3, 16, 24) * 2 - 1
    losses = loss(image)
    error = autoencoder(image)[0] - image
    plain = error.abs().mean() + 4 * error.square().mean()
    torch.testing.assert_close(losses["loss"], plain + 50)
    assert losses["features"] == 100
    torch.testing.assert_close(losses["psnr"], -10 * torch.log10(error.square().mean() / 4))
    loss.sharpen_from = 3
    torch.testing.assert_close(loss(image, step=2)["loss"], plain)


def test_what_holds_the_latents(autoencoder):
    """Only the distance from what the encoder was is added, and only the encoder may move."""
    image = torch.rand(2, 3, 16, 24) * 2 - 1
    autoencoder.keeps_latents = True
    loss = AutoencoderLoss(autoencoder, None, latent_noise=0, hold_latents=3.0).train()
    before = autoencoder.encode(image).detach()
    losses = loss(image)
    assert losses["moved"] == 0
    names = {name for name, _ in loss.named_parameters()}
    assert names == {f"autoencoder.{name}" for name, _ in autoencoder.named_parameters()}
    with torch.no_grad():
        autoencoder.encoder[-1].bias += 0.5 * autoencoder.latent_std
    losses = loss(image)
    assert losses["moved"].item() == pytest.approx(0.25, rel=1e-5)
    error = autoencoder.decode(before + 0.5) - image
    plain = error.abs().mean() + 4 * error.square().mean()
    torch.testing.assert_close(losses["loss"], plain + 3 * 0.25)
    losses["moved"].backward()
    assert autoencoder.encoder[-1].bias.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in loss.held[0].parameters())


def test_noise_on_the_latents(autoencoder):
    image = torch.rand(2, 3, 16, 24) * 2 - 1
    quiet, noisy = (AutoencoderLoss(autoencoder, None, latent_noise=n)(image) for n in (0, 0.5))
    assert quiet["loss"] != noisy["loss"]


def test_the_feature_distance_joins_late(autoencoder):
    class Store:
        def crops(self, count, crop, generator):
            return torch.zeros(count, 3, crop, crop)

    stage = AutoencoderStage(
        Store(), AutoencoderLoss(autoencoder, Difference(), sharpen_from=3), crop=16
    )
    features = [
        float(stage.module(**stage.batch(step, 2, torch.Generator()))["features"].detach())
        for step in range(5)
    ]
    assert features == [0, 0, 0, 100, 100]


def test_preview_of_photos_of_different_small_sizes(autoencoder, tmp_path):
    class Store:
        def crops(self, count, crop, generator):
            return torch.rand(count, 3, crop, crop, generator=generator) * 2 - 1

    photos = []
    for number, size in enumerate([(100, 60), (300, 70), (49, 50)]):
        photos.append(tmp_path / f"{number}.png")
        Image.new("RGB", size, (200, 10, 10)).save(photos[-1])
    stage = AutoencoderStage(Store(), AutoencoderLoss(autoencoder, None), 16, photos)
    stage.preview(tmp_path / "preview.png")
    sheet = Image.open(tmp_path / "preview.png")
    assert sheet.size == (3 * 48, 2 * 48)  # the shortest side of all, in whole latents
    assert sheet.getpixel((24, 24)) == (200, 10, 10), "the originals are in the upper row"
    with (tmp_path / "preview.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["0.png", "1.png", "2.png"]
