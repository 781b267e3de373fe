"""The files a command reads and writes: what fails is one line each, and the others still run.

    paths ──expand──► files ──plan_outputs──► (file, its outputs) ──► … ──write_whole──► output
                 └────────────────┴── what cannot be done ──► Batch.fail ──► a line on stderr

No file that somebody else made is replaced, unless ``-o`` names it. Needs no torch, so that a wrong
path is told before anything is loaded.
"""

import os
from contextlib import suppress
from pathlib import Path

import typer
from PIL import Image

SOFTWARE = "perco_lite"  # written into our PNGs: these may be painted over
MAX_PERCO_BYTES = 2**22  # no valid file is half as long


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


def explain(error: Exception) -> str:
    """What went wrong, in one line without the library's own decoration."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "allocate" in message or "out of memory" in message:
        return "not enough memory for a photo of this size; make it smaller, or use another --device"
    return message


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
        if len(files) == 1 and output.suffix not in ("", suffix):
            error = ValueError(f"the output must end in {suffix}, or be a folder that exists")
            batch.fail(output, error)
            return []
        if len(files) > 1 and output.exists():
            batch.fail(output, ValueError("is a file, and there are several inputs; name a folder"))
            return []
    is_file = output is not None and output.suffix == suffix and not output.is_dir()
    is_file = is_file and len(files) == 1
    sources = {os.path.realpath(file): file for file in files}
    makers: dict[str, Path] = {}
    plan = []
    for file in files:
        if is_file:
            base = output
        else:
            base = (output or file.parent) / f"{file.stem}{suffix}"
        targets = [base.with_name(f"{base.stem}{tag}{suffix}") for tag in tags]
        if not is_file:
            targets = [_beside_others_work(target) for target in targets]
        keys = [os.path.realpath(target) for target in targets]
        if problem := _conflict(targets, keys, sources, makers):
            batch.fail(file, ValueError(problem))
            continue
        makers.update(dict.fromkeys(keys, file))
        plan.append((file, targets))
    return plan


def _conflict(targets, keys, sources: dict[str, Path], makers: dict[str, Path]) -> str | None:
    for target, key in zip(targets, keys, strict=True):
        if key in sources:
            return f"would write over the input {sources[key]}; name another output with -o"
        if key in makers:
            return (
                f"would write {target}, as {makers[key]} does; run it alone and name its output "
                "with -o"
            )
    return None


def _beside_others_work(target: Path) -> Path:
    """The target, or another name where there is a picture that this package did not make."""
    if target.suffix != ".png" or not target.exists():
        return target
    with suppress(OSError, ValueError, SyntaxError), Image.open(target) as image:
        if image.info.get("Software") == SOFTWARE:
            return target
    return target.with_stem(f"{target.stem}_decoded")


def read_perco(path: Path) -> bytes:
    """Bytes of a file, of which no more are read than a `.perco` file can have."""
    with path.open("rb") as stream:
        data = stream.read(MAX_PERCO_BYTES + 1)
    if len(data) > MAX_PERCO_BYTES:
        raise ValueError(
            f"over {MAX_PERCO_BYTES:,} bytes, not a .perco file: make one with `perco compress`"
        )
    return data


def write_whole(path: Path, data: bytes) -> None:
    """Write under another name, then rename: nobody ever sees half a file, Ctrl-C or not.

    Raises ``OSError`` naming ``path``.
    """
    fresh = path.with_name(f".perco_lite-{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_bytes(data)
        fresh.replace(path)
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror}); name another output with -o"
        ) from error
    finally:
        with suppress(OSError):
            fresh.unlink()
