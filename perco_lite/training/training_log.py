"""What a run tells: a row of log.csv at every step, and TensorBoard where it is asked for.

    {"step": 7, "loss": 0.51, …} ──┬──► log.csv
                                   └──► tensorboard/ (tensorboard --logdir OUTPUT)

A run that goes on from a checkpoint repeats the steps after it, so their rows are dropped first.

Paper: nothing on this.
"""

import csv
import importlib.util
from pathlib import Path


def require_tensorboard() -> None:
    """Raise ImportError naming the extra where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "TensorBoard is not installed: pip install 'perco_lite[train]', or leave --tensorboard "
            "out; log.csv has the same numbers"
        )


class TrainingLog:
    """A CSV with one row a step; its header comes from the first row."""

    def __init__(self, path: Path, step: int, accelerator=None):
        """Go on after ``step``; ``accelerator`` also sends the rows to its trackers."""
        _trim(path, step)
        self.fresh = not path.exists() or not path.stat().st_size
        self.file = path.open("a", newline="")
        self.accelerator = accelerator

    def write(self, row: dict) -> None:
        if self.fresh:
            csv.writer(self.file).writerow(row)
            self.fresh = False
        csv.writer(self.file).writerow(
            f"{v:.6g}" if isinstance(v, float) else v for v in row.values()
        )
        self.file.flush()
        if self.accelerator:
            numbers = {name: value for name, value in row.items() if name != "step"}
            self.accelerator.log(numbers, step=row["step"])


def _trim(path: Path, step: int) -> None:
    """Drop rows after the checkpoint's step: those steps are about to be repeated."""
    if path.exists() and path.stat().st_size:
        header, *rows = path.read_text().splitlines()
        kept = [row for row in rows if int(row.split(",")[0]) <= step]
        path.write_text("\n".join([header, *kept]) + "\n")
