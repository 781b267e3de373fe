"""Round trips, exact ends, and sizes that match the probabilities."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perco_lite.coding.range_coder import MAX_TOTAL, RangeDecoder, RangeEncoder
from tests.coding.conftest import fixed


@st.composite
def shares(draw):
    total = draw(st.one_of(st.integers(1, 300), st.integers(1, MAX_TOTAL)))
    start = draw(st.integers(0, total - 1))
    return start, draw(st.integers(1, total - start)), total


def encode(messages):
    coder = RangeEncoder()
    for message in messages:
        coder.encode(*message)
    return coder.finish()


@fixed
@given(st.lists(shares(), max_size=200))
@example([(255, 1, 256)] * 40)  # bytes of ones, which a carry runs through
@example([(254, 1, 256)] + [(255, 1, 256)] * 40 + [(2, 1, 3)])
@example([(0, 1, 256)] * 40)
def test_any_shares_round_trip_in_the_size_they_deserve(messages):
    data = encode(messages)
    decoder = RangeDecoder(data)
    for start, size, total in messages:
        assert start <= decoder.target(total) < start + size
        decoder.take(start, size, total)
    bits = sum(math.log2(total / size) for _, size, total in messages)
    assert 8 * len(data) < bits + 8 + len(messages) / 200


def test_finishing_changes_nothing():
    coder, other = RangeEncoder(), RangeEncoder()
    for _ in range(30):
        for share in ((254, 1, 256), (255, 1, 256), (2, 1, 3)):
            coder.encode(*share)
            other.encode(*share)
            assert other.finish() == other.finish()
    assert coder.finish() == other.finish()


def test_codes_by_hand():
    assert encode([]) == b"" and encode([(0, 1, 2)]) == b""
    assert encode([(1, 1, 2)]) == b"\x80"  # from one half on
    assert encode([(1, 1, 256), (2, 1, 256), (255, 1, 256)]) == b"\x01\x02\xff"
    assert encode([(1, 1, 256), (0, 1, 256)]) == b"\x01", "zeros at the end go without saying"
    assert encode([(85, 86, 256)]) == b"\x55", "the first point of a whole byte in the interval"
    assert encode([(341, 342, 1024)]) == b"\x56"  # 85.25 / 256 is not a whole byte


@fixed
@given(st.lists(shares(), max_size=12))
def test_no_shorter_bytes_lie_in_the_interval(messages):
    data = encode(messages)
    low, width = 0, 1 << 48  # the interval itself, in exact arithmetic, as the coder rounds it
    shown = 48
    for start, size, total in messages:
        unit = width // total
        low, width = low + unit * start, unit * size
        while width < 1 << 40:
            low, width, shown = low << 8, width << 8, shown + 8
    shorter = max(len(data) - 1, 0)
    step = 1 << max(shown - 8 * shorter, 0)
    assert not data or -(-low // step) * step >= low + width
    point = int.from_bytes(data.ljust((shown + 7) // 8, b"\0"), "big")
    assert low <= point < low + width


@pytest.mark.parametrize("share", [(0, 0, 4), (3, 2, 4), (-1, 1, 4), (0, 1, MAX_TOTAL + 1)])
def test_impossible_shares_are_explained(share):
    with pytest.raises(ValueError, match="give every symbol a size of 1 or more"):
        RangeEncoder().encode(*share)


def test_a_point_in_no_share_is_damage():
    # 2**48 is no multiple of 3: the last unit of the interval belongs to nobody
    with pytest.raises(ValueError, match="between two symbols"):
        RangeDecoder(b"\xff" * 6).target(3)


def test_a_decoder_reads_zeros_behind_the_end():
    decoder = RangeDecoder(b"")
    for _ in range(100):
        assert decoder.target(256) == 0
        decoder.take(0, 1, 256)


def test_as_good_as_constriction_and_less_to_pay_at_the_end():
    numpy = pytest.importorskip("numpy")
    constriction = pytest.importorskip("constriction")
    sizes = [1, 2, 5, 8, 240]  # of 256, so exact as floats
    symbols = [4] * 300 + [0, 1, 2, 3] * 10
    theirs = constriction.stream.queue.RangeEncoder()
    probabilities = numpy.array(sizes) / 256
    model = constriction.stream.model.Categorical(probabilities, perfect=False)
    theirs.encode(numpy.array(symbols, dtype=numpy.int32), model)
    ours = encode([(sum(sizes[:s]), sizes[s], 256) for s in symbols])
    # whole words of 32 bits there
    assert 4 * theirs.num_words() - 5 <= len(ours) <= 4 * theirs.num_words()
