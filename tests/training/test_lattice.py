"""The lattice loss: a repeated cell costs, texture of noise and of photos does not."""

import pytest
import torch
import torch.nn.functional as F

from conftest import make_photo
from perco_lite.data import image_to_tensor, skimage_photos
from perco_lite.training.lattice import CELL, lattice, lattice_loss

DOTS = torch.zeros(CELL, CELL)
DOTS[4:6, 9:11] = 0.5


def noise(seed=0, size=128):
    return 0.1 * torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def dots(size=128):
    return DOTS.repeat(size // CELL, size // CELL).expand(1, 3, -1, -1)


def test_dots_on_the_grid_cost_and_noise_as_strong_does_not():
    strength = dots().std()
    assert lattice(dots()).mean() > 0.5 * strength
    same = noise() / noise().std() * strength
    assert lattice(same).mean() < 0.1 * strength


def test_a_pattern_of_another_period_is_not_of_this_grid():
    other = dots(160)[..., :128]
    other = F.interpolate(other, scale_factor=1.3)[..., :128, :128]
    assert lattice(other).mean() < 0.3 * lattice(dots()).mean()
    assert lattice(F.interpolate(dots(), scale_factor=0.5)).mean() > 0.02, "half of it divides it"


def test_where_the_grid_lies_does_not_matter():
    rolled = dots(256).roll((5, 3), (-2, -1))
    inside = slice(64, 192)
    torch.testing.assert_close(lattice(rolled)[..., 1:3, 1:3], lattice(dots(256))[..., 1:3, 1:3])
    assert lattice(rolled[..., inside, inside]).min() > 0.02


@pytest.mark.parametrize("sample", skimage_photos(), ids=lambda sample: sample.name)
def test_photos_with_dots_cost_more_than_photos(sample):
    photo = image_to_tensor(sample.image)[..., :256, :256]
    size = photo.shape[-1]
    dotted = photo + dots(size)[..., : photo.shape[-2], :]
    assert lattice_loss(photo, photo) == 0
    assert lattice_loss(dotted, photo) > 0.02
    assert lattice_loss(photo + noise(size=size)[..., : photo.shape[-2], :], photo) < 0.01


def test_its_gradient_takes_the_dots_away():
    wall, shown = torch.zeros(1, 3, 64, 64), dots(64).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([shown], 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        lattice_loss(shown, wall).backward()
        optimizer.step()
    assert lattice(shown.detach()).mean() < 0.2 * lattice(dots(64)).mean()


def test_pictures_smaller_than_a_window():
    with pytest.raises(ValueError, match="63×64, expected at least 64×64"):
        lattice(torch.zeros(1, 3, 63, 64))
    assert make_photo(64, 64).size == (64, 64)
