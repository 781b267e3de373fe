"""Tiles: they cover, their weights add up, convolutions cannot tell, seams are not to be seen."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import TINY_AUTOENCODER, build_telling_codec, make_photo
from perco_lite import PercoCodec
from perco_lite.autoencoder import Autoencoder
from perco_lite.coding.bitstream import unpack
from perco_lite.data import image_to_tensor, pad_to_multiple, skimage_photos
from perco_lite.tiling import GRID, Tiling, decode_latents, encode_image
from tests.full_scale.conftest import build

PARTS = Tiling(128, 64, above=0)


def psnr(one, other) -> float:
    error = np.asarray(one).astype(float) - np.asarray(other)
    return float(10 * np.log10(255**2 / max((error**2).mean(), 1e-12)))


@pytest.fixture
def codec():
    return build_telling_codec()


# --- where the tiles lie ---


@st.composite
def cuts(draw):
    tile = draw(st.integers(1, 20))
    shared = draw(st.integers(0, tile // 2))
    reach = draw(st.none() | st.integers(0, max(0, 4 * (tile - 1))))
    return Tiling(tile * GRID, shared * GRID), draw(st.integers(1, 700)), reach


@given(cuts())
@settings(max_examples=300, deadline=None)
def test_tiles_cover_an_axis_and_their_weights_add_up_to_one(cut):
    tiling, length, reach = cut
    spans = tiling.spans(length, reach)
    total = torch.zeros(length * 8)
    for span in spans:
        assert span.start % 8 == 0 and 0 < span.stop - span.start <= tiling.tile_pixels // 8
        weights = span.weights(8)
        assert weights.min() >= 0 and weights.max() <= 1
        total[span.start * 8 : span.stop * 8] += weights
    torch.testing.assert_close(total, torch.ones_like(total))
    least = tiling.overlap // 8 if reach is None else 2 * reach
    for one, other in zip(spans, spans[1:], strict=False):
        assert one.start < other.start and one.stop - other.start >= least
    if reach is not None:  # what a tile contributes is `reach` away from where it was cut
        for span in spans:
            seen = span.weights().nonzero().flatten() + span.start
            assert set(span.weights().tolist()) <= {0.0, 1.0}
            assert span.start == 0 or seen.min() - span.start >= reach
            assert span.stop == length or span.stop - 1 - seen.max() >= reach


@pytest.mark.parametrize(
    "sizes, message",
    [
        ((1000, 256), "multiples of 64; 1024 and 256 are usual"),
        ((256, 192), "overlap is 192, expected at most half of tile_pixels"),
        ((0, 0), "got tile_pixels 0"),
        ((128, -64), "overlap -64"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(codec, sizes, message):
    with pytest.raises(ValueError, match=message):
        codec.enable_tiling(*sizes)


def test_a_tile_too_small_for_what_a_network_sees_is_explained():
    with pytest.raises(ValueError, match="tile_pixels is 128, expected at least 320 .* 104 pixels"):
        PARTS.spans(100, reach=13)


# --- the autoencoder: exact ---


@pytest.mark.parametrize("blocks", [(2, 1, 1, 1), (3, 3, 3, 1), (1, 2, 2, 3)])
def test_the_reach_of_a_decoder_of_four_levels_is_measured(blocks):
    torch.manual_seed(0)
    sizes = {"decoder_widths": (8, 8, 8, 8), "decoder_blocks": blocks}
    autoencoder = Autoencoder(**TINY_AUTOENCODER | sizes)
    latents = torch.randn(1, 4, 40, 40, requires_grad=True)
    autoencoder.decode(latents)[..., 160:168, 160:168].sum().backward()
    seen = latents.grad.abs().sum((0, 1)).nonzero() - 20
    assert -seen.min() == seen.max() == autoencoder.decoder_reach


@pytest.mark.parametrize("blocks", [(2, 3, 3), (1, 1, 2)])
def test_the_reach_of_an_encoder_of_three_levels_is_measured(blocks):
    torch.manual_seed(0)
    sizes = {"encoder_widths": (8, 8, 8), "encoder_blocks": blocks}
    autoencoder = Autoencoder(**TINY_AUTOENCODER | sizes)
    image = torch.randn(1, 3, 320, 320, requires_grad=True)
    autoencoder.encode(image)[..., 20, 20].sum().backward()
    seen = image.grad.abs().sum((0, 1)).nonzero() // 8 - 20
    assert max(-seen.min(), seen.max()) == autoencoder.encoder_reach


@pytest.mark.parametrize("blocks", [(1, 1), (2, 3), (4, 3)])
def test_the_reach_of_the_autoencoder_is_measured(blocks):
    torch.manual_seed(0)
    autoencoder = Autoencoder(**TINY_AUTOENCODER | {"encoder_blocks": blocks})
    image = torch.randn(1, 3, 320, 320, requires_grad=True)
    autoencoder.encode(image)[..., 20, 20].sum().backward()
    seen = image.grad.abs().sum((0, 1)).nonzero() // 8 - 20
    assert -seen.min() == seen.max() == autoencoder.encoder_reach

    autoencoder = Autoencoder(**TINY_AUTOENCODER | {"decoder_blocks": blocks})
    latents = torch.randn(1, 4, 40, 40, requires_grad=True)
    autoencoder.decode(latents)[..., 160:168, 160:168].sum().backward()
    seen = latents.grad.abs().sum((0, 1)).nonzero() - 20
    assert -seen.min() == seen.max() == autoencoder.decoder_reach


def test_autoencoder_in_tiles_is_the_autoencoder():
    torch.manual_seed(0)
    autoencoder = Autoencoder(**TINY_AUTOENCODER).eval()
    image, tiling = torch.randn(2, 3, 328, 264), Tiling(192, 64, above=0)
    calls = []
    autoencoder.encoder.register_forward_pre_hook(lambda m, given: calls.append(given[0].shape))
    with torch.no_grad():
        whole = autoencoder.encode(image)
        torch.testing.assert_close(encode_image(autoencoder, image, tiling), whole)
        decoded = decode_latents(autoencoder, whole, tiling)
        torch.testing.assert_close(decoded, autoencoder.decode(whole))
    assert len(calls) > 4 and max(max(shape[-2:]) for shape in calls[1:]) <= 192


def test_the_files_are_the_same_bytes(codec):
    image = make_photo(700, 450)
    whole = {rate: codec.compress(image, "blobs", rate) for rate in codec.rates}
    assert len(np.unique(unpack(whole["0.1250"]).indices)) > 50
    codec.enable_tiling(320, 64, above=0)
    assert {rate: codec.compress(image, "blobs", rate) for rate in codec.rates} == whole


# --- the U-Net: nearly ---


def test_usual_photos_are_left_whole_and_large_ones_are_not(codec):
    assert not codec.tiling.applies(1024 // 8, 1536 // 8)
    assert codec.tiling.applies(1024 // 8, 1600 // 8)
    sizes = []
    codec.unet.register_forward_pre_hook(lambda m, given: sizes.append(given[0].shape))
    codec.decompress(codec.compress(make_photo(768, 512)), 1)
    assert [tuple(s[-2:]) for s in sizes] == [(32, 48)]  # in patches of 2×2 latents
    codec.disable_tiling()
    assert codec.tiling is None and type(codec).tiling is not None


def test_no_call_sees_more_than_a_tile(codec):
    seen = {"unet": [], "decoder": [], "encoder": []}
    for name in seen:
        module = codec.unet if name == "unet" else getattr(codec.autoencoder, name)
        module.register_forward_pre_hook(lambda m, given, n=name: seen[n].append(given[0].shape))
    codec.enable_tiling(320, 64)
    for size in ((500, 400), (900, 320)):
        codec.decompress(codec.compress(make_photo(*size), rate="0.0313"), 1, guidance_scale=2.0)
    for name, side in (("unet", 20), ("decoder", 40), ("encoder", 320)):
        assert all(max(shape[-2:]) <= side for shape in seen[name]), name
        assert max(shape[0] for shape in seen[name]) == (2 if name == "unet" else 1), name
    assert len(seen["unet"]) >= 8


def test_tiles_that_disagree_fade_into_each_other():
    """Each tile answers with a grey of its own: no step between neighbours is a visible one."""
    tiling, greys = Tiling(256, 128, above=0), iter([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    joined = tiling.map(lambda x: torch.full_like(x, next(greys)), torch.zeros(1, 1, 40, 64))
    assert joined.min() == 0 and joined.max() == 1
    assert joined.diff(dim=-1).abs().max() <= 1 / 8 + 1e-6  # half the overlap is 8 latents
    assert joined.diff(dim=-2).abs().max() <= 1 / 8 + 1e-6


def test_stable_diffusion_is_tiled_as_well(tiny_stable_diffusion):
    """Its VAE sees the whole tile (attention, group normalisation), so that tiles fade."""
    codec = build(tiny_stable_diffusion, ("0.0313",))
    image, seen = make_photo(300, 200, cells=(9, 11)), []
    for module in (codec.unet, codec.autoencoder.encoder, codec.autoencoder.decoder):
        module.register_forward_pre_hook(lambda m, given: seen.append(max(given[0].shape[-2:])))
    codec.enable_tiling(128, 64)
    padded = pad_to_multiple(image_to_tensor(image), 16)
    with torch.no_grad():
        whole = codec.autoencoder.encode(padded)
        seen.clear()
        tiled = encode_image(codec.autoencoder, padded, codec.tiling)
    alike = torch.corrcoef(torch.stack([tiled.flatten(), whole.flatten()]))[0, 1]
    assert 0.8 < alike < 0.9999, "random weights: how near real ones come is not known here"
    decoded = codec.decompress(codec.compress(image, rate="0.0313"), 1)
    assert decoded.size == image.size
    assert max(seen) == 128 and set(seen) == {14, 16, 112, 128} and len(seen) > 30


def seam(tiled: Image.Image, whole: Image.Image, column: int) -> float:
    """How far the difference of two pictures steps at a column, as a share of all columns' mean."""
    difference = np.asarray(tiled).astype(float) - np.asarray(whole)
    steps = np.abs(np.diff(difference, axis=1)).mean((0, 2))
    return steps[column - 1] / steps.mean()


@pytest.mark.parametrize("price, steps", [(None, 2), (0, None)])
def test_the_bundled_weights_paint_nearly_the_same_in_tiles_and_without_seams(price, steps):
    """Whole and tiled agree to 35 dB, where either is 14 dB from the photo."""
    codec = PercoCodec.from_pretrained()
    image = skimage_photos()[3].image.crop((0, 0, 640, 320))
    data = codec.compress(image, rate="0.0019", price=price)
    painted = {}
    for overlap in (None, 0, 128):
        codec.tiling = None if overlap is None else Tiling(320, overlap, above=0)
        painted[overlap] = codec.decompress(data, steps)
    assert 35 < psnr(painted[128], painted[None]) < 100, "the U-Net did see tiles"
    assert abs(psnr(painted[128], image) - psnr(painted[None], image)) < 0.1
    assert seam(painted[0], painted[None], 320) > 3, "no overlap shows"
    for column in (160, 208, 256, 320, 384, 432):
        assert seam(painted[128], painted[None], column) < 1.5
