"""The paper's table of rates, and exact byte counts for any size."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_photo
from perco_lite.rates import RATES, RatePoint, get_rate, uniform_code_bytes

# reference: name, grid side and index bytes at 512x512, index bytes at 512x768 (PerCo (SD) config)
TABLE = [
    ("0.0019", 8, 64, 96),
    ("0.0024", 8, 80, 120),
    ("0.0059", 16, 192, 288),
    ("0.0098", 16, 320, 480),
    ("0.0313", 32, 1024, 1536),
    ("0.0507", 32, 1664, 2496),
    ("0.0937", 64, 3072, 4608),
    ("0.1250", 64, 4096, 6144),
]


def test_order_and_names_are_the_wire_ids():
    assert [rate.name for rate in RATES] == [row[0] for row in TABLE]
    assert [rate.codebook_size for rate in RATES] == [256, 1024, 64, 1024, 256, 8192, 64, 256]
    bpp = [rate.bits_per_pixel for rate in RATES]
    assert bpp == sorted(bpp)
    assert len(RATES) <= 16  # the id has 4 bits


@pytest.mark.parametrize("name, side, square_bytes, kodak_bytes", TABLE)
def test_matches_the_papers_table(name, side, square_bytes, kodak_bytes):
    rate = get_rate(name)
    assert rate.grid_shape(512, 512) == (side, side)
    assert rate.index_bytes(512, 512) == square_bytes
    assert rate.index_bytes(512, 768) == rate.index_bytes(768, 512) == kodak_bytes
    assert rate.bits_per_pixel == square_bytes * 8 / 512**2  # whole bytes here: nominal = exact
    assert abs(rate.bits_per_pixel - float(name)) < 1e-4  # some names are cut, some rounded


def test_odd_sizes_round_up():
    rate = RatePoint("x", stride=64, codebook_size=256)
    assert rate.grid_shape(height=65, width=128) == (2, 2)
    assert rate.grid_shape(1, 1) == (1, 1)
    assert get_rate("0.0024").index_bytes(1, 1) == 2  # 10 bits
    assert get_rate("0.0024").bits_per_index == 10.0


@settings(derandomize=True, deadline=None)
@given(st.sampled_from(RATES), st.integers(1, 3000), st.integers(1, 3000))
def test_the_grid_is_the_least_that_covers(rate, height, width):
    h, w = rate.grid_shape(height, width)
    for cells, side in ((h, height), (w, width)):
        assert 0 <= cells * rate.stride - side < rate.stride
    assert rate.index_bytes(height, width) == math.ceil(h * w * int(rate.bits_per_index) / 8)


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 300), st.integers(2, 9000))
def test_code_size_is_the_least_that_names_every_grid(count, codebook_size):
    size = uniform_code_bytes(count, codebook_size)
    assert 256**size >= codebook_size**count
    assert size == 0 or 256 ** (size - 1) < codebook_size**count


def test_unknown_rate_lists_the_names():
    with pytest.raises(ValueError, match=r"0\.5.*0\.0019, .*0\.1250"):
        get_rate("0.5")


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_empty_image_is_refused(size):
    with pytest.raises(ValueError, match="at least 1x1"):
        RATES[0].grid_shape(*size)


@pytest.mark.parametrize("stride, codebook_size", [(0, 256), (8, 1)])
def test_senseless_rate_is_refused(stride, codebook_size):
    with pytest.raises(ValueError, match="at least 1 and 2"):
        RatePoint("x", stride, codebook_size)


@pytest.mark.parametrize("number", [0.0313, np.float32(0.0313), np.float64(0.0313)])
def test_a_rate_may_be_a_number(number, tiny_codec):
    assert get_rate(number).name == "0.0313"
    photo = make_photo(20, 10)
    assert tiny_codec.compress(photo, "", number) == tiny_codec.compress(photo, "", "0.0313")
    assert get_rate(0.125).name == "0.1250"
    for wrong in (0.03, float("nan"), True):
        with pytest.raises(ValueError, match="expected one of"):
            get_rate(wrong)


def test_a_seed_may_be_numpys(tiny_codec):
    data = tiny_codec.compress(make_photo(20, 10))
    pictures = [tiny_codec.decompress(data, 1, seed=seed) for seed in (3, np.int64(3))]
    assert pictures[0] == pictures[1]
