"""Files whose indices are coded with a prior: shorter where it helps, refused without it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perco_lite.cli.inspecting import BIT_KINDS, describe, describe_text
from perco_lite.coding import caption_model, index_prior, tables
from perco_lite.coding.bitstream import (
    MAX_PRIOR_INDICES,
    BitstreamError,
    PercoFile,
    bit_ledger,
    ledger,
    pack,
    unpack,
)
from perco_lite.coding.entropy_coding import caption_table_id
from perco_lite.coding.file_header import checksum, mixed_id
from perco_lite.coding.index_prior import IndexPrior, PriorSet
from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder
from perco_lite.rates import get_rate
from perco_lite.training.index_prior import fit_prior, write_priors
from tests.coding.conftest import (
    KODAK_CAPTION,
    assert_same,
    expected_ledger,
    fixed,
    make,
    make_prior,
    sealed,
)

MODEL = 0xBEEF


def same_again() -> IndexPrior:
    """A prior that expects the code on the left once more."""
    prior = make_prior(size=256, width=256, scale=0)
    for code in range(256):
        prior.tables[0, code, code] = 256
        prior.out[code, code] = 9 * 256
    return prior


def use(monkeypatch, priors, table_id=0x2A, model_id=MODEL):
    found = PriorSet(model_id, priors, table_id) if priors else None
    monkeypatch.setattr(index_prior, "bundled", lambda: found)


@pytest.fixture
def steady():
    """A file that this prior expects, and what it takes without one."""
    indices = np.repeat(np.arange(8) * 30, 12).reshape(8, 12)
    file = PercoFile(get_rate("0.0019"), 768, 512, KODAK_CAPTION, indices, MODEL)
    return file, pack(file)


@pytest.fixture
def with_prior(monkeypatch):
    use(monkeypatch, {"0.0019": same_again()})


def test_what_is_expected_is_shorter_and_comes_back(steady, with_prior):
    file, plain = steady
    data = pack(file)
    assert len(data) < len(plain) - 60 and data[1] == plain[1] | 0b100
    assert_same(unpack(data, MODEL), file)
    coder = RangeEncoder()
    index_prior.find_prior(MODEL, "0.0019").encode(coder, file.indices)
    indices = len(coder.finish())  # what the grid alone would have taken
    caption_model.bundled().encode_into(coder, file.caption)
    expected = {"header": 6, "caption": len(coder.finish()) - indices, "indices": indices}
    assert ledger(data) == expected and sum(expected.values()) == len(data)
    assert indices < 40 and 0 < expected["caption"] <= ledger(plain)["caption"] + 1


@pytest.mark.parametrize("width", [768, 700])
def test_what_is_certain_takes_no_byte_at_all(monkeypatch, width):
    prior = make_prior(size=256, width=1, scale=0)
    prior.out_bias[1:] = -0x7FFF  # all zeros, and the others almost impossible
    use(monkeypatch, {"0.0019": prior})
    file = make("0.0019", width, 512, "", MODEL)
    file.indices[:] = 0
    data = pack(file)
    assert ledger(data) == {"header": len(data), "caption": 0, "indices": 0}
    assert_same(unpack(data, MODEL), file)


def test_what_is_not_expected_costs_nothing(steady, with_prior):
    noisy = make(model_id=MODEL)
    data = pack(noisy)
    assert data[1] & 0b100 == 0 and ledger(data)["indices"] == 96
    file = steady[0]
    for change in ({"caption": "§§ Æ"}, {"model_id": 1}):  # another coder; other weights' codes
        other = PercoFile(**(vars(file) | change))
        assert pack(other)[1] & 0b100 == 0
        assert_same(unpack(pack(other)), other)


def test_plain_files_read_with_and_without_priors(steady, monkeypatch):
    file, plain = steady
    for priors in ({}, {"0.0019": same_again()}, {"0.1250": same_again()}):
        use(monkeypatch, priors)
        assert_same(unpack(plain), file)


def test_bits_in_three_accounts(steady, with_prior):
    data = pack(steady[0])
    bits, row = bit_ledger(data), describe(data)
    assert bits["indices"]["nominal"] == 768 == row["index_bits_nominal"]
    assert bits["indices"]["model"] < 300
    together = bits["indices"]["model"] + bits["caption"]["model"]
    actual = bits["indices"]["actual"] + bits["caption"]["actual"]
    assert together - 16 < actual < together + 8, "one code, one rounding"
    assert json.loads(json.dumps(row))["indices"] == steady[0].indices.tolist()
    lines = describe_text(row).splitlines()
    (account,) = [line.split() for line in lines if line.strip().startswith("indices  ")]
    assert account[-3:] == [f"{bits['indices'][kind]:.1f}" for kind in BIT_KINDS]
    assert lines[-9].endswith("768 bits uniformly, here with a prior; darker = higher number")
    assert lines[-8:] == ["    " + shade * 12 for shade in " .:-=+#%"], "a code a row"
    assert row["index_prior"] and not describe(steady[1])["index_prior"]
    assert "with a prior" not in describe_text(describe(steady[1]))


def test_without_the_prior_it_is_refused_by_name(steady, with_prior, monkeypatch):
    data = pack(steady[0])
    use(monkeypatch, {"0.0019": same_again()}, table_id=0x2B)
    with pytest.raises(BitstreamError, match="made with caption table and index prior 0x"):
        unpack(data)
    for priors in ({}, {"0.1250": same_again()}):
        use(monkeypatch, priors)
        with pytest.raises(BitstreamError, match="index prior 0x|which this program has not"):
            unpack(data)
    other = PriorSet(MODEL ^ 1, {"0.0019": same_again()}, 0x2A)  # for weights that it is not of
    monkeypatch.setattr(index_prior, "bundled", lambda: other)
    with pytest.raises(BitstreamError, match="prior for model 0xbeef at rate 0.0019, which this"):
        unpack(data)


def test_a_file_of_earlier_weights_says_which_release_reads_it(steady, with_prior, monkeypatch):
    earlier = replace(steady[0], model_id=0x79F1)
    with pytest.raises(BitstreamError, match="that made it, those of perco_lite 0.1.0"):
        unpack(pack(earlier), 0xBEEF)
    use(monkeypatch, {"0.0019": same_again()}, model_id=0x79F1)
    data = pack(earlier)
    use(monkeypatch, {"0.0019": same_again()}, table_id=0x2B)
    with pytest.raises(BitstreamError, match="index prior 0x.* those of perco_lite 0.1.0"):
        unpack(data)


@fixed
@given(st.binary(max_size=40))
def test_any_bytes_are_a_file_or_a_bitstream_error(tail):
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, {"0.0019": same_again()})
        body = bytes([0xB2, 0b0000_1_1_11, 0xBE, 0xEF, 127, 127]) + tail
        used = mixed_id(caption_table_id(), 0x2A)
        try:
            file = unpack(body + checksum(body, used))
        except BitstreamError as error:
            assert "again from its source" in str(error)
        else:
            assert file.indices.shape == (2, 2) and file.indices.max() < 256


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.sampled_from(["0.0059", "0.0937"]),  # 64 codes
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.text(st.characters(exclude_categories=()), max_size=40) | st.just(KODAK_CAPTION),
    st.sampled_from([0, 20, 300, 0x7FFF]),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_file_round_trips_and_a_prior_never_costs(name, size, caption, scale, likely, seed):
    file = make(name, *size, caption, MODEL, seed)
    prior = make_prior(64, 4, seed, scale)
    if likely:
        noise = np.random.default_rng(seed).bytes(2 * file.indices.size)
        grid = prior.decode(RangeDecoder(noise), file.indices.shape)
        file = PercoFile(**(vars(file) | {"indices": grid}))
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, None)
        plain = pack(file)
        assert_same(unpack(plain, MODEL), file)
        use(monkeypatch, {name: prior})
        data = pack(file)
        assert_same(unpack(plain, MODEL), file)
        assert_same(unpack(data, MODEL), file)
        assert data == plain or (len(data) < len(plain) and data[1] & 0b100)
        if data == plain:
            assert ledger(data) == expected_ledger(file)
        assert sum(ledger(data).values()) == len(data)
        assert pack(unpack(pack(file, version=1))) == data
        if data != plain:
            use(monkeypatch, None)
            with pytest.raises(BitstreamError):
                unpack(data)


def test_a_code_with_superfluous_bytes_is_refused(steady, with_prior):
    body = pack(steady[0])[:-2] + b"\0"
    used = mixed_id(caption_table_id(), 0x2A)
    with pytest.raises(BitstreamError, match="not the code of the indices and the caption"):
        unpack(body + checksum(body, used))


def test_a_grid_too_large_is_coded_uniformly_and_refused_otherwise(with_prior):
    side = 64 * 91
    rate = get_rate("0.0019")
    zeros = np.zeros(rate.grid_shape(side, side), dtype=np.int64)
    assert zeros.size > MAX_PRIOR_INDICES
    data = pack(PercoFile(rate, side, side, "", zeros, MODEL))
    assert data[1] & 0b100 == 0
    body = bytes([0xB2, data[1] | 0b100]) + data[2:8] + b"\x12"
    with pytest.raises(BitstreamError, match="at most 8192"):
        unpack(body + checksum(body, mixed_id(caption_table_id(), 0x2A)))


def test_version_one_knows_no_prior(steady, with_prior):
    data = pack(steady[0], version=1)
    assert ledger(data)["indices"] == 96 and data[1] & 0b11 == 0
    assert_same(unpack(data, MODEL), steady[0])
    with pytest.raises(BitstreamError, match="cannot inflate|stops before|damaged"):
        unpack(sealed(bytes([0xB1, 0b0000_0100, 0xBE, 0xEF, 63, 63]) + b"\xff\xff"))


def test_a_file_of_priors_is_found_in_the_package(tmp_path, monkeypatch, steady):
    grids = [steady[0].indices] * 3
    prior, _ = fit_prior(grids, 256, steps=60, batch_size=64, width=8, learning_rate=0.02)
    write_priors({"0.0019": prior}, MODEL, tmp_path / "index_prior.npz")
    monkeypatch.setattr(tables.resources, "files", lambda package: tmp_path)
    found = index_prior.bundled.__wrapped__()
    assert found.model_id == MODEL and list(found.priors) == ["0.0019"]
    use(monkeypatch, found.priors, found.table_id)
    assert len(pack(steady[0])) < len(steady[1]) and unpack(pack(steady[0])).model_id == MODEL


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 none"])
def test_a_damaged_file_of_priors_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(tables.resources, "files", lambda package: tmp_path)
    assert index_prior.bundled.__wrapped__() is None, "a package without priors is whole"
    (tmp_path / "index_prior.npz").write_bytes(content)
    with pytest.raises(ValueError, match="index_prior.npz is damaged"):
        index_prior.bundled.__wrapped__()
