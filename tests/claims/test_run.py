"""Running experiments: what is written, what is not made twice, what is refused."""

import json

import pytest

from conftest import read_table
from perco_lite.claims import run as claims
from perco_lite.claims.workbench import ClaimSettings
from perco_lite.loading import weights_digest


def test_experiments_write_and_are_not_made_twice(tiny_codec, photos, monkeypatch, tiny):
    for name in ("conditions", "entropy", "sizes"):  # they have tests of their own
        monkeypatch.delitem(claims.EXPERIMENTS, name)
    folder, said = photos / "out", []
    done = claims.run_experiments([], folder, tiny_codec, tiny, said.append)
    assert set(done) == set(claims.EXPERIMENTS) and set(done.values()) == {"made"}
    for name in claims.EXPERIMENTS:
        rows, about = (
            read_table(folder / f"{name}.csv"),
            json.loads((folder / f"{name}.json").read_text()),
        )
        assert rows and "setting" in rows[0]
        assert about["command"].startswith(f"perco claims {name} ")
        assert about["weights"] == weights_digest(tiny_codec)
        assert about["model_id"] == f"{tiny_codec.model_id:#06x}" and about["versions"]["torch"]
    settings = {row["setting"] for row in read_table(folder / "trainings.csv")}
    assert settings == {"start", "one rate", "all rates"}
    assert any("one rate, feature loss: not trained" in line for line in said)
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    again = claims.run_experiments([], folder, tiny_codec, tiny, said.append)
    assert set(again.values()) == {"there"}
    assert before == {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    (folder / "seeds.json").unlink()  # as after a crash
    assert claims.run_experiments(["seeds", "steps"], folder, tiny_codec, tiny, said.append) == {
        "seeds": "made",
        "steps": "there",
    }


def test_other_settings_and_files_of_others_are_refused(tiny_codec, photos, tiny):
    folder = photos / "out"
    claims.run_experiments(["ledgers"], folder, tiny_codec, tiny, print)
    other = ClaimSettings(crop=128, steps=1, seeds=2, draws=3)
    with pytest.raises(ValueError, match=r"made otherwise \(crop: was 64, is 128, training"):
        claims.run_experiments(["ledgers"], folder, tiny_codec, other, print)
    (folder / "rate.json").write_text('{"made_by": "me"}')
    with pytest.raises(ValueError, match="is not from perco claims"):
        claims.run_experiments(["rate"], folder, tiny_codec, tiny, print)
    with pytest.raises(ValueError, match="got experiment 'nosuch', expected some of ledgers"):
        claims.run_experiments(["nosuch"], folder, tiny_codec, tiny, print)
    (photos / "file").write_text("")
    with pytest.raises(OSError, match="is a file"):
        claims.run_experiments(["ledgers"], photos / "file", tiny_codec, tiny, print)


def test_a_command_names_what_is_not_the_default(tmp_path, tiny):
    said = claims.command("seeds", tiny, tmp_path, "w")
    assert "--training-steps 1" in said and said.endswith("--weights w") and "--photos" not in said
