"""The spectrum loss: a weave costs, edges, noise and photos do not, and its gradient unpicks it."""

import math

import pytest
import torch

from perco_lite.data import image_to_tensor, skimage_photos
from perco_lite.metrics import over_usual, spectrum_loss, usual_power, window_spectra


def noise(seed=0, size=192, count=2):
    return 0.2 * torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def weave(size=192, across=0.29, down=0.42, strength=0.1):
    """A diagonal wave, in cycles a pixel."""
    x, y = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy")
    return strength * torch.cos(2 * math.pi * (across * x + down * y))


@pytest.fixture(scope="module")
def photos():
    found = [image_to_tensor(sample.image.resize((384, 256))) for sample in skimage_photos()]
    return torch.cat(found[:4])[:, :, :192, :192]


def test_power_of_a_wave_by_hand():
    """A wave of amplitude a has power a²/2, in two opposite waves and their neighbours."""
    spectra = window_spectra(weave(across=8 / 64, down=16 / 64).expand(1, 3, -1, -1), 64)
    assert spectra.shape == (25, 64, 64)
    torch.testing.assert_close(spectra.sum((1, 2)), torch.full((25,), 0.005), rtol=1e-3, atol=0)
    found = [divmod(int(at), 64) for at in spectra.mean(0).flatten().topk(2).indices]
    assert sorted(found) == [(16, 8), (48, 56)]


def test_what_is_usual_is_the_median_around_also_over_the_rim():
    power = torch.ones(64, 64)
    power[0, 0], power[20, 30] = 1000, 50
    assert (usual_power(power) == 1).all()
    found = over_usual(power)
    assert found[20, 30] == 50 and found.flatten().topk(2).values[1] == 1
    power[3, 20] = power[30, 61] = 70  # slow along one axis: edges have those
    assert (over_usual(power) <= 50).all()


def test_a_weave_costs_and_noise_and_other_photos_do_not(photos):
    other = photos.flip(0)
    assert spectrum_loss(noise(1), noise(2)) < 0.002 and spectrum_loss(photos, other) < 0.01
    for where, base in (("noise", noise(1)), ("photos", photos)):
        assert spectrum_loss(base + weave(), base) > 0.02, where
        assert spectrum_loss(base, base + weave()) < 0.01, "less than the photo has is no fault"


def test_a_weave_in_one_pale_picture_is_seen_beside_meadows():
    pale = 0.01 * noise(3, count=1) + weave(strength=0.01)
    meadows = noise(4, count=3)
    assert spectrum_loss(torch.cat([pale, meadows]), torch.cat([pale * 0, meadows])) > 0.02


def test_the_gradient_takes_a_weave_away():
    base = noise(5)
    picture = (base + weave()).requires_grad_(True)
    optimizer = torch.optim.SGD([picture], lr=300)
    for _ in range(30):
        loss = spectrum_loss(picture, base)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert spectrum_loss(picture, base) < 0.3 * spectrum_loss(base + weave(), base)
    moved = (picture.detach() - base - weave()).std()
    assert moved < 0.12, "and leaves the rest"


def test_pictures_smaller_than_a_window_are_refused():
    with pytest.raises(ValueError, match="image is 64×63, expected at least 64×64"):
        spectrum_loss(torch.zeros(1, 3, 64, 63), torch.zeros(1, 3, 64, 63))
    flat = torch.zeros(1, 3, 64, 64)
    assert spectrum_loss(flat, flat) == 0
