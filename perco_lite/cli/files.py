"""The files a command reads and writes: what fails is one line each, and the others still run.

    paths ──expand──► files ──plan_outputs──► (file, its outputs) ──► … ──write_whole──► output
                 └────────────────┴── what cannot be done ──► Batch.fail ──► a line on stderr

No picture that something else made is replaced, unless ``-o`` names it. Needs no torch, so that a
wrong path is told before anything is loaded.
"""

import os
from contextlib import suppress
from pathlib import Path

import typer
from PIL import Image

from perco_lite.files import SOFTWARE, explain


class Batch:
    """Keeps count of failures; the command ends with exit code 2 if there was one."""

    def __init__(self):
        self.failed = False

    def fail(self, path: str | Path, error: Exception) -> None:
        """Say in one line which file failed and why."""
        self.failed = True
        message = explain(error)
        named = message.startswith((f"{path} ", f"{path}:"))
        typer.echo(f"error: {message if named else f'{path}: {message}'}", err=True)

    def finish(self) -> None:
        if self.failed:
            raise typer.Exit(2)


def expand(paths: list[Path], suffixes: frozenset[str], batch: Batch) -> list[Path]:
    """Files as given and folders by their files, each once; what is missing fails alone."""
    files: dict[str, Path] = {}
    for path in paths:
        try:
            inside = _files_in(path, suffixes) if path.is_dir() else [path]
            if not path.exists():
                raise FileNotFoundError("no such file or folder; check the path")
        except OSError as error:
            batch.fail(path, error)
            continue
        for file in inside:
            files.setdefault(os.path.abspath(file), file)
    return list(files.values())


def _files_in(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    files = (f for f in folder.iterdir() if f.suffix.lower() in suffixes and f.is_file())
    files = sorted(f for f in files if not f.name.startswith("."))
    if not files:
        wanted = " ".join(sorted(suffixes))
        raise FileNotFoundError(f"no file in this folder ends in {wanted}; give another folder")
    return files


def plan_outputs(
    files: list[Path],
    output: Path | None,
    suffix: str,
    batch: Batch,
    tags: tuple[str, ...] = ("",),
) -> list[tuple[Path, list[Path]]]:
    """Where each file's results go, one per tag (``NAME_seed3.png`` for the tag ``_seed3``).

    Beside the input, or ``output``: a file if there is one input and the name ends in ``suffix``,
    else a folder. Whatever would overwrite an input, or what another input makes, fails. A picture
    ``NAME.png`` that is there and not ours stays, and ours is called ``NAME_decoded.png``.
    """
    if output is not None and not output.is_dir():
        problem = None
        if len(files) == 1 and output.suffix not in ("", suffix):
            problem = f"the output must end in {suffix}, or be a folder that exists"
        elif len(files) > 1 and output.exists():
            problem = "is a file, but there are several inputs; name a folder"
        if problem:
            batch.fail(output, ValueError(problem))
            return []
    named = output is not None and output.suffix == suffix and not output.is_dir()
    named = named and len(files) == 1
    makers: dict[str, Path | None] = {os.path.realpath(file): None for file in files}
    plan = []
    for file in files:
        base = output if named else (output or file.parent) / f"{file.stem}{suffix}"
        targets = [base.with_name(f"{base.stem}{tag}{suffix}") for tag in tags]
        if not named:
            targets = [
                t.with_stem(f"{t.stem}_decoded") if _is_foreign_picture(t) else t for t in targets
            ]
        problems = [_conflict(target, makers, named) for target in targets]
        if any(problems):
            batch.fail(file, ValueError(next(filter(None, problems))))
            continue
        makers.update((os.path.realpath(target), file) for target in targets)
        plan.append((file, targets))
    return plan


def _conflict(target: Path, makers: dict[str, Path | None], named: bool) -> str | None:
    """Why a target must not be written: an input (maker None), another's output, or foreign."""
    key = os.path.realpath(target)
    if makers.get(key):
        return f"would write {target}, as {makers[key]} does; run it alone with -o"
    if key in makers:
        return f"would write over {target}, an input; name another output with -o"
    if not named and _is_foreign_picture(target):
        return f"would write over {target}, which perco did not make; name an output with -o"
    return None


def _is_foreign_picture(path: Path) -> bool:
    """Whether there is a PNG at ``path`` that this package did not write."""
    if path.suffix != ".png" or not path.exists():
        return False
    with suppress(OSError, ValueError, SyntaxError), Image.open(path) as image:
        return image.info.get("Software") != SOFTWARE
    return True
