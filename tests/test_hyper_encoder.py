"""Parameter counts of the paper, the grid each stride must give, receptive field, gradients."""

import math

import pytest
import torch
from torch import nn

from perco_lite.hyper_encoder import AttentionBlock, HyperEncoder

STRIDES = (8, 16, 32, 64)


def tiny(stride: int) -> HyperEncoder:
    torch.manual_seed(0)
    return HyperEncoder(stride, width=16, out_channels=12)


@pytest.mark.parametrize(
    ("stride", "count"), [(8, 4_080_128), (16, 4_964_864), (32, 5_849_600), (64, 5_868_032)]
)
def test_parameter_count_is_the_papers(stride, count):
    with torch.device("meta"):  # counting needs no memory
        encoder = HyperEncoder(stride)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == count


@pytest.mark.parametrize("stride", STRIDES)
def test_odd_sizes_round_up(stride):
    encoder = tiny(stride)
    for height, width in [(1, 1), (13, 9), (17, 30)]:
        grid = tuple(math.ceil(side * 8 / stride) for side in (height, width))
        assert encoder(torch.randn(1, 4, height, width)).shape[2:] == grid


@pytest.mark.parametrize("stride", STRIDES)
def test_gradient_reaches_every_parameter_and_the_latents(stride):
    encoder = tiny(stride)
    latents = torch.randn(2, 4, 32, 32, requires_grad=True)
    encoder(latents).square().sum().backward()
    assert (latents.grad != 0).all()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("stride", "side"), [(8, 31), (16, 47), (32, 91), (64, 185)])
def test_receptive_field(stride, side):
    """Nine bottlenecks and two gates of three see 31 latents; each halving widens what follows it.

    With step j in latents where a layer stands, a 3x3 adds 2j and a 5x5 adds 4j. Stride 64:
    1 + 4 + 3*2*2 + 4*2 + (3+3)*2*4 + 4*4 + (3+3)*2*8 = 185.
    """
    encoder = tiny(stride)
    with torch.no_grad():  # positive weights, so that no ReLU hides a path
        for parameter in encoder.parameters():
            parameter.abs_().mul_(0.1)
    latents = torch.rand(1, 4, 4 * stride, 4 * stride, dtype=torch.float64, requires_grad=True)
    features = encoder.double()(latents)
    centre = features.shape[-1] // 2
    features[..., centre, centre].sum().backward()
    seen = latents.grad.abs().sum(dim=(0, 1)) > 0
    assert seen.any(dim=0).sum() == seen.any(dim=1).sum() == side


def test_attention_block_adds_a_gated_trunk():
    torch.manual_seed(0)
    block = AttentionBlock(16)
    features = torch.randn(1, 16, 5, 5)
    gate = block.gate[-1]
    with torch.no_grad():
        added = block(features) - features
        assert added.min() >= -1e-6 and added.max() > 0  # the trunk ends with a ReLU
        gate.bias.fill_(-1e4)
        assert torch.equal(block(features), features)  # shut
        gate.bias.fill_(1e4)
        torch.testing.assert_close(block(features), features + block.trunk(features))  # open


def test_a_relu_follows_every_sum_in_the_gates_and_none_in_the_bottlenecks_between():
    relus = sum(isinstance(module, nn.ReLU) for module in tiny(8).modules())
    assert relus == 9 * 2 + 2 * (3 + 3) * 3


@pytest.mark.parametrize("stride", [8, 64])
def test_runs_under_autocast_and_channels_last(stride):
    encoder = tiny(stride)
    latents = torch.randn(2, 4, 20, 12)
    expected = encoder(latents)
    moved = encoder.to(memory_format=torch.channels_last)
    torch.testing.assert_close(moved(latents.to(memory_format=torch.channels_last)), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder(latents)
    assert features.dtype == torch.bfloat16
    torch.testing.assert_close(features.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("stride", [0, 4, 24, 128])
def test_bad_stride_is_explained(stride):
    with pytest.raises(ValueError, match=rf"stride is {stride}, expected one of \[8, 16, 32, 64\]"):
        HyperEncoder(stride)


def test_bad_width_is_explained():
    with pytest.raises(ValueError, match="width is 1 .* expected at least 2"):
        HyperEncoder(8, width=1)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (4, 8, 8)])
def test_wrong_latents_are_explained(shape):
    with pytest.raises(ValueError, match=r"latents have shape .* expected \(B, 4, .* set in_chan"):
        tiny(8)(torch.randn(shape))
