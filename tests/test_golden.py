"""Golden files: their bytes, indices and captions must not change."""

import json
from pathlib import Path

import pytest

from perco_lite.bitstream import pack, unpack
from perco_lite.file_header import VERSION
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


@pytest.mark.parametrize("name", sorted(TABLE))
def test_packing_a_golden_file_again_gives_its_bytes(name):
    expected = TABLE[name]
    data = (GOLDEN / name).read_bytes()
    assert data[0] & 0b111 == expected["version"]
    again = pack(unpack(data))
    if expected["version"] == VERSION:
        assert again == data
    else:  # what it says survives, in the version of today and in fewer bytes
        assert again[0] & 0b111 == VERSION and len(again) < len(data)
        back = unpack(again, expected["model_id"])
        assert back.caption == expected["caption"]
        assert back.indices.tolist() == expected["indices"]


def test_the_bundled_weights_made_them():
    from perco_lite.codec import PercoCodec

    codec = PercoCodec.from_pretrained()
    assert {row["model_id"] for row in TABLE.values()} == {codec.model_id}
