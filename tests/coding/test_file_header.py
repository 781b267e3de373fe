"""What each refusal says, files of version 1, and the two versions' headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perco_lite.coding import bitstream
from perco_lite.coding.bitstream import BitstreamError, ledger, pack, unpack
from perco_lite.coding.entropy_coding import caption_table_id, pack_indices
from perco_lite.coding.file_header import COMMON_SIZES, checksum, mixed_id
from perco_lite.rates import RATES
from tests.coding.conftest import assert_same, fixed, make, sealed

BODY = pack(make(width=769, height=512, caption="Zq"))[:-2]  # 4 + 4 + 104 + 3 bytes


@pytest.mark.parametrize(
    "data, message",
    [
        ("text", "got str, expected bytes"),
        (None, "got NoneType, expected bytes"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "this is a PNG image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "this is a JPEG image"),
        (b"\0\0\0\x1cftypavif", "this is an AVIF"),
        (b"RIFF\0\0\0\0WEBP", "this is a WebP"),
        (b"hello", "unknown first byte 0x68, not a .perco file"),
        (bytes([0b10110_011]) + BODY[1:], "version 3, this program reads 1 and 2: upgrade"),
        (bytes([0b10110_000]) + BODY[1:], "version 0, this program reads 1 and 2: get the file"),
        (b"\xb2", "only 1 bytes"),
        (sealed(b"\xb2"), "only 3 bytes"),
        (sealed(b"\xb2" + bytes(2)), "only 5 bytes, the shortest file has 6"),
        (sealed(b"\xb2\x00" + bytes(2)), "96 bytes of indices, 0 are there"),
        (sealed(b"\xb2\x03" + bytes(2)), "the image size does not end"),
        (sealed(b"\xb1\x00" + bytes(2)), "the image size does not end"),
        (sealed(b"\xb1\x00" + bytes(4)), "1 bytes of indices, 0 are there"),
        (BODY + b"\0\0", "wrong checksum"),
        (sealed(BODY[:1] + b"\x07" + BODY[2:]), "a prior for the indices without the table"),
        (sealed(BODY[:1] + b"\x0f" + BODY[2:]), "prior for model 0xbeef at rate 0.0019, which"),
        (sealed(BODY[:1] + b"\x83" + BODY[2:]), "rate id 8, this program knows 0 to 7: upgrade"),
        (sealed(BODY[:-3] + b"\x04" + BODY[-2:]), "caption method 4"),
        (sealed(BODY[:-3] + b"\x03" + BODY[-2:]), "names the table"),
        (sealed(BODY[:-3] + b"\x01" + BODY[-2:]), "the deflated caption|cannot inflate"),
        (sealed(BODY[:-2] + b"\xff\xff"), "not UTF-8"),
        (sealed(BODY[:-1]), None),  # one byte of caption fewer: still a file
        (sealed(BODY[:-3]), "does not name its method"),
        (sealed(BODY[:-4]), "104 bytes of indices, 103 are there"),
        (sealed(BODY[:1] + b"\x0b" + BODY[2:] + b"\0"), "not the code of the caption"),
        (sealed(BODY[:4] + b"\x80\x00\x00" + bytes(9)), "superfluous byte"),
        (sealed(BODY[:4] + b"\xff\xff\xff" + bytes(9)), "does not end"),
        (sealed(BODY[:4] + b"\x80\x80\x80"), "does not end"),
        (sealed(BODY[:4] + b"\xff\x05\xff\x03" + BODY[8:]), "though it has a short code"),
        (sealed(BODY[:4] + b"\xff\xff\x03\x00" + bytes(9)), "65536x1 pixels, each side must be"),
        (sealed(BODY[:4] + b"\xff\xff\x7f\x00" + bytes(9)), "each side must be 1 to 65535"),
        (sealed(BODY[:4] + b"\x8f\x4e\x90\x4e" + bytes(9)), "10000x10001 pixels, more than 100 me"),
        (sealed(BODY[:1] + b"\x13" + BODY[2:4] + b"\0\0\xfc\0\0"), "spare bits"),
    ],
)
def test_each_refusal_says_why(data, message):
    if message is None:
        assert unpack(data).caption == "Z"
        return
    for read in (unpack, ledger):
        with pytest.raises(BitstreamError, match=message):
            read(data)


def test_another_caption_table_is_named(monkeypatch):
    data = pack(make())
    made_with = caption_table_id()
    monkeypatch.setattr(bitstream, "caption_table_id", lambda: 0x1234)
    with pytest.raises(BitstreamError, match=f"{made_with:#06x} where this is 0x1234"):
        unpack(data)
    spelled = pack(make(caption="Zq"))  # uses no table
    assert unpack(spelled).caption == "Zq"


@pytest.mark.parametrize("width, height", COMMON_SIZES)
def test_a_common_size_turned_or_changed_is_another(width, height):
    small = make(width=width, height=height)
    assert len(pack(small)) + 4 == len(pack(make(width=width + 1, height=height))) - (
        small.rate.index_bytes(height, width + 1) - small.rate.index_bytes(height, width)
    )
    assert (unpack(pack(small)).width, unpack(pack(small)).height) == (width, height)


def test_checksum_by_hand():
    assert checksum(b"123456789") == b"\xd6\x4e"  # CRC-16/GENIBUS
    assert checksum(b"123456789", 0x00FF) == b"\xd6\xb1"
    assert mixed_id(0x1234, 0) == 0x1234 and mixed_id(0, 0) == 0
    assert mixed_id(0x1234, 1) != mixed_id(0x1235, 1) != mixed_id(0x1234, 2)
    assert len({mixed_id(0x1234, prior) for prior in range(0xFFFF)}) == 0xFFFF


# ------------------------------------------------------------------------------------- version 1


def version_one(file, method, caption):
    """A file as perco_lite 0.1 wrote it, for sizes below 129 by hand."""
    start = [0xB1, RATES.index(file.rate) << 4 | method << 2, *divmod(file.model_id, 256)]
    start += [file.width - 1, file.height - 1]
    return sealed(bytes(start) + caption + pack_indices(file.indices, file.rate.codebook_size))


@fixed
@given(st.sampled_from(RATES), st.integers(1, 128), st.integers(1, 128), st.text(max_size=9))
def test_version_one_by_hand(rate, width, height, caption):
    file = make(rate.name, width, height, caption)
    data = version_one(file, 0, caption.encode("utf-8"))
    assert_same(unpack(data, file.model_id), file)
    packed = pack(file, version=1)
    assert packed == data or packed[1] >> 2 & 0b11, "the same, or a shorter caption"
    utf8 = len(caption.encode("utf-8"))
    count = rate.index_bytes(height, width)
    assert ledger(data) == {"header": 8, "caption": utf8, "indices": count}


@pytest.mark.parametrize("method, message", [(3, "caption method 3"), (1, "stops before its end")])
def test_version_one_has_no_table(method, message):
    with pytest.raises(BitstreamError, match=message):
        unpack(version_one(make(width=64, height=64), method, b""))


@pytest.mark.parametrize("bits", [1, 2])
def test_version_one_keeps_its_reserved_bits(bits):
    body = bytearray(version_one(make(width=64, height=64), 0, b"Zq")[:-2])
    body[1] |= bits
    with pytest.raises(BitstreamError, match="reserved bits"):
        unpack(sealed(body))
