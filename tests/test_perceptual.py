"""The feature distance with random weights of the published shapes."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

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
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    """A machine without any network, on which made-up weights are the published ones."""
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.delenv("PERCO_LITE_DOWNLOAD", raising=False)
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(perceptual, "DIGESTS", dict(perceptual.DIGESTS))
    return tmp_path


def random_features(net: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    features = perceptual.build_backbone(net).state_dict()
    return {f"features.{name}": value for name, value in features.items()}


def test_lpips_is_the_one_that_others_publish():
    """torchmetrics' examples, of older releases too; the fp16 backbone moves no digit of them."""
    distance = load_lpips("squeeze").train()
    for seed, expected in ((123, 0.1008), (42, 0.1005)):
        torch.manual_seed(seed)
        one, other = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
        assert distance(one, other).mean().item() == pytest.approx(expected, abs=1e-4)
    random = torch.Generator().manual_seed(42)
    one, other = torch.rand(2, 2, 3, 100, 100, generator=random) * 2 - 1
    assert distance(one, other).tolist() == pytest.approx([0.1024, 0.0938], abs=1e-4)
    assert not any(p.requires_grad for p in distance.parameters())


def test_lpips_of_vgg_is_the_one_that_others_publish():
    """The example of torchmetrics 0.11, whose dice the making of the network has thrown, too."""
    distance = load_lpips("vgg")
    torch.manual_seed(123)
    perceptual.build_backbone("vgg")
    for channels in ((25088, 4096), (4096, 4096), (4096, 1000)):
        torch.nn.Linear(*channels)
    for channels in (64, 128, 256, 512, 512):
        torch.nn.Conv2d(channels, 1, 1, bias=False)
    one, other = (torch.rand(10, 3, 100, 100) * 2 - 1 for _ in range(2))
    assert distance(one, other).mean().item() == pytest.approx(0.3493, abs=1e-4)


def test_lpips_of_alexnet_grows_with_the_difference():
    """Its documented values are of two pictures that no package ships (richzhang's ex_*.png)."""
    distance, image = load_lpips("alex"), photos()
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(2))
    assert torch.equal(distance(image, image), torch.zeros(2))
    assert (distance(image + 0.3 * noise, image) > 2 * distance(image + 0.03 * noise, image)).all()


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_lpips_is_torchmetrics(net, nothing_here, monkeypatch):
    """Theirs, on the same random backbone; in training mode too, where theirs drops features."""
    from torchmetrics.functional.image import lpips

    weights, name = random_features(net), perceptual.network_file(net)
    perceptual.DIGESTS[name] = perceptual.digest(weights)
    (nothing_here / "weights").mkdir()
    save_file(weights, nothing_here / "weights" / f"{name}.safetensors")
    distance = Lpips(net).train()
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda *_: perceptual.build_backbone(net))
    theirs = lpips._LPIPS(net=net, pnet_rand=True)
    # what is features.3.weight of ours is slice2.3.weight of theirs, or slices.1.3.weight
    names = {key: re.sub(r"slices?\.?\d+\.", "features.", key) for key in theirs.net.state_dict()}
    theirs.net.load_state_dict({key: weights[name] for key, name in names.items()})
    image, other = photos(2, 64, 80), photos(2, 64, 80, seed=1)
    image.requires_grad_()
    expected = theirs(image, other).flatten()
    torch.testing.assert_close(distance(image, other), expected, rtol=1e-3, atol=1e-6)
    black = torch.zeros(1, 3, 64, 64, requires_grad=True)
    distance(black, black.detach()).sum().backward()
    assert black.grad.isfinite().all(), "nor is anything divided by zero"


@pytest.mark.parametrize("net", ["alex", "squeeze", "vgg"])
def test_missing_and_foreign_backbones_are_named(net, nothing_here):
    command = "download squeeze" if net == "squeeze" else "download metrics"
    with pytest.raises(FileNotFoundError, match=f"{LPIPS_BACKBONES[net]}; `perco {command}` fet"):
        Lpips(net)
    # in the order and under the names that torchvision saves
    (nothing_here / "checkpoints").mkdir()
    cached = nothing_here / "checkpoints" / LPIPS_BACKBONES[net]
    weights = random_features(net)
    torch.save(weights | {"classifier.1.weight": torch.zeros(3)}, cached)
    with pytest.raises(ValueError, match=f"{cached.name} has other weights than the published"):
        Lpips(net)
    perceptual.DIGESTS[perceptual.network_file(net)] = perceptual.digest(weights)
    image = photos(1, 64, 64)
    assert Lpips(net)(image, photos(1, 64, 64, seed=1)) > 0
    with pytest.raises(ValueError, match="got LPIPS net 'resnet', expected one of alex, squeeze"):
        Lpips("resnet")


def test_full_precision_counts_before_half(nothing_here):
    weights = random_features("alex")
    name = perceptual.network_file("alex")
    perceptual.DIGESTS[name] = perceptual.digest(weights)
    half = {key: value.half() for key, value in weights.items()}
    for folder, values in {"weights": half, "cache/weights": weights}.items():
        (nothing_here / folder).mkdir(parents=True)
        suffix = "" if values is weights else "_fp16"
        save_file(values, nothing_here / folder / f"{name}{suffix}.safetensors")
    found = perceptual.load_network(name)
    assert all(torch.equal(found[key], weights[key]) for key in weights)
    (nothing_here / "cache" / "weights" / f"{name}.safetensors").unlink()
    found = perceptual.load_network(name)
    assert all(torch.equal(found[key], half[key].float()) for key in weights)
    assert perceptual.digest(half) == perceptual.digest(weights)


def test_a_file_of_torchmetrics_that_is_another_is_refused():
    assert set(perceptual.read_torchmetrics("dists_models/weights.pt", "f5e65c96"))
    with pytest.raises(ValueError, match="weights.pt is not the published one; reinstall"):
        perceptual.read_torchmetrics("dists_models/weights.pt", "00000000")
