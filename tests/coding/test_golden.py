"""Golden files: their bytes, indices and captions must not change."""

import json
import zlib
from pathlib import Path

import pytest

from perco_lite.coding import bitstream, index_prior
from perco_lite.coding.bitstream import WRITTEN_VERSION, BitstreamError, pack, unpack
from perco_lite.rates import RATES

GOLDEN = Path(__file__).parent / "golden"
TABLE = json.loads((GOLDEN / "golden.json").read_text(encoding="utf-8"))
LITE_RATES = ["0.0019", "0.0098", "0.0313", "0.1250"]
PLAIN = sorted(name for name, row in TABLE.items() if "prior" not in row)


@pytest.fixture
def no_prior(monkeypatch):
    """As in a program that has none: there, files that need none are packed as they were."""
    monkeypatch.setattr(index_prior, "bundled", lambda: None)


def rates_of(version: int, prior: int | None) -> list[str]:
    rows = TABLE.values()
    found = [r["rate"] for r in rows if (r["version"], r.get("prior")) == (version, prior)]
    return sorted(found)


@pytest.mark.parametrize("version", [1, 2])
def test_there_is_a_golden_file_for_every_lite_rate(version):
    assert rates_of(version, None) == LITE_RATES
    assert sorted(TABLE) == sorted(path.name for path in GOLDEN.glob("*.perco"))


def test_there_is_one_coded_with_the_bundled_prior_for_every_rate():
    priors = {row["prior"] for row in TABLE.values() if "prior" in row}
    found = index_prior.bundled()
    assert priors == ({found.table_id} if found else set()), "run make_golden.py"
    assert found is None or rates_of(2, found.table_id) == sorted(found.priors) == LITE_RATES


@pytest.mark.parametrize("name", sorted(TABLE))
def test_a_golden_file_still_says_the_same(name):
    expected = TABLE[name]
    data = (GOLDEN / name).read_bytes()
    assert data.hex() == expected["bytes"]
    assert data[0] & 0b111 == expected["version"]
    assert "prior" not in expected or data[1] & 0b100, "it says it, and its header does"
    file = unpack(data, expected["model_id"])
    assert (file.width, file.height) == (expected["width"], expected["height"])
    assert file.rate in RATES and file.rate.name == expected["rate"]
    assert file.caption == expected["caption"]
    assert file.indices.tolist() == expected["indices"]


@pytest.mark.parametrize("name", PLAIN)
def test_a_program_without_a_prior_reads_those_that_need_none(name, no_prior):
    file = unpack((GOLDEN / name).read_bytes())
    assert (file.caption, file.indices.tolist()) == (TABLE[name]["caption"], TABLE[name]["indices"])


zlib_only = pytest.mark.skipif(
    "ng" in getattr(zlib, "ZLIB_RUNTIME_VERSION", ""),
    reason="zlib-ng deflates captions to other (equally valid) bytes",
)


def assert_packed_again(name):
    expected = TABLE[name]
    data = (GOLDEN / name).read_bytes()
    assert pack(unpack(data), version=expected["version"]) == data
    if expected["version"] == WRITTEN_VERSION:
        assert pack(unpack(data)) == data


@zlib_only
@pytest.mark.parametrize("name", PLAIN)
def test_packing_a_golden_file_again_gives_its_bytes(name, no_prior):
    assert_packed_again(name)


@pytest.mark.parametrize("name", sorted(TABLE.keys() - set(PLAIN)))
def test_and_so_does_one_with_the_prior(name):
    assert_packed_again(name)


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


def test_a_prior_never_makes_a_golden_file_longer(monkeypatch):
    files = [unpack((GOLDEN / name).read_bytes()) for name in sorted(TABLE)]
    with_prior = [len(pack(file)) for file in files]
    monkeypatch.setattr(bitstream, "find_prior", lambda *grid: None)
    without = [len(pack(file)) for file in files]
    assert all(a <= b for a, b in zip(with_prior, without, strict=True))


def test_the_bundled_weights_made_them():
    from perco_lite.codec import PercoCodec

    codec = PercoCodec.from_pretrained()
    ids = {name: row["model_id"] for name, row in TABLE.items()}
    assert {ids[name] for name in ids if name not in PLAIN} == {codec.model_id}
    for name in PLAIN:  # older ones are read as bytes, and painted by the release that made them
        if ids[name] != codec.model_id:
            with pytest.raises(BitstreamError, match="those of perco_lite 0.1.0"):
                codec.decompress((GOLDEN / name).read_bytes())
