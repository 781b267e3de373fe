"""measure.py runs steps once, goes on after a failure, and starts anew what is out of date."""

import json
import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
COUNT = "open('runs.txt', 'a').write('x')"  # how often a step ran


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("measure")


@pytest.fixture
def measure(script, tmp_path, monkeypatch, capsys):
    """Run steps in an empty repository: (exit code, what was said, how often a step ran)."""
    monkeypatch.setattr(script, "ROOT", tmp_path)
    state = {"of": "these weights"}
    monkeypatch.setattr(script, "fingerprint", lambda root=None: state["of"])

    def measure(*steps, arguments=()):
        code = script.main(list(arguments), steps)
        runs = tmp_path / "runs.txt"
        return code, capsys.readouterr().out, len(runs.read_text()) if runs.exists() else 0

    measure.state = state
    return measure


def python(code: str) -> str:
    return f'python -c "{code}"'


def writes(script, name="one", stale=(), code=COUNT):
    command = python(f"{code}; open('{name}.csv', 'w').write('figures')")
    return script.Step(name, (command,), makes=(f"{name}.csv",), stale=stale)


def test_a_finished_step_is_not_run_again(script, measure, tmp_path):
    step = writes(script)
    code, said, runs = measure(step)
    assert code == 0 and runs == 1 and re.match(r"one +done in \d+ s\n1 of 1 steps", said)
    code, said, runs = measure(step)
    assert code == 0 and runs == 1 and re.match(r"one +finished, \d{4}-\d\d-\d\d, \d+ s\n", said)
    assert measure(step, arguments=["--force"])[2] == 2
    (tmp_path / "one.csv").unlink()  # what it made is gone
    assert measure(step)[2] == 3
    measure.state["of"] = "other weights"
    assert "out of date" in measure(step, arguments=["--list"])[1]
    assert measure(step)[2] == 4 and measure(step)[2] == 4
    other = writes(script, code=COUNT + "; 1 + 1")  # another command
    assert measure(other)[2] == 5


def test_the_plan_says_how_long_it_will_take(script, measure):
    long = script.Step("long", (python("1"),), minutes=90)
    evidence = script.Evidence((long,), script.ROOT, "these weights")
    assert evidence.minutes(long) == 90
    measure(writes(script), long)
    again = script.Evidence((long,), script.ROOT, "these weights")
    assert again.minutes(long) == 0 and again.minutes(long, force=True) < 5
    assert again.key(long) == again.key(script.replace(long, minutes=1)), "a guess is no command"


def test_a_failure_stops_its_step_and_no_other(script, measure, tmp_path):
    words = "import sys; print('no photos here', file=sys.stderr); sys.exit(3)"
    bad = script.Step("bad", (python(words), python(COUNT)))
    code, said, runs = measure(bad, writes(script))
    assert code == 1 and runs == 1, "the second command of a failed step must not run"
    assert re.search(r"bad +FAILED after \d+ s: exit code 3 of .*: no photos here; .*bad.log", said)
    assert "1 of 2 steps finished" in said
    assert (tmp_path / "out/evidence/bad.log").read_text().startswith("$ python -c")
    empty = script.Step("empty", (python("1"),), makes=("gone.csv",))
    assert "did not make gone.csv" in measure(empty)[1]
    assert "nosuchprogram" in measure(script.Step("gone", ("nosuchprogram",)))[1]


def test_what_is_out_of_date_is_taken_away_but_not_what_was_broken_off(script, measure, tmp_path):
    old, pictures = tmp_path / "old.csv", tmp_path / "old_pictures"
    breaks = "1 / (len(open('runs.txt').read()) - 1)"  # in the first run
    command = python(f"{COUNT}; open('old.csv', 'a').write('row '); {breaks}")
    step = script.Step("rows", (command,), makes=("old.csv",), stale=("old*",))
    old.write_text("of other weights ")
    pictures.mkdir()
    assert measure(step)[0] == 1  # broken off behind its first row
    assert old.read_text() == "row " and not pictures.exists()
    assert "broken off" in measure(step, arguments=["--list"])[1]
    assert measure(step)[0] == 0 and old.read_text() == "row row "  # went on
    assert measure(step, arguments=["--force"])[0] == 0 and old.read_text() == "row "


def test_some_steps(script, measure):
    steps = [writes(script, name) for name in ("first", "two", "three")]
    said = measure(*steps, arguments=["--only", "three", "first", "--skip", "first"])[1]
    assert "three" in said and "first" not in said and "two" not in said
    with pytest.raises(SystemExit) as stopped:
        measure(*steps, arguments=["--only", "four"])
    assert stopped.value.code == 2
    assert "two" in measure(*steps, arguments=["--list"])[1]


def test_output_into_a_file_is_whole_or_not_there(script, measure, tmp_path):
    good = script.Step("good", (python("print(42)") + " > out/answer.json",))
    bad = script.Step("bad", (python("print(1); 1 / 0") + " > out/half.json",))
    assert measure(good, bad)[0] == 1
    assert json.loads((tmp_path / "out/answer.json").read_text()) == 42
    assert not (tmp_path / "out/half.json").exists()


def test_missing_photos_are_named_before_anything_is_taken_away(
    script, measure, tmp_path, monkeypatch
):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache")
    (tmp_path / "kept.csv").write_text("figures")
    step = script.Step("kodak", (python(COUNT),), ("kodak",), stale=("kept.csv",))
    code, said, runs = measure(step)
    assert code == 1 and runs == 0 and "no photos in kodak (data/README.md)" in said
    assert (tmp_path / "kept.csv").exists()


def test_the_steps_are_what_the_results_say_made_them(script):
    """The commands of data/results/README.md, word by word, and scripts that are there."""
    commands = {c for step in script.STEPS for c in step.commands}
    listed = (ROOT / "data/results/README.md").read_text(encoding="utf-8")
    rows = [line for line in listed.splitlines() if line.startswith("| `")]
    found = re.findall(r"`((?:perco|python) [^`]*)`", "\n".join(rows))
    assert len(found) > 10 and set(found) <= commands, set(found) - commands
    for command in commands:
        for path in re.findall(r"scripts/\w+\.py", command):
            assert (ROOT / path).is_file(), path
    assert len({step.name for step in script.STEPS}) == len(script.STEPS)
    assert "\nevidence: " in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_fingerprint_follows_the_weights(script, tmp_path):
    (tmp_path / "perco_lite/weights/unet").mkdir(parents=True)
    weights = tmp_path / "perco_lite/weights/unet/model.safetensors"
    weights.write_bytes(b"1")
    first = script.fingerprint(tmp_path)
    assert first == script.fingerprint(tmp_path)
    weights.write_bytes(b"2")
    assert first != script.fingerprint(tmp_path)


def test_the_short_run_is_the_whole_chain_and_touches_no_results(script, measure, tmp_path):
    """Every table of RQ1 to RQ5 and their figures, of sample photos, below out/short/."""
    full = {step.name: step for step in script.STEPS}
    for step in script.SHORT:
        assert step.name in full
        told = " ".join((*step.commands, *step.makes, *step.stale))
        assert "data/results" not in told and "out/short/" in told
        if step.name != "figures":
            (short,), (long, _) = step.commands, full[step.name].commands
            options = [re.search(rf"{name} (\S+)", short)[1] for name in ("--codecs", "--metrics")]
            assert all(option in long for option in options), "the same codecs and measures"
            assert "perco evaluate samples" in short and "--strict" in long
    said = measure(arguments=["--short", "--list"])[1]
    assert "out/short/rates.csv" in said and "bench" not in said
    assert "\nevidence-short: " in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_an_evaluation_is_shared_among_processes(script, measure, monkeypatch):
    ran = []

    def run(words, **how):
        ran.append((words[1:], how["env"].get("OMP_NUM_THREADS")))
        return script.subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(script.subprocess, "run", run)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    steps = [script.Step(n, (f"perco {n} kodak",)) for n in ("evaluate", "claims")]
    assert measure(*steps, arguments=["--processes", "2"])[0] == 0
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    (shared, threads), (alone, _) = ran
    assert shared == [*launch, "-m", "perco_lite.cli", "evaluate", "kodak"] and int(threads) >= 1
    assert alone == ["-m", "perco_lite.cli", "claims", "kodak"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert measure(steps[0], arguments=["--force"])[0] == 0
    assert ran[-1][0] == ["-m", "perco_lite.cli", "evaluate", "kodak"], "two want a GPU each"
