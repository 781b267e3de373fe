"""Golden files: their bytes, indices and captions must not change."""

import json
import zlib
from pathlib import Path

import pytest

from perco_lite.bitstream import WRITTEN_VERSION, pack, unpack
from perco_lite.rates import RATES

GOLDEN = Path(__file__).parent / "golden"
TABLE = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))


LITE_RATES = ["0.0019", "0.0098", "0.0313", "0.1250"]


@pytest.mark.parametrize("version", [1, 2])
def test_there_is_a_golden_file_for_every_lite_rate(version):
    rates = [row["rate"] for row in TABLE.values() if row["version"] == version]
    assert sorted(rates) == LITE_RATES
    assert sorted(TABLE) == sorted(path.name for path in GOLDEN.glob("*.perco"))


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_golden_file_still_says_the_same(name):
    expected = TABLE[name]
    data = (GOLDEN / name).read_bytes()
    assert data.hex() == expected["bytes"]
    file = unpack(data, expected["model_id"])
    assert (file.width, file.height) == (expected["width"], expected["height"])
    assert file.rate in RATES and file.rate.name == expected["rate"]
    assert file.caption == expected["caption"]
    assert file.indices.tolist() == expected["indices"]


@pytest.mark.skipif(
    "ng" in getattr(zlib, "ZLIB_RUNTIME_VERSION", ""),
    reason="zlib-ng deflates captions to other (equally valid) bytes",
)
@pytest.mark.parametrize("name", sorted(TABLE))
def test_packing_a_golden_file_again_gives_its_bytes(name):
    expected = TABLE[name]
    data = (GOLDEN / name).read_bytes()
    assert data[0] & 0b111 == expected["version"]
    assert pack(unpack(data), version=expected["version"]) == data
    if expected["version"] == WRITTEN_VERSION:
        assert pack(unpack(data)) == data


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_golden_file_survives_the_other_version(name):
    expected = TABLE[name]
    data = (GOLDEN / name).read_bytes()
    other = pack(unpack(data), version=3 - expected["version"])
    assert other[0] & 0b111 == 3 - expected["version"]
    first, second = (data, other) if expected["version"] == 1 else (other, data)
    in_table = expected["caption"].isascii()  # another caption pays a byte for its method's name
    assert len(second) < len(first) if in_table else len(second) == len(first) + 1
    back = unpack(other, expected["model_id"])
    assert back.caption == expected["caption"]
    assert back.indices.tolist() == expected["indices"]


def test_the_bundled_weights_made_them():
    from perco_lite.codec import PercoCodec

    codec = PercoCodec.from_pretrained()
    assert {row["model_id"] for row in TABLE.values()} == {codec.model_id}
