"""Any grid there and back through any weights, sizes by hand, and no float anywhere."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perco_lite.coding import index_prior
from perco_lite.coding.index_prior import IndexPrior, grid_contexts
from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder
from tests.coding.conftest import encode, make_prior

fixed = settings(derandomize=True, deadline=None, max_examples=40)


@fixed
@given(
    st.integers(2, 40), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99),
    st.sampled_from([0, 300, 0x7FFF]),
)  # fmt: skip
def test_any_grid_through_any_weights_round_trips(size, height, width, seed, scale):
    prior = make_prior(size, 4, seed, scale)
    grid = np.random.default_rng(seed).integers(0, size, (height, width))
    data, again = encode(prior, grid), RangeEncoder()
    back = prior.decode(RangeDecoder(data), grid.shape, again)
    assert back.dtype == np.int64 and np.array_equal(back, grid) and again.finish() == data


def test_sizes_by_hand():
    prior = make_prior(size=3, width=1, scale=0)
    grid = np.array([[0, 1, 2]])
    one = (1 << 18) + 1
    assert list(prior.walk(grid)) == [(i * one, one, 3 * one) for i in range(3)], "uniform"
    # hidden units of 2 + max(2·1/2 - 1/4, 0) = 2.75; code 1 at log2 of 2.75 · 2 = 5.5 above others
    prior.bands[:] = 2 * 256
    prior.hidden[:], prior.hidden_bias[:] = 128, -64
    prior.out[0, 1] = 2 * 256
    low = index_prior._powers()[int(5.5 * 32)] + 1
    assert low == int(2**12.5) + 1
    total = one + 2 * low
    assert list(prior.walk(grid)) == [(0, low, total), (low, one, total), (low + one, low, total)]


def test_the_largest_codebook_fits_the_coder():
    prior, grid = make_prior(size=8192, width=1, scale=0), np.array([[8191, 0]])
    data = encode(prior, grid)  # all codes alike, which is the largest total
    assert np.array_equal(prior.decode(RangeDecoder(data), (1, 2)), grid) and len(data) <= 4


def test_powers_are_exact():
    powers = index_prior._powers().tolist()
    assert powers[0] == 1 << 18 and powers[32] == 1 << 17 and powers[576] == 1 and powers[-1] == 0
    for i, power in enumerate(powers[:-1]):
        assert power**32 <= 2 ** (576 - i) < (power + 1) ** 32


def test_contexts_by_hand():
    grid = np.arange(6).reshape(2, 3)
    o = 9  # outside
    #      left up  up-left up-right 2 left 2 up, band
    assert grid_contexts(grid, 9).tolist() == [
        [o, o, o, o, o, o, 0],
        [0, o, o, o, o, o, 0],
        [1, o, o, o, 0, o, 0],
        [o, 0, o, 1, o, o, 4],
        [3, 1, 0, 2, o, o, 4],
        [4, 2, 1, o, 3, o, 4],
    ]


def test_what_is_expected_costs_less():
    prior = make_prior(size=4, width=4, scale=0)
    for code in range(4):  # expects the code on the left again
        prior.tables[0, code, code] = 256
        prior.out[code, code] = 5 * 256
    steady = np.repeat(np.arange(4), 40).reshape(4, 40)
    noisy = np.random.default_rng(0).integers(0, 4, (4, 40))
    assert len(encode(prior, steady)) < 40 // 4 < 40 < len(encode(prior, noisy))


@fixed
@given(st.binary(max_size=30), st.integers(0, 9))
def test_any_bytes_are_a_grid_or_value_error(data, seed):
    prior, again = make_prior(seed=seed), RangeEncoder()
    try:
        grid = prior.decode(RangeDecoder(data), (3, 4), again)
    except ValueError as error:
        assert "damaged" in str(error)
    else:
        assert grid.min() >= 0 and grid.max() < 5
        assert encode(prior, grid) == again.finish()


@pytest.mark.parametrize(
    "grid", [np.zeros(4, int), np.full((2, 2), 5), np.full((2, 2), -1), np.zeros((2, 2))]
)
def test_what_is_no_grid_is_explained(grid):
    with pytest.raises(ValueError, match=r"expected a grid \(h, w\) of 0 to 4"):
        encode(make_prior(), grid)


def test_weights_survive_a_file_and_bad_ones_are_explained():
    prior = make_prior()
    arrays = prior.arrays("0.0019/")
    assert {a.dtype.str for a in arrays.values()} == {"<i2"}
    grid = np.random.default_rng(1).integers(0, 5, (6, 7))
    assert encode(IndexPrior.from_arrays(arrays, "0.0019/"), grid) == encode(prior, grid)
    with pytest.raises(ValueError, match="got bands of shape .*train them again"):
        IndexPrior(prior.tables, prior.bands[:3], *(list(vars(prior).values())[2:]))
    with pytest.raises(ValueError, match="got out of shape .* int64 within 16 bits"):
        IndexPrior(*(list(vars(prior).values())[:4]), prior.out * 1000, prior.out_bias)
    with pytest.raises(ValueError, match="got 8193 codes"):
        make_prior(size=8193, width=1)
    with pytest.raises(KeyError):
        IndexPrior.from_arrays(arrays, "0.1250/")


def test_no_float_is_written():
    for module in ("index_prior", "range_coder", "ngram_model"):
        tree = ast.parse((Path(index_prior.__file__).parent / f"{module}.py").read_text("utf-8"))
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Constant) and isinstance(node.value, float))
            assert not isinstance(node, ast.Div), f"{module} divides as floats do"
            assert not (isinstance(node, ast.Name) and node.id == "float")
