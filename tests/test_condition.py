"""Local condition: grids and shapes of every rate, both directions, gradient, fingerprint."""

import pytest
import torch

from perco_lite.codec import PercoCodec
from perco_lite.condition import (
    Condition,
    ConditionDecoder,
    LocalConditioner,
    coarse_loss,
    regression_loss,
)
from perco_lite.rates import get_rate

# (rows, columns) of the index grid of a photo 768 wide and 512 high: 512/stride by 768/stride
GRIDS = {"0.0019": (8, 12), "0.0024": (8, 12), "0.0059": (16, 24), "0.0098": (16, 24)}
GRIDS |= {"0.0313": (32, 48), "0.0507": (32, 48), "0.0937": (64, 96), "0.1250": (64, 96)}
LITE = ("0.0019", "0.0098", "0.0313", "0.1250")


def tiny(**settings) -> LocalConditioner:
    torch.manual_seed(0)
    sizes = {"width": 8, "features": 16, "decoder_width": 8, "extra_channels": 4}
    return LocalConditioner(**{**sizes, **settings})


def latents(count=1, height=64, width=96):
    return torch.randn(count, 4, height, width, generator=torch.Generator().manual_seed(1))


def test_shapes_of_all_eight_rates_for_a_kodak_photo():
    conditioner = tiny(rates=tuple(GRIDS)).eval()
    assert conditioner.channels == 8
    for name, grid in GRIDS.items():
        indices = conditioner.encode(latents(), name)
        assert indices.shape == (1, *grid) == (1, *get_rate(name).grid_shape(512, 768)), name
        assert indices.dtype == torch.int64
        assert 0 <= indices.min() <= indices.max() < get_rate(name).codebook_size
        assert conditioner.decode(indices, name).shape == (1, 8, 64, 96), name
        condition = conditioner(latents(), name)
        assert condition.channels.shape == (1, 8, 64, 96)
        assert condition.estimate.shape == (1, 4, 64, 96)
        assert torch.equal(condition.estimate, condition.channels[:, :4])


@pytest.mark.parametrize("rate", LITE)
def test_the_decoder_repeats_what_training_saw(rate):
    conditioner = tiny().eval()
    conditioner.branch(rate).quantizer.codebook.mul_(-1)  # not what it was built with
    condition = conditioner(latents(2, 16, 24), rate)
    indices = conditioner.encode(latents(2, 16, 24), rate)
    assert torch.equal(indices, condition.indices)
    assert torch.equal(conditioner.decode(indices, rate), condition.channels)


@pytest.mark.parametrize("rate", LITE)
def test_gradient_passes_straight_through_to_the_hyper_encoder(rate):
    conditioner = tiny().train()
    target = latents(2, 16, 16)
    regression_loss(conditioner(target, rate), target).backward()
    branch = conditioner.branch(rate)
    for name, parameter in branch.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert branch.hyper_encoder.layers[0].weight.grad.abs().sum() > 0
    assert branch.quantizer.project_in.weight.grad.abs().sum() > 0
    for other in set(LITE) - {rate}:
        assert all(p.grad is None for p in conditioner.branch(other).parameters())


def test_regression_loss_is_the_error_of_the_first_four_channels():
    conditioner = tiny().eval()
    target = latents(1, 8, 8)
    condition = conditioner(target, "0.0019")
    expected = (condition.channels[:, :4] - target).square().mean()
    torch.testing.assert_close(regression_loss(condition, target), expected)
    condition.channels[:, 4:] += 100  # the extra channels are free
    torch.testing.assert_close(regression_loss(condition, target), expected)


def test_coarse_loss_sees_means_only():
    """An error of alternating sign is invisible to it, a constant one is not."""
    target = latents(1, 8, 16)
    pattern = torch.ones(8, 16)
    pattern[::2] = -1
    for error, expected in ((pattern, 0.0), (torch.full((8, 16), 0.5), 0.25)):
        condition = Condition(torch.zeros(1, 7, 8, 16), None, target + error)
        torch.testing.assert_close(coarse_loss(condition, target), torch.tensor(expected))


@pytest.mark.parametrize("rate", ["0.0024", "2", "", "rate_0_0019"])
def test_a_rate_that_is_not_served_is_explained(rate):
    conditioner = tiny()
    calls = [
        lambda: conditioner.encode(latents(), rate),
        lambda: conditioner.decode(torch.zeros(1, 8, 12, dtype=torch.int64), rate),
        lambda: conditioner(latents(), rate),
    ]
    for call in calls:
        with pytest.raises(ValueError) as error:
            call()
        assert repr(rate) in str(error.value) and ", ".join(LITE) in str(error.value)


def test_one_index_reaches_its_own_place():
    """Position and orientation survive: changing one index changes the channels around it."""
    conditioner = tiny().eval()
    indices = torch.zeros(1, 8, 12, dtype=torch.int64)
    changed = indices.clone()
    changed[0, 2, 9] = 7
    with torch.no_grad():
        difference = conditioner.decode(changed, "0.0019") - conditioner.decode(indices, "0.0019")
    energy = difference.square().sum((0, 1))
    cells = energy.view(8, 8, 12, 8).sum((1, 3))  # one for each index
    assert divmod(int(cells.argmax()), 12) == (2, 9)
    assert 0 < cells.max() > 1e6 * cells[:, :5].max()  # far away nothing moves


@pytest.mark.parametrize("stride", [8, 16, 32, 64])
def test_condition_decoder_doubles_up_to_the_latents(stride):
    torch.manual_seed(0)
    decoder = ConditionDecoder(stride, in_channels=6, width=8, out_channels=5)
    assert decoder(torch.randn(2, 6, 3, 1)).shape == (2, 5, 3 * stride // 8, stride // 8)


# --- fingerprint: what an index means ---


def test_fingerprint_survives_saving_in_float32_and_float16(tmp_path):
    conditioner = tiny()
    expected = conditioner.fingerprint()
    assert 0 <= expected < 2**16
    conditioner.save_pretrained(tmp_path / "full")
    conditioner.half().save_pretrained(tmp_path / "half")
    for folder in ("full", "half"):
        loaded = LocalConditioner.from_pretrained(tmp_path / folder, torch_dtype=torch.float32)
        assert loaded.fingerprint() == expected, folder


def test_fingerprint_is_that_of_the_codebooks():
    conditioner = tiny()
    expected = conditioner.fingerprint()
    with torch.no_grad():
        for parameter in conditioner.parameters():
            parameter.add_(0.1)
    assert conditioner.fingerprint() == expected  # other weights may be trained further
    for rate in LITE:
        codebook = conditioner.branch(rate).quantizer.codebook
        codebook[[0, 1]] = codebook[[1, 0]]  # same codes, other meaning
        assert conditioner.fingerprint() != expected
        codebook[[0, 1]] = codebook[[1, 0]]
    assert conditioner.fingerprint() == expected


def test_fingerprint_differs_with_the_rates_served():
    one, other = tiny(rates=("0.0024",)), tiny(rates=("0.0098",))
    other.branch("0.0098").quantizer.codebook.copy_(one.branch("0.0024").quantizer.codebook)
    assert one.fingerprint() != other.fingerprint()  # the same codes on another grid


def test_a_smaller_type_does_not_blur_what_an_index_means(tiny_weights):
    codec = PercoCodec.from_pretrained(tiny_weights)
    expected = codec.model_id
    codes = codec.conditioner.branch("0.0098").quantizer.codebook.clone()
    assert len(set(codes.bfloat16().flatten().tolist())) < len(set(codes.half().flatten().tolist()))
    codec.conditioner.to(torch.bfloat16)
    assert codec.model_id == codec.conditioner.fingerprint() == expected
    assert torch.equal(codec.conditioner.branch("0.0098").quantizer.codebook, codes.half())
    blurred = PercoCodec.from_pretrained(tiny_weights, torch_dtype=torch.bfloat16)
    assert blurred.conditioner.dtype == torch.bfloat16 and blurred.model_id == expected


def test_the_error_of_the_estimate_is_tracked_saved_and_told_by_rate(tmp_path):
    conditioner = LocalConditioner(("0.0019", "0.1250"), width=8, features=8, residual=True)
    conditioner.train()
    for _ in range(500):
        conditioner.track_error("0.1250", torch.tensor(0.05))
    conditioner.eval().track_error("0.1250", torch.tensor(9.0))
    conditioner.save_pretrained(tmp_path)
    loaded = LocalConditioner.from_pretrained(tmp_path)
    condition = torch.randn(3, loaded.channels, 2, 2)
    estimate, variance = loaded.prior(condition, ["0.1250", "0.0019", "0.1250"])
    torch.testing.assert_close(variance, torch.tensor([0.05, 0.3, 0.05]), atol=0.01, rtol=0)
    assert (estimate == condition[:, :4]).all()


@pytest.mark.parametrize("options", [{}, {"residual": True, "decoder_width": 0}])
def test_without_an_estimate_or_its_error_there_is_no_prior(options):
    conditioner = LocalConditioner(("0.0019",), width=8, features=8, **options)
    conditioner.train().track_error("0.0019", torch.tensor(0.1))
    assert conditioner.prior(torch.randn(1, conditioner.channels, 2, 2), ["0.0019"])[1] is None
