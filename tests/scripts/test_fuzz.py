"""scripts/fuzz.py: damaged files are counted, and what a file does wrong is told with its bytes."""

import json
import random
import sys
from pathlib import Path

import pytest

from perco_lite.coding import index_prior
from perco_lite.coding.bitstream import BitstreamError, unpack
from perco_lite.coding.index_prior import PriorSet
from tests.coding.conftest import formula_prior

GOLDEN = Path(__file__).parents[1] / "coding" / "golden"


@pytest.fixture
def fuzz(load_script):
    return load_script("fuzz")


def test_damaged_files_are_counted(fuzz, tmp_path, capsys, monkeypatch):
    fuzz.BLOCK, output = 100, tmp_path / "fuzz.json"
    # a test machine may be busy
    start = ["fuzz", "--limit", "60", "-o", str(output), "--files"]
    monkeypatch.setattr(sys, "argv", [*start, "300"])
    fuzz.main()
    report = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == report
    counts = report["counts"]
    assert 250 < counts["files"] <= 300 and counts["decoded_with_a_made_up_checksum"] > 0
    assert counts["decoded_of_these"] <= 1 and 0 < counts["slowest_of_its_limit"] < 1
    assert counts["blocks"] == counts["files_traced"] == 3 and counts["largest_bytes_traced"] > 0
    kinds = counts["by_kind"].values()
    assert sum(kind["files"] for kind in kinds) == counts["files"]
    decoded = counts["decoded_with_a_made_up_checksum"] + counts["decoded_of_these"]
    assert sum(kind["decoded"] for kind in kinds) == decoded
    # in two runs it comes to the same
    monkeypatch.setattr(sys, "argv", [*start, "200"])
    fuzz.main()
    assert json.loads(output.read_text())["counts"]["files"] < counts["files"]
    monkeypatch.setattr(sys, "argv", [*start, "300", "--resume"])
    fuzz.main()
    assert without_measures(json.loads(output.read_text())) == without_measures(report)
    with pytest.raises(SystemExit, match="has all of 300 files"):
        fuzz.main()
    monkeypatch.setattr(sys, "argv", [*start, "400", "--resume", "--seed", "1"])
    with pytest.raises(SystemExit, match="is of another run"):
        fuzz.main()


def without_measures(report: dict) -> dict:
    """What does not depend on the machine and the hour."""
    report["counts"] = {k: v for k, v in report["counts"].items() if "est_" not in k}
    report["counts"].pop("peak_memory_grown_bytes")
    for kind in report["counts"]["by_kind"].values():
        kind.pop("slowest_seconds")
    return report


def test_two_processes_damage_the_same_files(fuzz, tmp_path, monkeypatch):
    reports = []
    for jobs in ("1", "2"):
        start = ["fuzz", "--limit", "60", "--files", "1000", "--jobs", jobs, "-o"]
        monkeypatch.setattr(sys, "argv", [*start, str(tmp_path / jobs)])
        fuzz.main()
        reports.append(without_measures(json.loads((tmp_path / jobs).read_text())))
    assert reports[0] == reports[1] and reports[0]["counts"]["files"] > 900


def test_prior_coded_files_are_damaged_too_and_have_their_own_limit(fuzz, monkeypatch):
    found = PriorSet(7, {"0.1250": formula_prior(256, 2)}, 0x2A)
    monkeypatch.setattr(index_prior, "bundled", lambda: found)
    coded = [data for data in fuzz.seeds() if fuzz.kind_and_limit(data)[0] == "with a prior"]
    assert {unpack(data).rate.name for data in coded} == {"0.1250"} and len(coded) >= 3
    largest = max(coded, key=len)
    assert unpack(largest).indices.shape == (64, 96)
    assert fuzz.kind_and_limit(largest)[1] == pytest.approx(0.05 + 6144 * 80e-6)
    assert fuzz.seeds()[largest] < 0.01, "seldom"
    assert fuzz.sealed(largest[:-2]) == largest and fuzz.check(largest)


def test_a_slow_file_is_named_by_its_bytes(fuzz):
    fuzz.BLOCK = 5
    problem = fuzz.run_block(0, 1e-9, 0)["problem"]
    assert "more than 0.000" in problem and len(bytes.fromhex(problem.split(": ")[-1])) > 0


def test_other_errors_are_not_swallowed(fuzz, monkeypatch):
    def broken(data):
        raise KeyError("not a BitstreamError")

    monkeypatch.setattr(fuzz, "unpack", broken)
    with pytest.raises(KeyError):
        fuzz.check(b"")


def test_damage_changes_files_and_the_seal_gets_them_past_the_checksum(fuzz):
    pool, chance = list(fuzz.seeds()), random.Random(0)
    golden = [path.read_bytes() for path in GOLDEN.glob("*.perco")]
    assert len(golden) > 4 and set(golden) <= set(pool)
    damaged = [fuzz.damage(pool[0], pool, chance) for _ in range(200)]
    assert sum(data != pool[0] for data in damaged) > 180
    for body in {data[:-2] for data in pool}:
        assert unpack(fuzz.sealed(body)) is not None
    with pytest.raises(BitstreamError) as caught:
        unpack(fuzz.sealed(pool[0][:8]))
    assert "checksum" not in str(caught.value)
