"""The scripts that measure sizes and damage files, on few and small inputs."""

import csv
import importlib.util
import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from perco_lite.cli.inspecting import measured_sizes
from perco_lite.coding import index_prior
from perco_lite.coding.bitstream import BitstreamError, pack, unpack
from perco_lite.coding.index_prior import PriorSet
from tests.coding.conftest import formula_prior

SCRIPTS = Path(__file__).parents[2] / "scripts"
CAPTIONS = ["A dog runs.", "A cat on a bed", "two dogs on a beach"]


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_files_are_counted(tmp_path, capsys, monkeypatch):
    fuzz, output = script("fuzz"), tmp_path / "fuzz.json"
    fuzz.BLOCK = 100
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


def test_two_processes_damage_the_same_files(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)  # for the other processes, which import it by its name
    fuzz = importlib.import_module("fuzz")
    reports = []
    for jobs in ("1", "2"):
        start = ["fuzz", "--limit", "60", "--files", "1000", "--jobs", jobs, "-o"]
        monkeypatch.setattr(sys, "argv", [*start, str(tmp_path / jobs)])
        fuzz.main()
        reports.append(without_measures(json.loads((tmp_path / jobs).read_text())))
    assert reports[0] == reports[1] and reports[0]["counts"]["files"] > 900


def test_prior_coded_files_are_damaged_too_and_have_their_own_limit(monkeypatch):
    fuzz, grid = script("fuzz"), np.zeros((64, 96), np.int64)
    found = PriorSet(7, {"0.1250": formula_prior(256, 2)}, 0x2A)
    monkeypatch.setattr(index_prior, "bundled", lambda: found)
    coded = [data for data in fuzz.seeds() if fuzz.kind_and_limit(data)[0] == "with a prior"]
    assert {unpack(data).rate.name for data in coded} == {"0.1250"} and len(coded) >= 3
    largest = max(coded, key=len)
    assert unpack(largest).indices.shape == grid.shape
    assert fuzz.kind_and_limit(largest)[1] == pytest.approx(0.05 + 6144 * 80e-6)
    assert fuzz.seeds()[largest] < 0.01, "seldom"
    assert fuzz.sealed(largest[:-2]) == largest and fuzz.check(largest)


def test_a_slow_file_is_named_by_its_bytes(monkeypatch):
    fuzz = script("fuzz")
    fuzz.BLOCK = 5
    problem = fuzz.run_block(0, 1e-9, 0)["problem"]
    assert "more than 0.000" in problem and len(bytes.fromhex(problem.split(": ")[-1])) > 0


def test_other_errors_are_not_swallowed(monkeypatch):
    fuzz = script("fuzz")

    def broken(data):
        raise KeyError("not a BitstreamError")

    monkeypatch.setattr(fuzz, "unpack", broken)
    with pytest.raises(KeyError):
        fuzz.check(b"")


def test_damage_changes_files_and_the_seal_gets_them_past_the_checksum():
    fuzz, chance = script("fuzz"), random.Random(0)
    pool = list(fuzz.seeds())
    damaged = [fuzz.damage(pool[0], pool, chance) for _ in range(200)]
    assert sum(data != pool[0] for data in damaged) > 180
    for body in {data[:-2] for data in pool}:
        assert unpack(fuzz.sealed(body)) is not None
    with pytest.raises(BitstreamError) as caught:
        unpack(fuzz.sealed(pool[0][:8]))
    assert "checksum" not in str(caught.value)


def test_coders_of_captions(tmp_path, capsys, monkeypatch):
    coders = script("caption_coders")
    assert coders.huffman(["ab"])("ab") == 1 and coders.huffman(["ab"])("é") >= 2
    (tmp_path / "captions").mkdir()
    held = tmp_path / "captions" / "coco_heldout.txt"
    held.write_text("\n".join(CAPTIONS) + "\n")
    (tmp_path / "captions" / "a_train.txt").write_text("A dog on a bed.\n" * 20)
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))

    def missing(train):
        raise ImportError("no zstandard here")

    monkeypatch.setitem(coders.CODERS, "zstd 22, trained dictionary", missing)
    monkeypatch.setattr(sys, "argv", ["caption_coders", "-o", str(tmp_path / "out.csv")])
    coders.main()
    said = capsys.readouterr().out
    assert "not measured: no zstandard here" in said and "round trip checked" in said
    rows = {r["coder"]: r for r in csv.DictReader((tmp_path / "out.csv").open())}
    assert rows["zstd 22, trained dictionary"]["bits_per_character"] == ""
    mean = sum(map(len, CAPTIONS)) / 3
    assert float(rows["UTF-8"]["bytes_per_caption"]) == pytest.approx(mean, abs=1e-3)
    ours = rows["caption table, ours"], rows["zlib -9 (the paper)"]
    assert float(ours[0]["bits_per_character"]) < 0.25 * float(ours[1]["bits_per_character"])


def test_sizes_of_files_read_back_by_another_process(tiny_codec, tmp_path, monkeypatch):
    from perco_lite.data import skimage_photos

    sizes = script("kodak_sizes")
    photo = skimage_photos()[0]
    object.__setattr__(photo, "image", photo.image.crop((0, 0, 64, 64)))
    data = tiny_codec.compress(photo.image, photo.caption, "0.0019")
    indices = unpack(data).indices
    assert sizes.reads_back(data, photo.caption, indices, tiny_codec.model_id)
    assert not sizes.reads_back(data, photo.caption, indices + 1, tiny_codec.model_id)
    monkeypatch.setattr(sizes, "reads_back", lambda *what: True)
    rows = sizes.measure(tiny_codec, [photo])
    assert [row["rate"] for row in rows] == list(tiny_codec.rates)
    for row in rows:
        parts = [row[f"{part}_bytes"] for part in sizes.PARTS]
        assert sum(parts) == row["bytes"] and row["header_bytes"] == 8
    assert rows[0]["paper_bytes"] == 1 + row["caption_paper_bytes"]
    assert "0.0019" in sizes.summary(rows)
    path = tmp_path / "sizes.csv"
    first = pack(unpack(data), version=1)
    assert rows[0]["version_1_bytes"] == len(first) > rows[0]["bytes"] == len(data)
    assert rows[0]["without_prior_bytes"] == len(data) and not rows[0]["prior_coded"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert measured_sizes(path, version=2)["0.0019"]["mean"] == rows[0]["bytes"]
    assert measured_sizes(path, version=1)["0.0019"]["mean"] == len(first)


def test_the_readme_shows_the_sizes_that_are_kept(tmp_path):
    sizes = script("kodak_sizes")
    with sizes.RESULTS.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    page = sizes.PAGE.read_text(encoding="utf-8")
    assert f"<!-- kodak sizes -->\n{sizes.markdown(rows)}\n<!-- end -->" in page
    copy = tmp_path / "page.md"
    copy.write_text(page, encoding="utf-8")
    sizes.write_page(rows[:3], copy)
    assert sizes.markdown(rows[:3]) in copy.read_text(encoding="utf-8")
    copy.write_text("no marks", encoding="utf-8")
    with pytest.raises(SystemExit, match="expected one place"):
        sizes.write_page(rows, copy)


def test_the_time_of_an_evaluation(tmp_path, monkeypatch):
    timing = script("evaluate_time")
    asked = []

    def run(words):
        asked.append(" ".join(words))
        rows = [
            "photo,codec,encode_seconds,decode_seconds",
            "a,perco,1,2",
            "b,perco,1,0",
            "a,jpeg,1,1",
        ]
        Path(words[words.index("-o") + 1]).write_text("\n".join(rows))
        return SimpleNamespace(returncode=2 * ("--photos 0" in asked[-1]))

    monkeypatch.setattr(timing, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(sys, "argv", ["x", "-o", str(tmp_path / "t.json"), "--photos", "2"])
    timing.main()
    report = json.loads((tmp_path / "t.json").read_text())
    assert report["photos"] == 2 and report["rows"] == 3 and report["seconds"] < 60
    assert report["seconds_of_kept_files_by_codec"] == {"perco": 4.0, "jpeg": 2.0}
    assert "--rates 0.0019,0.0098,0.0313,0.1250 --metrics psnr,ms_ssim" in asked[0]
    with pytest.raises(SystemExit, match="ended with 2"):
        timing.measure(0)
