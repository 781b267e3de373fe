"""The files a command reads and writes: what fails is one line each, and the others still run.

    paths ──expand──► files ──plan_outputs──► (file, its outputs) ──► … ──write_whole──► output
                 └────────────────┴── what cannot be done ──► Batch.fail ──► a line on stderr

    files ──decompress_files──► PNG files, a row each

No picture that something else made is replaced, unless ``-o`` names it. Torch is imported where
files are decoded, so that a wrong path is told before anything is loaded.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import typer
from PIL import Image

from perco_lite.cli.options import tell
from perco_lite.files import SOFTWARE, read_perco, save_png


class Batch:
    """Keeps count of failures; the command ends with exit code 2 if there was one."""

    def __init__(self):
        self.failed = False

    def fail(self, path: str | Path, error: Exception) -> None:
        """Say in one line which file failed and why."""
        self.failed = True
        tell(error, path)

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


def decompress_files(
    codec,
    plan: list[tuple[Path, list[Path]]],
    steps: int = 20,
    guidance: float | None = None,
    seeds: tuple[int, ...] = (0,),
    on_error: Callable[[Path, Exception], None] | None = None,
) -> Iterator[dict]:
    """Decode files to PNGs, each to one target per seed; files of equal size share U-Net calls.

    Yields a row per picture: file, output, seed, width, height, seconds (of its group, shared out
    evenly). A file that cannot be decoded goes to ``on_error`` and the others still run.
    """
    from perco_lite.coding.bitstream import unpack
    from perco_lite.tiling import decode_in_groups

    def fail(path: Path, error: Exception) -> None:
        if on_error is None:
            raise error
        on_error(path, error)

    items = []
    for path, targets in plan:
        try:
            parsed = unpack(read_perco(path), codec.model_id)
            codec.conditioner.branch(parsed.rate.name)
        except (OSError, ValueError) as error:
            fail(path, error)
            continue
        items += [(path, t, s, parsed) for t, s in zip(targets, seeds, strict=True)]
    files = [item[3] for item in items]

    def decode(group: list[int]) -> list:
        seeds = [items[i][2] for i in group]
        return codec.decompress([files[i] for i in group], steps, guidance, seed=seeds)

    for number, image, seconds in decode_in_groups(files, decode):
        path, target, seed, parsed = items[number]
        try:
            if isinstance(image, Exception):
                raise image
            save_png(image, target)
        except (MemoryError, RuntimeError, ValueError, OSError) as error:
            fail(path, error)
            continue
        row = {"file": str(path), "output": str(target), "seed": seed}
        row |= {"width": parsed.width, "height": parsed.height}
        yield row | {"seconds": round(seconds, 3)}
