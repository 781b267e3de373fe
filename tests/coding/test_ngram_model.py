"""Shares by hand, exact sums, and the same table whatever the order of the training text."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perco_lite.coding.ngram_model import DISCOUNT_UNIT, END, Level, NgramModel, count_ngrams
from tests.coding.conftest import fixed

ONE = 1 << 24
TEXT = [[2, 3, 4], [2, 3, 5], [2, 3, 4], [6, 3], [4]]
sequences = st.lists(st.lists(st.integers(1, 9), max_size=8), min_size=1, max_size=12)


def after(model, *symbols):
    state = model.start()
    for symbol in symbols:
        state = model.step(state, symbol)
    return model.shares(state)


def test_shares_by_hand():
    # after 1: 2 three times, 3 once; discounts of 1/2 leave 1 in 4 to the unigrams
    half = DISCOUNT_UNIT // 2
    discounts = np.array([0, half, half, half])
    unigrams = Level(np.array([1, 2, 3]), np.array([2, 1, 1]), np.array([0, 2, 2, 2]), discounts)
    bigrams = Level(np.array([2, 3]), np.array([3, 1]), np.array([0]), discounts)
    model = NgramModel(4, [unigrams, bigrams])
    flat = ONE // 4 * 3 // 8  # three discounts of 1/2 out of a count of 4, shared by four
    first = [flat, flat + ONE * 3 // 8, flat + ONE // 8, flat + ONE // 8]
    assert (model.shares(()) - 1).tolist() == first
    second = [first[0] // 4, first[1] // 4, first[2] // 4 + ONE * 5 // 8, first[3] // 4 + ONE // 8]
    assert (model.shares(model.step((), 1)) - 1).tolist() == second
    assert model.step((), 2) == (1,) and model.step((), 0) == ()


def test_what_was_seen_is_expected():
    model = count_ngrams(TEXT * 5, 10, order=4)
    assert np.argmax(after(model)) == 2 and np.argmax(after(model, 2, 3)) == 4
    assert np.argmax(after(model, 2, 3, 4)) == END
    # an unseen context falls back to a shorter one
    assert after(model, 9, 2).tolist() == after(model, 8, 2).tolist()


@fixed
@given(sequences, st.integers(1, 4), st.lists(st.integers(0, 9), max_size=6))
def test_shares_are_positive_integers_of_a_bounded_sum(text, order, context):
    shares = after(count_ngrams(text, 10, order), *context)
    assert shares.dtype == np.int64 and shares.shape == (10,) and shares.min() >= 1
    assert ONE - 60 <= shares.sum() <= ONE + 10  # rounded down in each of four contexts


@fixed
@given(sequences, st.integers(0, 99))
def test_the_order_of_the_text_does_not_matter(text, seed):
    mixed = random.Random(seed).sample(text, len(text))
    one, other = (count_ngrams(t, 10, 3).arrays("") for t in (text, mixed))
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_arrays_hold_it_all():
    model = count_ngrams([[300, 2, 257]] * 300 + TEXT, 400, order=3)
    arrays = model.arrays("w_")
    assert all(a.dtype.itemsize == 1 or a.dtype in ("<u2", "<u4") for a in arrays.values())
    back = NgramModel.from_arrays(arrays, "w_")
    for context in ([], [300], [300, 2], [300, 2, 257], [9]):
        assert after(back, *context).tolist() == after(model, *context).tolist()
    del arrays["w_1counts_low"]
    with pytest.raises(KeyError):
        NgramModel.from_arrays(arrays, "w_")


@pytest.mark.parametrize("text, size", [([], 10), (TEXT, 70_000)])
def test_bad_training_text_is_explained(text, size):
    with pytest.raises(ValueError, match="give more text, or a smaller vocabulary"):
        count_ngrams(text, size, 2)
