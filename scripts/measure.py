"""Measure anew everything that data/results/ keeps, one command after another: `make evidence`.

    python scripts/measure.py                      all steps; what is finished is not run again
    python scripts/measure.py --only kodak claims  some steps; --skip leaves some out
    python scripts/measure.py --list               the steps, their commands, and how they stand
    python scripts/measure.py --processes 1        that share photos; else two, or one a GPU
    python scripts/measure.py --short              the chain of RQ1 to RQ5 in minutes, on two of
        scikit-image's photos: out/short/, figures too; data/results/ stays as it is

A step is the commands that data/results/README.md records, run in the repository's folder. What it
wrote before is taken away when weights, index prior, caption table, file format or commands have
changed since, or with --force; a step that was broken off goes on where it stopped. A step that
fails does not stop the others; the exit code is then 1. Logs: out/evidence/STEP.log.
Hours: the claims alone took 86 minutes on two cores of an Intel Xeon. Photos where PERCO_LITE_DATA
points (data/README.md).
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from steps import SHORT, STEPS, Step

from perco_lite.files import write_whole

ROOT = Path(__file__).resolve().parents[1]


def fingerprint(root: Path = ROOT) -> str:
    """Digest of what the figures depend on: weights, prior, caption table, written format."""
    from perco_lite.coding.bitstream import WRITTEN_VERSION
    from perco_lite.coding.entropy_coding import caption_table_id
    from perco_lite.coding.index_prior import prior_table_id

    ids = f"version {WRITTEN_VERSION} captions {caption_table_id()} prior {prior_table_id()}"
    digest = hashlib.sha256(ids.encode())
    for path in sorted((root / "perco_lite" / "weights").rglob("*")):
        if path.suffix in (".safetensors", ".json") and path.parent.name != "captioner":
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Evidence:
    """The steps of one repository, and how they stand: ``stamps.json`` of ``folder``."""

    def __init__(
        self, steps: tuple[Step, ...], root: Path, made_of: str, folder: str = "out/evidence"
    ):
        self.steps, self.root, self.made_of = steps, root, made_of
        self.processes = 1  # of evaluations
        self.folder = root / folder
        self.path = self.folder / "stamps.json"
        self.stamps: dict[str, dict] = {}
        if self.path.exists():
            self.stamps = json.loads(self.path.read_text(encoding="utf-8"))

    def key(self, step: Step) -> str:
        what = repr(replace(step, minutes=0))
        return f"{self.made_of} {hashlib.sha256(what.encode()).hexdigest()[:8]}"

    def state(self, step: Step) -> str:
        """ "finished", "broken off", "out of date" or "not run"."""
        stamp = self.stamps.get(step.name)
        if stamp is None:
            return "not run"
        if stamp["key"] != self.key(step):
            return "out of date"
        whole = all((self.root / path).exists() for path in step.makes)
        return "finished" if "seconds" in stamp and whole else "broken off"

    def describe(self, step: Step) -> str:
        stamp = self.stamps.get(step.name, {})
        when = f", {stamp['date']}, {stamp['seconds']:,.0f} s" if "seconds" in stamp else ""
        return f"{step.name:15} {self.state(step)}{when}"

    def minutes(self, step: Step, force: bool = False) -> float:
        """About how long a step will take: as it did last, or as it says; 0 where it is done."""
        if self.state(step) == "finished" and not force:
            return 0
        return self.stamps.get(step.name, {}).get("seconds", 60 * step.minutes) / 60

    def run(self, step: Step, force: bool = False) -> bool:
        """Run a step unless it is finished; tells in one line; returns whether it is finished."""
        state = self.state(step)
        if state == "finished" and not force:
            print(self.describe(step), flush=True)
            return True
        if missing := missing_photos(step):
            print(f"{step.name:15} FAILED: no photos in {', '.join(missing)} (data/README.md)")
            return False
        if state != "broken off" or force:
            self._clear(step)
        self._stamp(step, {})
        started, log = time.monotonic(), self.folder / f"{step.name}.log"
        problem = self._commands(step, log)
        took = time.monotonic() - started
        if problem:
            print(f"{step.name:15} FAILED after {took:,.0f} s: {problem}; {log}", flush=True)
            return False
        self._stamp(step, {"seconds": round(took, 1), "date": time.strftime("%Y-%m-%d")})
        print(f"{step.name:15} done in {took:,.0f} s", flush=True)
        return True

    def _commands(self, step: Step, log: Path) -> str:
        """Run the commands of a step; what went wrong, or an empty text."""
        with log.open("w", encoding="utf-8") as stream:
            for command in step.commands:
                stream.write(f"$ {command}\n")
                stream.flush()
                try:
                    code = run_command(command, self.root, stream, self.processes)
                except OSError as error:
                    return f"{command.split()[0]}: {error}"
                if code:
                    return f"exit code {code} of `{command}`: {last_line(log)}"
        absent = [path for path in step.makes if not (self.root / path).exists()]
        return f"did not make {', '.join(absent)}" if absent else ""

    def _clear(self, step: Step) -> None:
        for pattern in step.stale:
            for path in sorted(self.root.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _stamp(self, step: Step, facts: dict) -> None:
        self.stamps[step.name] = {"key": self.key(step), **facts}
        write_whole(self.path, (json.dumps(self.stamps, indent=1) + "\n").encode())


def run_command(command: str, root: Path, log, processes: int = 1) -> int:
    """Run a command as recorded, without a shell; `> FILE` is written whole or not at all.

    ``processes`` share the photos of `perco evaluate`: networks of photos one by one fill no core
    but the first.
    """
    words = shlex.split(command)
    words, target = (words[:-2], root / words[-1]) if ">" in words[-2:-1] else (words, None)
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "perco":  # of this environment, before any other on the path
        words[:1] = [sys.executable, "-m", "perco_lite.cli"]
    env = dict(os.environ)
    if processes > 1 and words[2:4] == ["perco_lite.cli", "evaluate"]:
        words[1:1] = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    if target is None:
        return subprocess.run(words, cwd=root, env=env, stdout=log, stderr=log).returncode
    done = subprocess.run(words, cwd=root, env=env, stdout=subprocess.PIPE, stderr=log)
    if done.returncode == 0:
        write_whole(target, done.stdout)
    return done.returncode


def usual_processes() -> int:
    """One for each GPU, for two would want one each; else two, if there are two cores."""
    import torch

    return torch.cuda.device_count() or min(2, os.cpu_count() or 1)


def missing_photos(step: Step) -> list[str]:
    """Folders that a step needs and `find_data` does not find."""
    if not step.photos:
        return []
    from perco_lite.data import find_data

    return [name for name in step.photos if find_data(name) is None]


def last_line(log: Path) -> str:
    """What a program said last, without the bars that it drew over and over."""
    lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def main(arguments: list[str] | None = None, steps: tuple[Step, ...] = STEPS) -> int:
    """Exit code: 0 where every chosen step is finished, 1 where one failed, 2 for a wrong name."""
    arguments = sys.argv[1:] if arguments is None else arguments
    short = "--short" in arguments  # asked first: its steps have the same names
    steps = SHORT if short else steps
    names = [step.name for step in steps]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=names, metavar="STEP", default=names)
    parser.add_argument("--skip", nargs="+", choices=names, metavar="STEP", default=[])
    parser.add_argument("--list", action="store_true", help="say how the steps stand; run none")
    parser.add_argument("--short", action="store_true", help="minutes; into out/short/ alone")
    parser.add_argument("--force", action="store_true", help="run finished steps again")
    parser.add_argument("--processes", type=int, help="of evaluations; 2, or a process a GPU")
    options = parser.parse_args(arguments)
    evidence = Evidence(steps, ROOT, fingerprint(), "out/short" if short else "out/evidence")
    chosen = [s for s in steps if s.name in options.only and s.name not in options.skip]
    if options.list:
        for step in chosen:
            print("\n    ".join([evidence.describe(step), *step.commands]))
        return 0
    evidence.processes = options.processes or usual_processes()
    minutes = {step.name: evidence.minutes(step, options.force) for step in chosen}
    each = ", ".join(f"{name} {about:.0f}" for name, about in minutes.items() if about)
    print(f"plan: {sum(minutes.values()):.0f} minutes ({each or 'all is there'})", file=sys.stderr)
    os.environ.setdefault("TQDM_MININTERVAL", "30")  # bars in a log file
    finished = [evidence.run(step, options.force) for step in chosen]
    print(f"{sum(finished)} of {len(chosen)} steps finished; logs in {evidence.folder}")
    return 0 if all(finished) else 1


if __name__ == "__main__":
    sys.exit(main())
