"""The whole chain on a tiny codec: plan, measure, store, decide, tell; and what is refused."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from conftest import read_table
from perco_lite import metrics
from perco_lite.claims import evidence, report, work
from perco_lite.claims.dated import load_list
from perco_lite.claims.decide import VERDICTS
from perco_lite.claims.evidence import Run, read_evidence
from perco_lite.claims.store import Store
from perco_lite.claims.trained import ShortTraining
from perco_lite.loading import weights_digest
from perco_lite.metrics import Unavailable

LIST = load_list()
EVERY = [claim.id for claim in (*LIST.claims, *LIST.ours)]
SHORT = {"limit": 2, "how": ShortTraining(steps=1, photos=3, seeds=2), "draws": 800}
QUICK = ["bytes", "under-100", "text-content", "bound"]


def run(codec, folder, names=(), dated=LIST, say=lambda line: None, **how):
    made = Run(dated, codec, folder, names, **SHORT | how)
    jobs = made.open("perco claims of a test")
    made.tell(jobs, 1, say)
    failed = made.measure(jobs, quiet=True)
    assert not failed, failed
    return made.finish(made.effects(), "perco claims of a test"), jobs


def test_the_whole_list_is_measured_and_decided(tiny_codec, captioned, networks):
    folder, said = captioned / "out", []
    found, jobs = run(tiny_codec, folder, say=said.append)
    decisions = found.claims | found.ours
    assert list(decisions) == EVERY and set(found.about["missing"]) == {"large"}
    assert "got 0 of large, expected 2 of each" in found.about["missing"]["large"]
    assert any(line.startswith("not measured: large (got 0") for line in said)
    assert any(line.startswith("grid: 8 rows to make") for line in said), said
    for name, one in decisions.items():
        assert (one.effect is None) == (name == "large") and one.verdict in VERDICTS
        assert one.effect is None or np.isfinite([one.effect, *one.interval]).all(), name
    rows = read_table(folder / "rows.csv")
    assert len(rows) == sum(len(tasks) for job in jobs for *_, tasks in job.photos)
    for row in rows:
        assert row["claims_sha256"] == LIST.sha256 and row["weights"] == weights_digest(tiny_codec)
        assert row["command"] == "perco claims of a test" and float(row["seconds"]) >= 0
    assert {row["photo"].partition("/")[0] for row in rows} == {"kodak", "coco_eval", "val"}
    assert not list((folder / "trainings").glob("*seed*")), "what is stored needs no weights"
    by_hand = [153 - float(r["bytes"]) for r in rows if r["codec"] == "the paper's account"]
    assert decisions["bytes"].effect == pytest.approx(np.mean(by_hand))
    again = read_evidence(folder, LIST)
    for name, one in decisions.items():
        assert (again.claims | again.ours)[name] == one
    text, pages = report.text(found), report.markdown(found)
    assert "A short run: it shows that the chain works" in text and LIST.sha256[:12] in text
    assert pages.count("| claim | where") == 2 and "**Claims of ours**: " in pages
    assert "| **not measured** (got 0 of large" in pages
    assert "18 not measured" not in text and "1 not measured" in report.counted(found.claims)


def test_a_killed_run_goes_on_and_gives_the_same_rows(tiny_codec, captioned, networks, monkeypatch):
    whole = captioned / "whole"
    run(tiny_codec, whole, QUICK)
    folder, add, count = captioned / "killed", Store.add, iter(range(100))

    def killed(self, *row):
        if next(count) == 7:
            raise KeyboardInterrupt
        add(self, *row)

    monkeypatch.setattr(Store, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_codec, folder, QUICK)
    monkeypatch.setattr(Store, "add", add)
    found, jobs = run(tiny_codec, folder, QUICK)
    rows = [read_table(place / "rows.csv", seconds=False) for place in (whole, folder)]
    assert rows[0] == rows[1]
    left = sum(len(tasks) for job in jobs for *_, tasks in job.photos)
    assert left == len(rows[0]) - 7
    again, jobs = run(tiny_codec, folder, QUICK)
    assert jobs == [] and again.claims == found.claims


def test_more_claims_and_more_figures_of_the_same_rows(tiny_codec, captioned, networks):
    """LPIPS of a row that has its bytes already; a figure that was there stays."""
    folder = captioned / "out"
    run(tiny_codec, folder, ["semantics"])
    run(tiny_codec, folder, ["bound"])
    rows = read_table(folder / "rows.csv")
    coco = [r for r in rows if r["photo"].startswith("coco") and r["codec"] == "perco"]
    assert {(bool(r["labels"]), bool(r["lpips_alex"])) for r in coco if r["rate"] == "0.0019"} == {
        (True, False)
    }
    run(tiny_codec, folder, ["flat"])
    rows = read_table(folder / "rows.csv")
    coco = [r for r in rows if r["photo"].startswith("coco") and r["codec"] == "perco"]
    assert all(r["labels"] and r["lpips_alex"] for r in coco if r["rate"] == "0.0019")


def test_a_training_that_fails_is_told_and_stops_nothing(
    tiny_codec, captioned, networks, monkeypatch
):
    def fails(*_):
        raise FloatingPointError("loss is nan at step 1; lower the learning rate")

    monkeypatch.setattr(work.trained, "train_short", fails)
    made = Run(LIST, tiny_codec, captioned / "out", ["grid", "under-100"], **SHORT)
    failed = made.measure(made.open("perco claims"), quiet=True)
    assert len(failed) == 8 and {error[:11] for _, error in failed} == {"loss is nan"}
    found = made.finish(made.effects(), "perco claims")
    assert found.ours["under-100"].effect is not None and found.claims["grid"].effect is None
    assert found.about["missing"]["grid"].startswith("8 rows could not be made, as val/0 trained")


def test_another_lists_results_are_refused(tiny_codec, captioned, networks):
    folder = captioned / "out"
    run(tiny_codec, folder, ["under-100"])
    before = (folder / "rows.csv").read_bytes()
    other = replace(LIST, sha256="0" * 64)
    for use in (lambda: run(tiny_codec, folder, dated=other), lambda: read_evidence(folder, other)):
        with pytest.raises(ValueError, match="made with the list .*; measure again, or take that"):
            use()
    longer = ShortTraining(steps=2, photos=3, seeds=2)
    with pytest.raises(ValueError, match="measured otherwise .training_steps: was 1, is 2.*name a"):
        run(tiny_codec, folder, how=longer)
    (folder / "claims.json").write_text('{"made_by": "me"}')
    with pytest.raises(ValueError, match="is not from perco claims; name another folder"):
        read_evidence(folder, LIST)
    with pytest.raises(FileNotFoundError, match="no claims.json in .*`perco claims -o"):
        read_evidence(captioned, LIST)
    assert (folder / "rows.csv").read_bytes() == before


def test_what_is_missing_is_told_before_anything_is_made(tiny_codec, captioned, monkeypatch):
    """Without networks, and of the photos that the list names only three."""
    monkeypatch.setattr(evidence, "work_through", lambda *_: pytest.fail("nothing to be made"))

    def without(net):
        raise Unavailable("LPIPS: no weights")

    monkeypatch.setattr(metrics, "load_lpips", without)
    made = Run(LIST, tiny_codec, captioned / "out", ["bound", "under-100"], draws=800)
    assert set(made.missing) == {"bound", "under-100"} and made.claims == []
    assert made.missing["under-100"] == (
        "got 3 of kodak, expected 24 photos in all; "
        "no kodim04, kodim05, kodim06, kodim07, kodim08, … (data/README.md)"
    )
    assert "LPIPS" in made.missing["bound"] and "3 of coco_eval" in made.missing["bound"]
    with pytest.raises(ValueError, match="got claim 'nosuch', expected some of bytes, diffusion"):
        Run(LIST, tiny_codec, captioned / "out", ["nosuch"])
    with pytest.raises(ValueError, match="expected 2 photos or more .* and 760 draws or more"):
        Run(LIST, tiny_codec, captioned / "out", draws=100)
    assert not (captioned / "out").exists() or not list((captioned / "out").iterdir())


def test_the_command_shares_work_and_tells(tiny_weights, captioned, perco, monkeypatch):
    """Two processes make the rows that one makes; claims that need no network."""
    monkeypatch.setattr(sys, "argv", ["perco", "claims"])  # who runs the tests may have no words
    names = ["--claims", "under-100, prior", "text-content", "--weights", tiny_weights]
    short = [*names, "--photos", 2, "--crop", 128, "--seeds", 2, "--training-steps", 1]
    one, two = captioned / "one", captioned / "two"
    code, out, err = perco("claims", *short, "-o", one, "--plan")
    assert code == 0 and "under-100: 2 rows to make" in err and not (one / "run.json").exists()
    code, _, err = perco("claims", *short, "bound", "large", "--strict", "-o", one)
    assert code == 2 and "not all can be measured here: " in err and "large (" in err
    assert not list(one.glob("rows*")), "nothing was begun"
    code, out, err = perco("claims", *short, "-o", one)
    assert code == 0, err
    assert "under-100" in out and "in all about" in err and "A short run" in out
    code, out, err = perco("claims", *short, "-o", one, "--plan")
    assert code == 0 and "under-100: 0 rows" in err and not (one / "rows.sqlite").exists()
    code, _, err = perco("claims", *short, "-o", two, "--processes", 2)
    assert code == 0, err
    kept = [read_table(place / "rows.csv", seconds=False) for place in (one, two)]
    losses = []
    for rows in kept:
        for row in rows:
            assert row.pop("command").startswith("perco ")
        losses.append([float(row.pop("v_loss") or 0) for row in rows])
    assert kept[0] == kept[1] and len(kept[0]) == 2 + 2 + 4
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # another number of threads rounds anew
    code, out, err = perco("claims", "--table", "--json", "-o", two)
    told = json.loads(out)
    assert code == 0 and told["claims_sha256"] == LIST.sha256 and told["crop"] == 128
    verdicts = {row["id"]: row for row in told["decisions"]}
    assert set(verdicts) == set(EVERY) and verdicts["under-100"]["effect"] is not None
    assert verdicts["flat"]["note"] == "not asked for"
    code, out, _ = perco("claims", "--table", "--markdown", "-o", two)
    assert code == 0 and out.count("| claim | where") == 2
