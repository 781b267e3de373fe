"""One file by hand, round trips of any file, and refusal of any other bytes."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perco_lite.coding.bitstream import BitstreamError, PercoFile, ledger, pack, unpack
from perco_lite.coding.entropy_coding import caption_table_id, pack_text
from perco_lite.rates import RATES, get_rate
from tests.coding.conftest import (
    KODAK_CAPTION,
    assert_same,
    crc16,
    expected_ledger,
    fixed,
    make,
    sealed,
)

versions = st.sampled_from([0xB1, 0xB2])
both = pytest.mark.parametrize("version", [1, 2])


@st.composite
def files(draw):
    side = st.one_of(st.sampled_from([1, 7, 64, 65, 127, 128, 129, 769]), st.integers(1, 1500))
    return make(
        draw(st.sampled_from(RATES)).name,
        width=draw(side),
        height=draw(side),
        caption=draw(st.text(st.characters(exclude_categories=()), max_size=40)),
        model_id=draw(st.integers(0, 0xFFFF)),
        seed=draw(st.integers(0, 9)),
    )


# ------------------------------------------------------------------------------------ the format


BY_HAND = {  # magic and version; rate 0 and flags; model; sizes less one; the rest
    1: [0b10110_001, 0b0000_00_00, 0xBE, 0xEF, 99, 69, ord("Z"), ord("q"), 1, 2, 3, 255],
    # caption and size spelled out; the caption's method 0 is UTF-8
    2: [0b10110_010, 0b0000_0_0_11, 0xBE, 0xEF, 99, 69, 1, 2, 3, 255, 0, ord("Z"), ord("q")],
}


@both
def test_a_file_by_hand(version):
    indices = np.array([[1, 2], [3, 255]])
    file = PercoFile(get_rate("0.0019"), 100, 70, "Zq", indices, model_id=0xBEEF)
    data = pack(file, version=version)
    assert data[:-2] == bytes(BY_HAND[version])
    assert data[-2:] == crc16(data[:-2]) and crc16(b"123456789") == b"\xd6\x4e"  # CRC-16/GENIBUS
    assert ledger(data) == {"header": 8, "caption": 1 + version, "indices": 4}
    assert pack(file) == pack(file, version=2)


def test_sizes_and_fields_by_hand():
    file = make("0.0507", width=768, height=512, caption=KODAK_CAPTION)
    method, caption = pack_text(KODAK_CAPTION)
    data = pack(file, version=1)
    assert method == 2 and data[1] == 5 << 4 | 2 << 2
    # 767 = 5 * 128 + 127 and 511 = 3 * 128 + 127
    assert data[4:8] == bytes([0x80 | 127, 5, 0x80 | 127, 3])
    assert data[8 : 8 + len(caption)] == caption


def test_a_common_size_and_a_common_caption_by_hand():
    file = make("0.0507", width=512, height=768)
    method, caption = pack_text(KODAK_CAPTION, with_table=True)
    data = pack(file)
    assert method == 3 and data[:4] == bytes([0xB2, 0b0101_1_0_01, 0xBE, 0xEF])
    assert data[4 + 2496 : -2] == caption
    # the table's id is mixed into the checksum
    mixed = int.from_bytes(crc16(data[:-2]), "big") ^ caption_table_id()
    assert data[-2:] == mixed.to_bytes(2, "big")


def test_other_sizes_are_written_out():
    data = pack(make("0.0019", width=769, height=511))
    # 768 = 6 * 128 + 0 and 510 = 3 * 128 + 126
    assert data[1] & 0b11 == 3 and data[4:8] == bytes([0x80 | 0, 6, 0x80 | 126, 3])


@pytest.mark.parametrize("width, height", [(768, 512), (512, 768), (512, 512)])
@pytest.mark.parametrize("rate", RATES, ids=lambda rate: rate.name)
@pytest.mark.parametrize("version, header", [(1, 10), (2, 6)])
def test_kodak_pays_ten_or_six_bytes_of_header(rate, width, height, version, header):
    file = make(rate.name, width, height)
    data = pack(file, version)
    parts = ledger(data)
    assert parts == expected_ledger(file, version) and parts["header"] == header
    assert parts["indices"] == rate.index_bytes(height, width)
    assert sum(parts.values()) == len(data)


@pytest.mark.parametrize(
    "width, height", [(65_535, 1), (1, 65_535), (16_385, 128), (65_535, 1525), (10_000, 10_000)]
)
@both
def test_largest_sizes_round_trip(width, height, version):
    file = make("0.0019", width, height)
    assert_same(unpack(pack(file, version)), file)


@fixed
@given(files(), st.sampled_from([1, 2]))
def test_any_file_round_trips(file, version):
    data = pack(file, version)
    assert data[0] & 0b111 == version
    assert_same(unpack(pack(unpack(data), 3 - version)), file)
    assert_same(unpack(data, model_id=file.model_id), file)
    parts, expected = ledger(data), expected_ledger(file, version)
    assert list(parts.items()) == list(expected.items())
    assert sum(expected.values()) == len(data)
    assert parts["header"] <= 12
    assert parts["caption"] <= len(file.caption.encode("utf-8", "surrogatepass")) + (version == 2)
    assert parts["indices"] == file.rate.index_bytes(file.height, file.width)
    assert_same(unpack(bytearray(data)), file)


# ------------------------------------------------------------------------------- damaged, foreign


@pytest.mark.parametrize("file", [make(), make("0.0024", 1, 1, "🦊")], ids=["kodak", "dot"])
@both
def test_every_altered_byte_is_noticed(file, version):
    data = pack(file, version)
    for position in range(len(data)):
        for flip in range(1, 256):
            damaged = bytearray(data)
            damaged[position] ^= flip
            with pytest.raises(BitstreamError):
                unpack(bytes(damaged))


@pytest.mark.parametrize("name", [rate.name for rate in RATES[:4]])
@both
def test_every_cut_and_every_tail_is_noticed(name, version):
    # sure for these very files; in general a 16-bit checksum misses one cut in 65536
    data = pack(make(name), version)
    for end in range(len(data)):
        for cut in (data[:end], data[end:] if end else b""):
            with pytest.raises(BitstreamError):
                unpack(cut)
    for tail in [b"\0" * n for n in range(1, 9)] + [b"\xff", b"\r\n", data]:
        with pytest.raises(BitstreamError, match="checksum"):
            unpack(data + tail)


@fixed
@given(
    st.one_of(
        st.binary(max_size=60),
        # past magic, version and checksum, so that every later check is reached
        st.builds(lambda v, tail: sealed(bytes([v]) + tail), versions, st.binary(max_size=60)),
        st.builds(
            lambda version, rate, low, tail: sealed(bytes([version, rate << 4 | low]) + tail),
            versions,
            st.integers(0, 7),
            st.sampled_from([0, 4, 8, 3, 11]),
            st.binary(min_size=6, max_size=60).map(lambda tail: b"\0\0\x03\x03" + tail),
        ),
    )
)
def test_any_bytes_are_a_file_or_a_bitstream_error(data):
    try:
        file = unpack(data)
    except BitstreamError as error:
        message = str(error)
        assert message and "\n" not in message
        with pytest.raises(BitstreamError):
            ledger(data)
    else:
        assert file.indices.shape == file.rate.grid_shape(file.height, file.width)
        version = data[0] & 0b111
        if pack(file, version) == data:  # there is more than one way to say a caption
            assert ledger(data) == expected_ledger(file, version)
        assert sum(ledger(data).values()) == len(data)
        for version in (1, 2):
            assert_same(unpack(pack(file, version)), file)


def test_other_weights_are_named():
    data = pack(make(model_id=0x00A1))
    assert unpack(data).model_id == 0x00A1
    with pytest.raises(BitstreamError, match="0x00a1.* 0x0b2c: load the weights that made it"):
        unpack(data, model_id=0x0B2C)


@both
@pytest.mark.parametrize("sizes", [b"\xfe\xff\x03\xfe\xff\x03", b"\x8f\x4e\x8f\x4e"])
@pytest.mark.parametrize("rate_id", range(len(RATES)))
def test_a_huge_claim_costs_nothing(sizes, rate_id, version):
    # 65535x65535 is over the limit; 10000x10000 is within it, and the indices are not there
    start = [0xB0 | version, rate_id << 4 | (3 if version == 2 else 0), 0, 0]
    data = sealed(bytes(start) + sizes + bytes(9))
    start = time.process_time()
    tracemalloc.start()
    with pytest.raises(BitstreamError):
        unpack(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000 and time.process_time() - start < 0.5


# -------------------------------------------------------------------------------- bad contents


@pytest.mark.parametrize(
    "change, message",
    [
        ({"indices": np.zeros((12, 8), dtype=np.int64)}, r"shape \(12, 8\), expected \(8, 12\)"),
        ({"indices": np.zeros((1, 8, 12), dtype=np.int64)}, "no batch axis"),
        ({"indices": np.full((8, 12), 256)}, "expected 0 to 255"),
        ({"indices": np.zeros((8, 12))}, "expected integers"),
        ({"model_id": 0x10000}, "expected 16 bits"),
        ({"model_id": -1}, "expected 16 bits"),
        ({"model_id": "beef"}, "expected an integer"),
        ({"width": 768.5}, "got width 768.5, expected an integer"),
        ({"width": 0}, "each side must be 1 to 65535"),
        ({"width": 65_536}, "each side must be 1 to 65535"),
        ({"width": np.uint16(40_000), "height": np.uint16(40_000)}, "more than 100 megapixels"),
        ({"caption": "a" * 65_536}, "expected at most 65535"),
        ({"caption": b"a"}, "expected str"),
        ({"rate": "0.0019"}, "expected one of RATES"),
    ],
)
@both
def test_pack_explains_what_it_cannot_hold(change, message, version):
    with pytest.raises(ValueError, match=message) as caught:
        pack(PercoFile(**(vars(make()) | change)), version)
    assert not isinstance(caught.value, BitstreamError)  # that one is for files, not for arguments


@pytest.mark.parametrize("version", [0, 3, None, "2"])
def test_pack_knows_two_versions(version):
    with pytest.raises(ValueError, match=f"got format version {version!r}, expected 1 or 2"):
        pack(make(), version)


def test_numpy_integers_are_integers():
    file = make("0.0313", width=300, height=200)
    other = vars(file) | {"width": np.uint16(300), "height": np.int32(200)}
    other["indices"] = file.indices.astype(np.uint16)
    for version in (1, 2):
        assert pack(PercoFile(**other), version) == pack(file, version)
