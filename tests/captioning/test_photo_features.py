"""The frozen network: padded as published, its batch norms folded, its rounding bounded."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from conftest import make_photo
from perco_lite.captioning.photo_features import (
    PhotoFeatures,
    dequantize,
    fold_batch_norm,
    quantize,
    squash,
)


def test_whole_photos_of_any_size():
    images = squash([make_photo(300, 20), make_photo(50, 224).convert("L")])
    assert images.shape == (2, 3, 224, 224) and images.abs().max() <= 1
    white = squash([Image.new("RGB", (5, 5), "white")])
    assert (white == 1).all() and (squash([Image.new("RGB", (9, 3))]) == -1).all()


def test_features_are_49_places_between_0_and_6(captioner):
    features = captioner.eyes(squash([make_photo(), make_photo(seed=1)]))
    assert features.shape == (2, 49, 1280)
    assert features.min() >= 0 and features.max() <= 6 and features.std() > 0
    assert not captioner.eyes.train().training and not features.requires_grad
    with pytest.raises(ValueError, match=r"expected \(B,3,224,224\): use squash"):
        captioner.eyes(torch.zeros(1, 3, 64, 64))


def test_places_are_row_by_row(captioner):
    image = torch.zeros(1, 3, 224, 224)
    image[..., :32, 192:] = 1  # the last place of the first row
    changed = (captioner.eyes(image) - captioner.eyes(torch.zeros(1, 3, 224, 224))).abs().sum(-1)[0]
    assert changed.view(7, 7)[0, 6] > changed.view(7, 7)[6, 0]


def published(eyes: PhotoFeatures) -> dict:
    """Weights under the published file's names, their batch norms not yet folded."""
    weights, generator = {}, torch.Generator().manual_seed(0)
    names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    inside = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
    for name, convolution in eyes.named_modules():
        if not isinstance(convolution, torch.nn.Conv2d):
            continue
        if name in names:
            theirs, norm = names[name]
        else:
            _, number, part = name.split(".")
            theirs = f"_blocks.{number}._{part}_conv"
            norm = f"_blocks.{number}.{inside[part]}"
        weights[f"{theirs}.weight"] = convolution.weight
        out = len(convolution.weight)
        for part in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{part}"] = torch.rand(out, generator=generator) + 0.5
    return weights


def test_folding_leaves_a_block_as_it_was(captioner):
    weights = published(captioner.eyes)
    folded = fold_batch_norm(weights)
    eyes = PhotoFeatures()
    eyes.load_state_dict(folded)
    x = torch.randn(1, 32, 14, 14)

    def step(x, convolution, norm, **more):
        x = F.conv2d(x, weights[f"{convolution}.weight"], **more)
        parts = (weights[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-3)

    wide = F.relu6(step(x, "_blocks.0._depthwise_conv", "_blocks.0._bn1", groups=32, padding=1))
    expected = step(wide, "_blocks.0._project_conv", "_blocks.0._bn2")
    assert torch.allclose(eyes.blocks[0](x), expected, atol=1e-4)
    with pytest.raises(ValueError, match="_bn1.running_var.* expected EfficientNet-lite0's"):
        del weights["_bn1.running_var"]
        fold_batch_norm(weights)


def test_an_odd_pixel_more_is_padded_behind():
    """TensorFlow's SAME: with stride 2, kernel 3 sees from pixel 0 on, kernel 5 from 1 before."""
    eyes = PhotoFeatures()
    assert eyes.stem.around == (0, 1, 0, 1)
    assert eyes.blocks[3].depthwise.around == (1, 2, 1, 2)
    assert eyes.blocks[4].depthwise.around == (2, 2, 2, 2)


def test_rounding_is_at_most_half_a_step_and_happens_once(captioner):
    weights = captioner.eyes.state_dict()
    packed = quantize(weights)
    once = dequantize(packed)
    assert set(once) == set(weights)
    for name, value in weights.items():
        if name.endswith("weight"):
            half = value.abs().amax((1, 2, 3)) / 127 / 2 * 1.001
            assert ((once[name] - value).abs().amax((1, 2, 3)) <= half).all()
        else:
            assert torch.equal(once[name], value)
    again = quantize(once)
    whole = [name for name in packed if packed[name].dtype == torch.int8]
    assert len(whole) == 49 and all(torch.equal(packed[n], again[n]) for n in whole)
