"""Running experiments: what is written, what is not made twice, what is refused."""

import json

import pytest
from typer.testing import CliRunner

from conftest import read_table
from perco_lite.claims import run as claims
from perco_lite.claims.workbench import ClaimSettings
from perco_lite.cli.main import app
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


def test_the_command(tiny_weights, photos, capsys):
    run = CliRunner().invoke
    words = ["claims", "ledgers", "--weights", str(tiny_weights), "-o", str(photos / "out")]
    small = ["--crop", "64", "--photos", "2"]
    done = run(app, [*words, *small])
    assert done.exit_code == 0 and "ledgers: 10 rows" in done.output
    assert "there already" in run(app, [*words, *small]).output
    failed = run(app, [*words, "--crop", "65"])
    assert failed.exit_code == 2 and "expected a multiple of 64" in failed.output
    shown = run(app, ["claims", "--table", "-o", str(photos / "out")])
    assert shown.exit_code == 0 and "at most 0 bytes off" in shown.output
    assert "not measured yet" in shown.output
    told = json.loads(run(app, ["claims", "--table", "--json", "-o", str(photos / "out")]).output)
    assert len(told) > 30 and {"key", "claim", "where", "ours", "verdict", "why"} <= set(told[0])
    measured = [row for row in told if row["verdict"] != "not measured yet"]
    assert measured and all(row["interval"] is None for row in told if row not in measured)
