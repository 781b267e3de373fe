"""The feature distance with random weights of the published shapes."""

import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from perco_lite import data, perceptual
from perco_lite.data import find_data
from perco_lite.perceptual import LPIPS_BACKBONES, Lpips, PerceptualDistance

FIRES = {"fire2": (96, 16, 64), "fire3": (128, 16, 64), "fire4": (128, 32, 128)}
FIRES |= {"fire5": (256, 32, 128)}  # channels in, squeezed, and of each expansion


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the layers in use, and of one that is not, as the npz file has them."""
    shapes = {"conv1.weight": (96, 3, 7, 7), "conv1.bias": (96,)}
    for name, (channels, narrow, wide) in FIRES.items():
        shapes[f"{name}.squeeze.weight"] = (narrow, channels, 1, 1)
        shapes[f"{name}.expand1x1.weight"] = (wide, narrow, 1, 1)
        shapes[f"{name}.expand3x3.weight"] = (wide, narrow, 3, 3)
        for layer, size in [("squeeze", narrow), ("expand1x1", wide), ("expand3x3", wide)]:
            shapes[f"{name}.{layer}.bias"] = (size,)
    return shapes | {"conv10.weight": (1000, 512, 1, 1)}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    """Random weights of about the scale that keeps activations alive."""
    random, weights = np.random.default_rng(0), {}
    for name, shape in published_shapes().items():
        scale = (2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.01
        weights[name] = random.normal(0, scale, shape).astype(np.float32)
    return weights


@pytest.fixture(scope="module")
def distance(weights, tmp_path_factory) -> PerceptualDistance:
    path = tmp_path_factory.mktemp("squeezenet") / "squeezenet.npz"
    np.savez(path, **weights)
    return PerceptualDistance.from_file(path)


def photos(count=2, height=48, width=64, seed=0):
    coarse = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(-1, 1)


def test_zero_for_equal_images_and_positive_otherwise(distance):
    image, other = photos(), photos(seed=1)
    assert torch.equal(distance(image, image.clone()), torch.zeros(2))
    assert (distance(image, other) > 0.01).all()
    torch.testing.assert_close(distance(image, other), distance(other, image))


def test_one_distance_for_each_photo(distance):
    image, other = photos(3), photos(3, seed=1)
    together = distance(image, other)
    assert together.shape == (3,)
    alone = torch.cat([distance(a[None], b[None]) for a, b in zip(image, other, strict=True)])
    torch.testing.assert_close(together, alone)


def test_grows_with_the_difference(distance):
    image = photos()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    small, large = distance(image + 0.03 * noise, image), distance(image + 0.3 * noise, image)
    assert (large > 2 * small).all()


@pytest.mark.parametrize(("height", "width"), [(37, 53), (16, 16)])
def test_any_size(distance, height, width):
    maps = distance.features(photos(1, height, width))
    assert [m.shape[1] for m in maps] == [96, 128, 256]
    for tap, scale in zip(maps, (2, 4, 8), strict=True):  # the valid 7x7 costs a few pixels
        assert height / scale - 4 <= tap.shape[2] <= height / scale + 1
    assert distance(photos(1, height, width), photos(1, height, width, seed=1)) > 0


def test_gradient_reaches_both_images(distance):
    image, target = photos().requires_grad_(), photos(seed=1).requires_grad_()
    distance(image, target).sum().backward()
    for tensor in (image, target):
        assert tensor.grad.isfinite().all()
        assert (tensor.grad != 0).float().mean() > 0.5


def test_gradient_is_finite_where_nothing_is_seen(weights):
    blind = {n: v - 1e6 if n.endswith("bias") else v for n, v in weights.items()}
    image = torch.zeros(1, 3, 32, 32, requires_grad=True)
    value = PerceptualDistance(blind)(image, torch.ones(1, 3, 32, 32))
    assert value == 0  # no unit fires
    value.sum().backward()
    assert image.grad.isfinite().all()


def test_is_frozen_and_keeps_only_what_it_needs(distance, weights):
    assert not list(distance.parameters())
    names = {name for name, _ in distance.named_buffers()}
    assert names == {n.replace(".", "_") for n in weights if n != "conv10.weight"} | {"mean"}


def test_the_classifier_sees_blue_green_red_in_0_to_255(distance, weights):
    image = photos(1)
    pixels = (image + 1) * 127.5
    caffe = torch.stack([pixels[:, 2] - 104, pixels[:, 1] - 117, pixels[:, 0] - 123], dim=1)
    kernel, bias = (torch.from_numpy(weights[f"conv1.{n}"]) for n in ("weight", "bias"))
    expected = F.conv2d(caffe, kernel, bias, stride=2).relu()
    torch.testing.assert_close(distance.features(image)[0], expected, rtol=1e-4, atol=1e-2)


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz is missing: .*--perceptual-weight 0"):
        PerceptualDistance.from_file(tmp_path / "none.npz")


def test_the_published_file_has_these_shapes():
    folder = find_data("train")
    path = folder and folder.parent / "weights" / "squeezenet1_0_caffe_fp32.npz"
    if path is None or not path.exists():
        pytest.skip("SqueezeNet's weights are not on this machine")
    with np.load(path) as published:
        for name, shape in published_shapes().items():
            assert published[name].shape == shape
    distance = PerceptualDistance.from_file(path)
    image = photos(1, 64, 64)
    blurred = F.avg_pool2d(image, 5, 1, 2)
    assert distance(blurred, image) > distance(image + 0.01, image) > 0


# --- LPIPS ---


def load_lpips(net: str) -> Lpips:
    try:
        return Lpips(net)
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(str(error))


def test_lpips_is_the_one_that_others_publish():
    """torchmetrics' example, 0.1008; with dropout, as a package in training mode has, it moves."""
    distance = load_lpips("squeeze").train()
    torch.manual_seed(123)
    one, other = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    assert distance(one, other).mean().item() == pytest.approx(0.1008, abs=1e-4)
    random = torch.Generator().manual_seed(42)
    one, other = torch.rand(2, 2, 3, 100, 100, generator=random) * 2 - 1
    assert distance(one, other).tolist() == pytest.approx([0.1024, 0.0938], abs=1e-4)
    assert not any(p.requires_grad for p in distance.parameters())


def test_lpips_of_alexnet_grows_with_the_difference():
    distance, image = load_lpips("alex"), photos()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(distance(image, image), torch.zeros(2))
    assert (distance(image + 0.3 * noise, image) > 2 * distance(image + 0.03 * noise, image)).all()


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_missing_backbones_and_package_are_named(net, tmp_path, monkeypatch):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "lpips", None)
    missing = r"LPIPS term needs lpips: pip install 'perco_lite\[metrics\]'"
    with pytest.raises(ImportError, match=missing):
        Lpips(net)
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=StandIn))
    with pytest.raises(FileNotFoundError, match=f"no weights at .*{LPIPS_BACKBONES[net]}; PERCO_"):
        Lpips(net)
    # in the order and under the names that torchvision saves
    (tmp_path / "checkpoints").mkdir()
    features = perceptual.build_backbone(net)
    saved = {f"features.{name}": value for name, value in features.state_dict().items()}
    torch.save(saved, tmp_path / "checkpoints" / LPIPS_BACKBONES[net])
    image = photos(1, 64, 64)
    torch.testing.assert_close(Lpips(net)(image, image), features(image).sum()[None])
    with pytest.raises(ValueError, match="got LPIPS net 'resnet', expected one of alex, squeeze"):
        Lpips("resnet")


class StandIn(torch.nn.Module):
    """In place of the package's LPIPS: the sum of the first image's features."""

    def __init__(self, net, pnet_rand, verbose):
        super().__init__()
        layers = perceptual.build_backbone(net)
        self.net = torch.nn.ModuleDict({"slice1": layers})

    def forward(self, image, target):
        return self.net["slice1"](image).sum((1, 2, 3), keepdim=True)
