"""Inception's layers, resize rules and files; with its weights, the figures that others publish."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from perco_lite import data, perceptual
from perco_lite.evaluation.metrics import inception
from perco_lite.evaluation.metrics.frechet import Moments, frechet_distance
from perco_lite.evaluation.metrics.inception import (
    Block,
    Convolution,
    Inception,
    load_inception,
    resize_antialiased,
    resize_clean,
)
from perco_lite.evaluation.metrics.realism import kid
from perco_lite.metrics import Unavailable


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Nothing loaded, and nothing to load."""
    load_inception.cache_clear()
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    yield tmp_path
    load_inception.cache_clear()


def grain(*shape: int, high: int = 256) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, high, shape, dtype=torch.uint8, generator=random)


def test_its_size_and_that_it_never_trains():
    network = Inception().train()
    layers = [module for module in network.modules() if isinstance(module, Convolution)]
    assert len(layers) == 94 and not any(module.training for module in network.modules())
    assert sum(p.numel() for p in network.parameters()) == 21_785_568
    assert not any(p.requires_grad for p in network.parameters())
    assert network(grain(2, 3, 40, 30)).shape == (2, 2048)
    with pytest.raises(ValueError, match="got resize 'nearest', expected one of torchmetrics, cl"):
        Inception("nearest")


def test_branches_stand_side_by_side():
    torch.manual_seed(0)
    block = Block(3, [[("a", 4, 1), [("b", 2, (1, 3)), ("c", 2, (3, 1))]], ["average"], ["max"]])
    block.eval()
    x = torch.rand(1, 3, 5, 6)

    def by_hand(layer: Convolution, x: torch.Tensor) -> torch.Tensor:
        layer.bn.running_mean += 0.1
        layer.bn.bias.data += 0.2
        kernel = layer.conv.weight
        padding = tuple(side // 2 for side in kernel.shape[2:])
        x = nn.functional.conv2d(x, kernel, padding=padding)
        mean, bias = (v.view(1, -1, 1, 1) for v in (layer.bn.running_mean, layer.bn.bias))
        return ((x - mean) / (layer.bn.running_var.view(1, -1, 1, 1) + 0.001).sqrt() + bias).relu()

    with torch.no_grad():
        first = by_hand(block.a, x)
        expected = [by_hand(block.b, first), by_hand(block.c, first)]
        corner = x[:, :, :2, :2].mean((2, 3))  # of an average, only what lies inside counts
        out = block(x)
    assert block.channels == out.shape[1] == 10
    torch.testing.assert_close(out[:, :4], torch.cat(expected, 1))
    torch.testing.assert_close(out[:, 4:7, 0, 0], corner)
    assert torch.equal(out[:, 7:, 2, 3], x[:, :, 1:4, 2:5].amax((2, 3)))


def test_resize_rules():
    photos = grain(2, 3, 40, 60)
    for resize in (resize_antialiased, resize_clean):
        assert torch.equal(resize(grain(1, 3, 299, 299)), grain(1, 3, 299, 299).float())
        same = resize(torch.full((1, 3, 20, 30), 77, dtype=torch.uint8))
        torch.testing.assert_close(same, torch.full((1, 3, 299, 299), 77.0))
    plane = Image.fromarray(photos[1, 2].numpy().astype(np.float32))
    plane = np.asarray(plane.resize((299, 299), Image.Resampling.BICUBIC))
    assert plane.max() > 255 and plane.min() < 0, "bicubic overshoots"
    assert np.array_equal(resize_clean(photos)[1, 2], plane.clip(0, 255))
    theirs = nn.functional.interpolate(
        grain(1, 3, 700, 600).float(), (299, 299), mode="bilinear", antialias=True
    )
    assert torch.equal(resize_antialiased(grain(1, 3, 700, 600)), theirs)


def test_weights_that_are_missing_or_foreign_are_a_reason(fresh, monkeypatch):
    with pytest.raises(Unavailable, match="no inception_2015_12_05.*`perco download metrics`"):
        load_inception()
    torch.manual_seed(0)
    weights = Inception().state_dict()
    weights = {name: w for name, w in weights.items() if not name.endswith("num_batches_tracked")}
    (fresh / "weights").mkdir()
    save_file(weights, fresh / "weights" / f"{perceptual.INCEPTION}.safetensors")
    with pytest.raises(Unavailable, match="has other weights than the published"):
        load_inception()
    monkeypatch.setitem(perceptual.DIGESTS, perceptual.INCEPTION, perceptual.digest(weights))
    network = load_inception("clean-fid")
    assert network.resize == "clean-fid" and network is load_inception("clean-fid")
    assert torch.equal(
        network.state_dict()["Mixed_7c.branch_pool.conv.weight"],
        weights["Mixed_7c.branch_pool.conv.weight"],
    )


def test_torchmetrics_takes_it():
    from torchmetrics.image.kid import KernelInceptionDistance

    torch.manual_seed(0)
    network, dark, light = Inception(), grain(3, 3, 64, 48, high=90), grain(3, 3, 64, 48)
    library = KernelInceptionDistance(feature=network, subset_size=3, subsets=1)
    for photos, real in ((dark, True), (light, False)):
        library.update(photos, real=real)
    sets = (
        [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in photos] for photos in (dark, light)
    )
    ours = kid(*sets, network)
    assert ours.value == pytest.approx(float(library.compute()[0]), rel=1e-2)
    assert "Inception v3 2015-12-05" in ours.protocol and "antialiased bilinear" in ours.protocol


def test_it_is_torch_fidelitys(monkeypatch):
    pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    monkeypatch.setattr(  # its constructor wants weights: for once, let it keep its random ones
        theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None
    )
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *args, **options: {})
    random = theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    monkeypatch.undo()
    network = Inception()
    lost = network.load_state_dict(random.state_dict(), strict=False)
    assert not lost.missing_keys and set(lost.unexpected_keys) == {"fc.weight", "fc.bias"}
    photo = grain(1, 3, 299, 299)  # its own size: nothing to resize
    torch.testing.assert_close(network(photo), random(photo)[0], rtol=1e-4, atol=1e-4)


# --- the figures of torchmetrics' documentation ---


@pytest.fixture(scope="module")
def published():
    """The network, and the made-up photos of both examples: 100 dark ones, 100 light ones."""
    load_inception.cache_clear()
    try:
        network = load_inception()
    except Unavailable as error:
        pytest.skip(str(error))
    torch.manual_seed(42)
    Inception(), nn.Linear(2048, 1008)  # to make the network takes as many throws of the dice
    dark = torch.randint(0, 200, (100, 3, 299, 299), dtype=torch.uint8)
    return network, dark, torch.randint(100, 255, (100, 3, 299, 299), dtype=torch.uint8)


def see(photos: torch.Tensor, look) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([look(several) for several in photos.split(10)])


def test_fid_of_the_first_64_features(published):
    network, *sets = published

    def look(photos: torch.Tensor) -> torch.Tensor:
        x = (resize_antialiased(photos) - 128) / 128
        return network._branch(x, inception._STEM[:4]).mean((2, 3))

    moments = [Moments([see(photos, look)]).gaussian() for photos in sets]
    assert frechet_distance(*moments) == pytest.approx(12.6388, abs=2e-3)


def test_kid_of_2048_features(published):
    from torchmetrics.image.kid import KernelInceptionDistance

    class Rows(nn.Module):
        num_features = 2048

        def forward(self, rows):
            return rows

    network, *sets = published
    library = KernelInceptionDistance(feature=Rows(), subset_size=50)
    state = torch.get_rng_state()
    for photos, real in zip(sets, (True, False), strict=True):
        library.update(see(photos, network), real=real)
    torch.set_rng_state(state)
    mean, deviation = library.compute()
    assert mean.item() == pytest.approx(0.0312, abs=1e-4)
    assert deviation.item() == pytest.approx(0.0025, abs=2e-4)
