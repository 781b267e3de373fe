"""What a run keeps on disk: its log, and folders that are replaced whole and found after a cut.

    write ──► NAME.new ──rename──► NAME ──rename──► NAME.old, which goes when the next is written
    killed anywhere ──► NAME, NAME.new or NAME.old has the last whole one

Paper: nothing on this.
"""

import csv
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors import SafetensorError

from perco_lite import __version__
from perco_lite.files import explain, write_whole
from perco_lite.training.settings import TrainingSettings

FREE = ("output", "minutes", "checkpoint_minutes", "tensorboard")  # change nothing that is learned


class Counter:
    """Steps and seconds so far, with the options and the version; saved with the checkpoint."""

    FILE = "custom_checkpoint_1.pkl"  # written last; 0 is the EMA

    def __init__(self, settings: TrainingSettings):
        self.step, self.seconds = 0, 0.0
        plain = {n: str(v) if isinstance(v, Path) else v for n, v in asdict(settings).items()}
        self.settings, self.began_with = plain, plain

    def state_dict(self) -> dict:
        counted = {"step": self.step, "seconds": self.seconds}
        return {**counted, "version": __version__, "settings": self.settings}

    def load_state_dict(self, state: dict) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self.began_with = state.get("settings", {})  # 0.1.0's has none

    def changed(self) -> str:
        """Options that are others than those of the checkpoint, with both values, in one line."""
        old, new = self.began_with, self.settings
        found = [n for n in new if n in old and new[n] != old[n] and n not in FREE]
        said = [f"--{n.replace('_', '-')} was {old[n]!s:.80}, is {new[n]!s:.80}" for n in found]
        return "; ".join(said[:8]) + (f"; and {len(said) - 8} more" if len(said) > 8 else "")


def beside(place: Path, suffix: str) -> Path:
    """NAME.suffix."""
    return place.with_name(f"{place.name}.{suffix}")


class TrainingLog:
    """``log.csv``, one row a step, and the trackers of an accelerator; silent but on rank 0.

    Steps after ``step`` are about to be repeated, so their rows are dropped first.
    """

    def __init__(self, path: Path, step: int, accelerator: Accelerator):
        self.accelerator, self.path = accelerator, path
        if accelerator.is_main_process and path.exists() and path.stat().st_size:
            header, *rows = path.read_text(errors="replace").splitlines()
            split = [row.split(",") for row in rows if row.count(",") == header.count(",")]
            kept = [",".join(r) for r in split if r[0].isdecimal() and int(r[0]) <= step]
            write_whole(path, ("\n".join([header, *kept]) + "\n").encode())

    def write(self, row: dict) -> None:
        """Append a row; the first one's names are the header."""
        self.accelerator.log({n: v for n, v in row.items() if n != "step"}, step=row["step"])
        if not self.accelerator.is_main_process:
            return
        fresh = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(row)
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in row.values())


@contextmanager
def fresh_folder(place: Path) -> Iterator[Path]:
    """NAME.new, to be written and ``put_in_place``; OSError, in one line, where that fails."""
    fresh = beside(place, "new")
    try:
        yield fresh
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise OSError(
            f"cannot write {place} ({explain(error):.200}): make room and run again; the one "
            "before it, if any, stays in use"
        ) from error


def put_in_place(place: Path) -> None:
    """NAME.new becomes NAME, and NAME becomes NAME.old; OSError for a file that is empty."""
    empty = [
        f.name for f in beside(place, "new").rglob("*") if f.is_file() and not f.stat().st_size
    ]
    if empty:  # as a full disk may leave it
        raise OSError(f"{empty[0]} is empty")
    shutil.rmtree(beside(place, "old"), ignore_errors=True)
    if place.exists():
        place.rename(beside(place, "old"))
    beside(place, "new").rename(place)


def candidates(place: Path) -> list[Path]:
    """Folders to go on from, the best first; NAME.new only where its last file is whole."""
    new = beside(place, "new")
    found = [place, *([new] if read_counter(new) else []), beside(place, "old")]
    return [folder for folder in found if folder.is_dir()]


def settle(place: Path, used: Path | None = None) -> None:
    """Make NAME of the folder that was ``used``, or of what a cut left; NAME.new goes.

    A NAME that could not be used stays as NAME.damaged. Without ``used``, NAME.new is whole where
    there is a NAME.old.
    """
    new, old = beside(place, "new"), beside(place, "old")
    if not used and not place.exists() and old.exists():
        used = new if new.exists() else old
    if used and used != place:
        if place.exists():
            shutil.rmtree(beside(place, "damaged"), ignore_errors=True)
            place.rename(beside(place, "damaged"))
        used.rename(place)
    shutil.rmtree(new, ignore_errors=True)


def read_counter(folder: Path) -> dict:
    """State of a checkpoint's ``Counter``; {} where it cannot be read."""
    try:
        return torch.load(folder / Counter.FILE, weights_only=True)
    except Exception:  # cut anywhere, pickles raise a dozen kinds
        return {}


def misfit(folder: Path, counter: Counter, error: Exception) -> ValueError:
    """Why a checkpoint cannot be gone on from, and what to do, in one bounded line."""
    state = read_counter(folder)
    counter.began_with, version = state.get("settings", {}), state.get("version", "0.1.0")
    changed = f" ({counter.changed()})" if counter.changed() else ""
    other = f", or with pip install perco_lite=={version}" if version != __version__ else ""
    return ValueError(
        f"{folder} does not fit ({explain(error):.200}): it is damaged, or was written by "
        f"perco_lite {version} or with other options{changed}; go on with those{other}, or name "
        "another output with -o"
    )
