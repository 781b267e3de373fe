"""DISTS on a random backbone against torchmetrics', and with its own the figures they publish."""

import types

import pytest
import torch
from PIL import Image

from perco_lite import data
from perco_lite.data import skimage_photos
from perco_lite.evaluation.metrics import dists
from perco_lite.evaluation.metrics.dists import WEIGHTS, Dists, load_dists
from perco_lite.metrics import Unavailable
from perco_lite.perceptual import build_backbone, load_backbone, read_torchmetrics


@pytest.fixture
def fresh():
    load_dists.cache_clear()
    yield
    load_dists.cache_clear()


def random_vgg() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return build_backbone("vgg")


def test_it_is_torchmetrics(monkeypatch):
    """Their network, on the same random VGG16 in place of torchvision's."""
    from torchmetrics.functional.image import dists as theirs

    vgg16 = lambda weights: types.SimpleNamespace(features=random_vgg())  # noqa: E731
    monkeypatch.setattr(theirs, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(theirs, "vgg16", vgg16, raising=False)
    monkeypatch.setattr(theirs, "VGG16_Weights", types.SimpleNamespace(DEFAULT=None), raising=False)
    model = Dists(random_vgg(), **read_torchmetrics(*WEIGHTS))
    random = torch.Generator().manual_seed(1)
    one, other = torch.rand(2, 3, 3, 50, 70, generator=random)
    expected = theirs.DISTSNetwork()(one, other)
    torch.testing.assert_close(model(one, other), expected, rtol=1e-4, atol=1e-5)
    assert (model(one, other) > 0.001).all() and model(one, one).abs().max() < 1e-5


def test_the_figures_that_others_publish():
    """Of torchmetrics' two examples."""
    try:
        model = Dists(load_backbone("vgg"), **read_torchmetrics(*WEIGHTS))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    torch.manual_seed(42)
    one, other = torch.rand(5, 3, 256, 256), torch.rand(5, 3, 256, 256)
    expected = [0.1285, 0.1344, 0.1356, 0.1277, 0.1276]
    assert model(one, other).tolist() == pytest.approx(expected, abs=1e-4)


def test_texture_may_be_another_sample_of_the_same(fresh):
    """What tells it from PSNR: moved grain is nearer to the grain than no grain at all."""
    try:
        distance = load_dists()
    except Unavailable as error:
        pytest.skip(str(error))
    (photo,) = (s.image for s in skimage_photos() if s.name == "chelsea.png")
    fur = photo.crop((130, 60, 258, 188))
    moved = photo.crop((134, 60, 262, 188))
    flat = fur.resize((16, 16)).resize(fur.size, Image.Resampling.BICUBIC)
    assert distance(fur, moved) < 0.5 * distance(fur, flat)
    assert distance(fur, fur) == pytest.approx(0, abs=1e-5)
    assert distance(fur.resize((15, 40)), fur.resize((15, 40))) is None
    assert "VGG16" in distance.protocol and "not resized" in distance.protocol


def test_missing_weights_are_a_reason(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.delenv("PERCO_LITE_DOWNLOAD", raising=False)
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(Unavailable, match="DISTS: no weights at .*vgg16.*perco download metrics"):
        load_dists()
    monkeypatch.setattr(dists, "load_backbone", lambda *_: random_vgg())
    with pytest.raises(ValueError, match="photos of 64x64 and 64x32"):
        load_dists()(Image.new("RGB", (64, 64)), Image.new("RGB", (64, 32)))
