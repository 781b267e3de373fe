"""The files of an evaluation, and the promise that none of another's is written over.

    out.csv  the rows        out.json  settings and summary        out_pictures/CODEC/RATE/PHOTO.png

Paper: nothing of this.
Differs from the paper: PerCo (SD) writes its settings nowhere.
"""

import json
from contextlib import suppress
from pathlib import Path

from perco_lite.evaluation.table import check_writable
from perco_lite.files import write_whole

MADE_BY = "perco evaluate"  # says that a JSON file is ours, and may be written over


class EvaluationFiles:
    """Where an evaluation writes: NAME.csv, NAME.json and NAME_pictures/."""

    def __init__(self, table: Path):
        self.table = table
        self.summary = table.with_suffix(".json")
        self.pictures = table.with_name(f"{table.stem}_pictures")
        self.previous: dict = {}

    def picture(self, codec: str, rate: str, photo: str) -> Path:
        """PNG of what a codec made of a photo."""
        return self.pictures / codec / (rate or "all") / f"{photo}.png"

    def check(self) -> None:
        """Refuse what cannot be written (``OSError``) or is not ours (``ValueError``)."""
        if self.table.suffix != ".csv":
            raise ValueError(f"got output {self.table}, expected a name ending in .csv")
        for path in (self.table, self.summary):
            check_writable(path)
        if self.summary.exists():
            with suppress(ValueError, OSError):
                self.previous = json.loads(self.summary.read_text(encoding="utf-8"))
            if not isinstance(self.previous, dict) or self.previous.get("made_by") != MADE_BY:
                raise ValueError(
                    f"{self.summary} is not from {MADE_BY}; nothing was written: name another "
                    "output"
                )
        elif self.pictures.exists() and any(self.pictures.iterdir()):
            raise ValueError(
                f"{self.pictures} is not empty, and no {self.summary.name} says that it is from "
                f"{MADE_BY}; nothing was written: name another output"
            )

    def other_settings(self, settings: dict) -> str:
        """What to say of a table that was made with others."""
        before = self.previous.get("settings", {})
        differ = [name for name in settings if before.get(name) != settings[name]]
        what = "; ".join(f"{n}: was {before.get(n)}, is {settings[n]}" for n in differ)
        return (
            f"{self.table} was made with other settings ({what or 'their record is lost'}); "
            "nothing was written: name another output"
        )

    def start(self, settings: dict) -> None:
        """Leave word of what is being made, for a run that goes on after a crash."""
        about = {"made_by": MADE_BY, "finished": False, "settings": settings}
        self.write({**about, **{k: v for k, v in self.previous.items() if k not in about}})

    def write(self, about: dict) -> None:
        """Write the JSON, whole or not at all."""
        text = json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(self.summary, text.encode("utf-8", "surrogateescape"))
