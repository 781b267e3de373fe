"""Closed-loop encoding: by hand on a one-bit quantizer, then on the bundled weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data as photos

from perco_lite import PercoCodec
from perco_lite.coding import index_prior
from perco_lite.coding.bitstream import unpack
from perco_lite.coding.index_prior import find_prior, grid_contexts
from perco_lite.condition import LocalConditioner, coarse
from perco_lite.rates import get_rate
from perco_lite.refinement import bit_price, code_bits, default_rounds, local_error, refine
from tests.coding.conftest import make_prior

FINEST = "0.1250"  # one index per latent position


class OneBit:
    """Stands in for a conditioner: every position is 0 or 1, whichever is nearer."""

    def encode(self, latents, rate, price=None):
        assert price is None
        return (latents[:, 0] > 0.5).long()

    def decode(self, indices, rate):
        return indices[:, None].float()

    def estimate(self, condition):
        return condition


@pytest.fixture(scope="module")
def codec():
    return PercoCodec.from_pretrained()


def test_equal_greys_become_dots():
    grey = torch.full((1, 1, 16, 16), 0.4)
    assert refine(OneBit(), grey, FINEST, rounds=0).float().mean() == 0  # nearest code: black
    dots = refine(OneBit(), grey, FINEST, rounds=1)[0]
    # by hand: 0.4 is missing, 0.4 + 0.4 rounds to 1, on the checkerboard's first colour; the
    # squared error of pixels rises by 0.10, that of local means falls by 4 x 0.15
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 == 0
    assert torch.equal(dots.bool(), board)
    assert torch.equal(refine(OneBit(), grey, FINEST, rounds=3)[0], dots)  # nothing better is left
    quarters = refine(OneBit(), torch.full((1, 1, 16, 16), 0.3), FINEST, rounds=4)[0]
    assert quarters.float().mean() == 0.25


def test_what_is_right_stays():
    image = (torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    assert torch.equal(refine(OneBit(), image, FINEST, rounds=3), image[:, 0].long())


@pytest.mark.parametrize("rate", ["0.0019", "0.0098", "0.0313", "0.1250"])
def test_estimate_comes_closer_on_a_photo(codec, rate):
    photo = torch.from_numpy(photos.astronaut()).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        latents = codec.autoencoder.encode(photo[..., :256, :256])
        plain = codec.conditioner.encode(latents, rate)
        assert torch.equal(refine(codec.conditioner, latents, rate, 0), plain)
        refined = refine(codec.conditioner, latents, rate, default_rounds(rate))
        assert refined.shape == plain.shape and refined.dtype == plain.dtype
        errors = [latents - codec.conditioner.decode(i, rate)[:, :4] for i in (plain, refined)]
    before, after = (local_error(e, plain.shape[-2:]).mean() for e in errors)
    assert after < before
    before, after = (coarse(e, 4).pow(2).mean() for e in errors)
    assert after < before, "colours over 32 pixels must come closer"


@given(seed=st.integers(0, 2**32 - 1), rounds=st.integers(1, 6))
def test_never_gets_worse(seed, rounds):
    image = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    plain, refined = (refine(OneBit(), image, FINEST, r) for r in (0, rounds))
    before, after = (local_error(image - i[:, None], (8, 8)).mean((1, 2)) for i in (plain, refined))
    assert (after <= before + 1e-6).all()


def test_is_repeatable_and_independent_of_the_batch(codec):
    photo = torch.from_numpy(photos.chelsea()[:128, :256]).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        latents = codec.autoencoder.encode(torch.cat([photo, photo.flip(-1)]))
        both = refine(codec.conditioner, latents, "0.0098", 4)
        assert torch.equal(refine(codec.conditioner, latents, "0.0098", 4), both)
        assert torch.equal(refine(codec.conditioner, latents[:1], "0.0098", 4), both[:1])


def test_smallest_photo(codec):
    latents = torch.zeros(1, 4, 1, 1)
    assert refine(codec.conditioner, latents, FINEST, 2).shape == (1, 1, 1)


def test_nearest_upsampling_has_no_loop_to_close():
    plain = LocalConditioner(rates=(FINEST,), width=8, features=8, decoder_width=0).eval()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(refine(plain, latents, FINEST, 4), plain.encode(latents, FINEST))


def test_negative_rounds():
    with pytest.raises(ValueError, match="got -1 rounds, expected 0"):
        refine(OneBit(), torch.zeros(1, 1, 8, 8), FINEST, -1)


def test_default_rounds():
    assert [default_rounds(r) for r in ("0.0019", "0.0098", "0.0313", "0.1250")] == [4, 4, 4, 2]


def test_bits_are_what_the_coder_spends():
    prior = make_prior(size=7, width=5, seed=3, scale=200)
    grid = np.random.default_rng(0).integers(0, 7, (4, 6))
    bits = code_bits(prior, grid_contexts(grid, 7))
    assert torch.allclose(bits.double().exp2().reciprocal().sum(1), torch.ones(24).double())
    spent = [math.log2(total / size) for _, size, total in prior.walk(grid)]
    ours = bits[torch.arange(24), torch.from_numpy(grid.reshape(-1))]
    assert np.allclose(ours, spent, atol=0.1)  # the coder's logits are in 1/32


@pytest.mark.parametrize("rate", ["0.0019", "0.0098", "0.0313", "0.1250"])
def test_a_price_saves_bits_and_a_higher_one_more(codec, rate):
    photo = Image.fromarray(photos.astronaut())
    sizes = [len(codec.compress(photo, "", rate, price=price)) for price in (0, None, 0.1)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[1] > 0.8 * sizes[0], "a usual price takes a tenth, not the picture"


def test_nearest_codes_cost_nothing_whatever_the_price(codec):
    photo = Image.fromarray(photos.chelsea()[:128, :192])
    plain = codec.compress(photo, "", FINEST, rounds=0)
    assert codec.compress(photo, "", FINEST, rounds=0, price=0.3) == plain
    assert unpack(codec.compress(photo, "", FINEST, price=0.3)).indices.shape == (16, 24)


def test_of_two_codes_as_near_the_cheaper_one_is_sent(codec):
    rate = get_rate(FINEST)
    prior, quantizer = make_prior(256, 2, scale=0), codec.conditioner.branch(FINEST).quantizer
    prior.out_bias[:] = -4 * 256
    prior.out_bias[9] = 0  # four bits cheaper than any other
    latents = torch.randn(1, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    plain = codec.conditioner.encode(latents, FINEST)
    with torch.no_grad():
        vectors = quantizer._vectors(codec.conditioner.branch(FINEST).hyper_encoder(latents))
    similarity = vectors @ quantizer.codebook.float().T
    lost = similarity.amax(-1) - similarity[..., 9]
    weight = float(lost.median()) / 4
    chosen = codec.conditioner.encode(latents, FINEST, bit_price(prior, rate, weight))
    assert torch.equal(chosen, torch.where(lost < 4 * weight, 9, plain))


def test_no_prior_and_no_weight_are_no_price():
    rate, prior = get_rate(FINEST), make_prior(256, 2)
    assert bit_price(None, rate) is None and bit_price(prior, rate, 0) is None
    assert bit_price(prior, rate) is not None
    assert find_prior(0, FINEST) is None
    for weight in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="for a bit, expected 0"):
            bit_price(prior, rate, weight)


def test_a_grid_too_large_for_the_prior_pays_no_price(codec, monkeypatch):
    photo = Image.fromarray(photos.chelsea()[:128, :192])  # 384 indices
    free, priced = (codec.encode(photo, FINEST, price=price) for price in (0, 0.3))
    assert not torch.equal(free, priced)
    monkeypatch.setattr(index_prior, "MAX_PRIOR_INDICES", 383)
    assert torch.equal(codec.encode(photo, FINEST, price=0.3), free)
