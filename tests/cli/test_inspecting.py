"""What is said of a file: every bit accounted for, in three accounts; measured sizes by rate."""

import numpy as np
import pytest

from perco_lite.cli import inspecting
from perco_lite.cli.inspecting import describe, describe_text, measured_sizes, rate_table, rate_text
from perco_lite.coding.bitstream import WRITTEN_VERSION, PercoFile, bit_ledger, pack
from perco_lite.coding.caption_model import bundled
from perco_lite.rates import get_rate

SPOKEN, WRITTEN = "A brown dog on a sandy beach.", "§§ 4711 ÆØÅ"


def make(caption, **version):
    indices = np.arange(96).reshape(8, 12)
    return pack(PercoFile(get_rate("0.0019"), 768, 512, caption, indices, model_id=7), **version)


@pytest.mark.parametrize("caption", [SPOKEN, WRITTEN, ""])
@pytest.mark.parametrize("version", [1, 2])
def test_every_bit_is_accounted_for(caption, version):
    data = make(caption, version=version)
    row = describe(data)
    bits = row["bits"]
    assert bits == bit_ledger(data) and row["format_version"] == version
    assert sum(part["actual"] for part in bits.values()) == 8 * len(data)
    assert {name: part["actual"] / 8 for name, part in bits.items()} == row["ledger"]
    header = {1: 80, 2: 48}[version]
    assert bits["header"] == {"nominal": 0, "model": header, "actual": header}
    assert f"format version {version}" in describe_text(row)
    assert bits["indices"] == {"nominal": 768, "model": 768, "actual": 768}
    assert bits["caption"]["nominal"] == 8 * row["caption_zlib_bytes"]
    # whole bytes cost less than one more than the model asks for; of a short code the end can be
    # zeros, which are not written: the empty caption takes no byte at all
    assert bits["caption"]["actual"] - bits["caption"]["model"] < 8
    assert caption or bits["caption"]["actual"] == 0


def test_bits_by_word_add_up():
    row = describe(make(SPOKEN))
    words = row["caption_bits_by_word"]
    assert words == bundled().costs(SPOKEN)
    assert sum(bits for _, bits in words) == pytest.approx(row["bits"]["caption"]["model"])
    assert describe(make(WRITTEN))["caption_bits_by_word"] is None, "coded without the table"
    assert describe(make(SPOKEN, version=1))["caption_bits_by_word"] is None, "it has no table"


def test_people_see_the_three_accounts():
    row = describe(make(SPOKEN))
    text = describe_text(row)
    caption = next(line for line in text.splitlines() if line.strip().startswith("caption  "))
    accounts = [f"{row['bits']['caption'][kind]:.1f}" for kind in inspecting.BIT_KINDS]
    assert caption.split()[-3:] == accounts and "nominal    model   actual bits" in text
    assert f"dog {dict(row['caption_bits_by_word'])[' dog']:.1f}" in text
    assert "with the caption table" not in describe_text(describe(make(WRITTEN)))


def test_measured_sizes_by_rate(tmp_path, monkeypatch):
    path = tmp_path / "sizes.csv"
    assert measured_sizes(path) == {}
    path.write_text(
        "rate,photo,bytes,version_1_bytes\n0.0019,a,90,100\n0.0019,b,94,110\n0.1250,a,60,6000\n"
    )
    sizes = measured_sizes(path)
    assert sizes == measured_sizes(path, WRITTEN_VERSION)
    sizes = measured_sizes(path, version=2)
    assert sizes["0.0019"]["mean"] == 92 and sizes["0.0019"]["format_version"] == 2
    sizes = measured_sizes(path, version=1)
    expected = {"photos": 2, "mean": 105, "minimum": 100, "maximum": 110}
    assert sizes["0.0019"] == expected | {"format_version": 1}
    monkeypatch.setattr(inspecting, "measured_sizes", lambda: sizes)
    table = {row["name"]: row for row in rate_table()}
    assert table["0.0019"]["kodak_file_bytes"]["mean"] == 105
    assert table["0.0024"]["kodak_file_bytes"] is None
    lines = rate_text(list(table.values())).splitlines()
    assert f"of format version {WRITTEN_VERSION}," in lines[-1]
    assert lines[1].split()[-2:] == ["105.0", "yes"] and lines[2].split()[-2:] == ["-", "-"]
    path.write_text("rate,version_1_bytes,bytes\n0.0019,many,more\n")
    with pytest.raises(ValueError, match="sizes.csv is damaged; run scripts/kodak_sizes.py again"):
        measured_sizes(path)


def test_sizes_of_the_bundled_weights_are_no_others(tmp_path):
    (tmp_path / "conditioner").mkdir()
    (tmp_path / "conditioner" / "config.json").write_text('{"rates": ["0.0019"]}')
    assert all(row["kodak_file_bytes"] is None for row in rate_table(str(tmp_path)))
