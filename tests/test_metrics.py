"""Metrics against values worked out by hand on tiny photos."""

import math
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchmetrics
from PIL import Image

from perco_lite import data, metrics, perceptual


def flat(value, size=(64, 64)) -> Image.Image:
    """A photo (width, height) of one grey or RGB value."""
    return Image.new("RGB", size, value if isinstance(value, tuple) else (value,) * 3)


def noise(size=(176, 176), seed=0) -> Image.Image:
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


@pytest.fixture
def fresh_lpips():
    """Forget what was loaded before and after, since loading depends on the environment."""
    metrics.load_lpips.cache_clear()
    yield
    metrics.load_lpips.cache_clear()


def test_bits_per_pixel_counts_the_whole_file():
    assert metrics.bits_per_pixel(b"x" * 96, 768, 512) == 96 * 8 / (768 * 512)
    with pytest.raises(ValueError, match="0x1"):
        metrics.bits_per_pixel(b"", 0, 1)


def test_psnr_by_hand():
    assert metrics.psnr(flat(10), flat(10)) == math.inf
    assert metrics.psnr(flat(0), flat(255)) == 0
    # 1 off everywhere: 10 log10(255^2) = 48.13 dB.
    assert metrics.psnr(flat(10), flat(11)) == pytest.approx(48.1308, abs=1e-4)
    # One channel of three off by 3: mean square 9 / 3 = 3, so 4.77 dB less.
    expected = pytest.approx(48.1308 - 10 * math.log10(3), abs=1e-4)
    assert metrics.psnr(flat((10, 10, 10)), flat((10, 13, 10))) == expected


def test_psnr_does_not_wrap_around():
    assert metrics.psnr(flat(200), flat(100)) == metrics.psnr(flat(100), flat(200))


def test_ms_ssim_of_equal_and_noisy_photos():
    photo = noise()
    score = metrics.ms_ssim(photo, photo)
    assert score == pytest.approx(1, abs=1e-5)
    assert "torchmetrics" in metrics.PROTOCOLS["ms_ssim"]
    array = np.asarray(photo).astype(int)
    near, far = (
        Image.fromarray((array + step * (-1) ** array).clip(0, 255).astype(np.uint8))
        for step in (4, 32)
    )
    assert 1 > metrics.ms_ssim(photo, near) > metrics.ms_ssim(photo, far) > 0


def test_ms_ssim_of_flat_photos_by_hand():
    # Without any variance only the luminance of the last scale is left, to the power 0.1333.
    a, b, c1 = 100 / 255, 150 / 255, 0.01**2
    luminance = (2 * a * b + c1) / (a * a + b * b + c1)
    value = metrics.ms_ssim(flat(100, (176, 176)), flat(150, (176, 176)))
    assert value == pytest.approx(luminance**0.1333, abs=5e-4)  # float32 variances


def test_ms_ssim_needs_176_pixels():
    assert metrics.ms_ssim(noise((175, 300)), noise((175, 300))) is None
    assert metrics.ms_ssim(noise((176, 300)), noise((176, 300))) is not None


def test_flat_colour_error_by_hand():
    original = Image.new("RGB", (96, 64), (100, 100, 100))
    original.paste(noise((32, 32)), (64, 0))  # not flat: one block of six
    drifted = original.copy()
    drifted.paste((106, 100, 97), (0, 0, 32, 32))  # off by 6, 0, 3: a mean of 3 in one of five
    drifted.paste((0, 0, 0), (64, 0, 96, 32))  # nobody looks where it is not flat
    assert metrics.flat_colour_error(original, drifted) == pytest.approx(3 / 5)


def test_flat_colour_error_wants_every_channel_flat():
    array = np.full((32, 32, 3), 100, np.uint8)
    array[::2, :, 2] = 120
    photo = Image.fromarray(array)
    assert metrics.flat_colour_error(photo, photo) is None
    assert metrics.flat_colour_error(flat(1, (31, 31)), flat(1, (31, 31))) is None


def test_flat_colour_error_ignores_grain_and_the_rest_of_the_grid():
    original = flat(100, (40, 33))
    grainy = np.full((33, 40, 3), 99, np.uint8)
    grainy[:, ::2] = 101
    grainy[32:, :] = 0
    grainy[:, 32:] = 0
    assert metrics.flat_colour_error(original, Image.fromarray(grainy)) == 0


@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ms_ssim, metrics.flat_colour_error])
def test_photos_must_match(metric):
    with pytest.raises(ValueError, match="64x64 and 64x32"):
        metric(flat(0), flat(0, (64, 32)))
    with pytest.raises(ValueError, match="mode L"):
        metric(flat(0).convert("L"), flat(0))


def test_an_unknown_net_is_no_missing_one(fresh_lpips):
    with pytest.raises(ValueError, match="alex, squeeze, vgg"):
        metrics.load_lpips("resnet")


def test_lpips_missing_weights_are_a_reason(fresh_lpips, monkeypatch, tmp_path):
    def offline(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.delenv("PERCO_LITE_DOWNLOAD", raising=False)
    with pytest.raises(metrics.Unavailable, match="alexnet.*perco download metrics"):
        metrics.load_lpips()
    metrics.load_lpips.cache_clear()
    monkeypatch.setenv("PERCO_LITE_DOWNLOAD", "1")
    with pytest.raises(metrics.Unavailable, match="no network"):
        metrics.load_lpips()


def test_a_distance_of_features_looks_at_each_original_once(monkeypatch):
    looks = []

    def see(photo):
        looks.append(photo)
        return [torch.from_numpy(np.array(photo, np.float32))]

    def distance():
        return metrics.distance_of_features(
            see, lambda a, b: (a[0] - b[0]).abs().mean(), 32, "stand-in"
        )

    measure, white, other = distance(), flat(255, (48, 32)), flat(200, (48, 32))
    blacks = [flat(0, (48, 32)) for _ in range(3)]
    assert [measure(white, black) for black in blacks] == [255.0] * 3
    assert len(looks) == 4 and looks[0] is white and measure.protocol == "stand-in"
    assert measure(other, blacks[0]) == 200.0 and measure(white, blacks[0]) == 255.0
    assert measure(flat(0, (31, 48)), flat(0, (31, 48))) is None
    monkeypatch.setattr(metrics, "KEPT_PIXELS", 100)
    measure = distance()
    looks.clear()
    measure(white, blacks[0]), measure(white, blacks[1])
    assert len(looks) == 4, "a large photo's features are not kept"
    with pytest.raises(ValueError, match="photos of 48x32 and 64x64"):
        measure(white, flat(0))


def test_lpips_by_hand_on_a_random_backbone_in_the_real_format(fresh_lpips, monkeypatch, tmp_path):
    """SqueezeNet's weights in torch.hub's cache; the sum over layers worked out here."""
    torch.manual_seed(0)
    backbone = perceptual.build_backbone("squeeze").eval()
    (tmp_path / "checkpoints").mkdir()
    saved = {f"features.{name}": tensor for name, tensor in backbone.state_dict().items()}
    monkeypatch.setitem(perceptual.DIGESTS, "squeezenet1_1_features", perceptual.digest(saved))
    saved["classifier.1.weight"] = torch.zeros(1000, 512, 1, 1)  # torchvision's files have it too
    torch.save(saved, tmp_path / "checkpoints" / perceptual.LPIPS_BACKBONES["squeeze"])
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    distance = metrics.load_lpips("squeeze")
    heads = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/squeeze.pth"
    heads = torch.load(heads, weights_only=True, map_location="cpu")
    a, b = noise((64, 48)), noise((64, 48), seed=1)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    x, y = (
        ((torch.from_numpy(np.array(image)) / 127.5 - 1 - shift) / scale).permute(2, 0, 1)[None]
        for image in (a, b)
    )
    total, taps = 0.0, [1, 4, 7, 9, 10, 11, 12]  # after the first ReLU and the fire modules
    with torch.no_grad():
        for number, layer in enumerate(backbone):
            x, y = layer(x), layer(y)
            if number in taps:
                unit = [z / z.square().sum(1, keepdim=True).sqrt() for z in (x, y)]
                head = heads[f"lin{taps.index(number)}.model.1.weight"]
                total += float(((unit[0] - unit[1]).square() * head).sum(1).mean())
    score = distance(a, b)
    assert total > 0 and score == pytest.approx(total, rel=1e-3)
    assert "squeeze" in distance.protocol


def test_lpips_looks_for_the_files_that_torchvision_saves():
    try:
        from torchvision import models
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchvision does not load here: {error}")
    weights = {"alex": models.AlexNet_Weights, "squeeze": models.SqueezeNet1_1_Weights}
    weights |= {"vgg": models.VGG16_Weights}
    for net, file in perceptual.LPIPS_BACKBONES.items():
        assert weights[net].IMAGENET1K_V1.url.endswith("/" + file)
