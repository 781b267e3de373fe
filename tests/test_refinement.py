"""Closed-loop encoding: by hand on a one-bit quantizer, then on the bundled weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage import data as photos

from perco_lite import PercoCodec
from perco_lite.condition import LocalConditioner, coarse
from perco_lite.refinement import default_rounds, local_error, refine

FINEST = "0.1250"  # one index per latent position


class OneBit:
    """Stands in for a conditioner: every position is 0 or 1, whichever is nearer."""

    def encode(self, latents, rate):
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
