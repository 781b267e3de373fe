"""Options that several commands have, and what they say: one line each, safe for a terminal.

    error ──fail──► "error: what went wrong, and what to change" on stderr, exit code 2
    warning ──note──► "note: …" on stderr, once a command

``OneLine`` is the boundary of every command: nothing that goes wrong inside shows a traceback.
"""

import errno
import io
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup

from perco_lite.files import explain, printable

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Weights = Annotated[
    str | None, typer.Option(help="Folder or hub id of other weights than the bundled ones.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, mps; default: cuda where there is one.")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32 (default), bfloat16 or float16: half the memory, faster on a GPU."),
]
Files = Annotated[
    list[Path], typer.Argument(help=".perco files or folders of them.", readable=False)
]
DenoisingSteps = Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)]
OwnSteps = Annotated[
    int | None,
    typer.Option(help="Denoising steps; default: what the weights are made for.", min=1, max=1000),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace .perco files that other photos made, too.")
]
MaxPixels = Annotated[int, typer.Option(help="Paint no file of more pixels.", min=1)]

_noted: set[str] = set()  # by the command that runs


def emit(text: str, err: bool = False, end: bool = True) -> None:
    """Print text whose parts are ``printable``; a stream that takes nothing ends the command."""
    try:
        typer.echo(text, err=err, nl=end)
    except OSError as error:
        stream = sys.stderr if err else sys.stdout
        with suppress(OSError, ValueError):  # else Python tries once more as it ends, and complains
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if error.errno == errno.EPIPE or err:  # a reader like `head` has had enough
            raise typer.Exit(2 if err else 1) from error
        fail(f"cannot write to standard output ({error.strerror})")


def say(text: str, err: bool = False) -> None:
    """Print one line, in which names and texts of files may be."""
    emit(printable(text), err)


def note(text: object) -> None:
    """Say on stderr what is good to know, once a command."""
    if str(text) not in _noted:
        _noted.add(str(text))
        say(f"note: {text}", err=True)


def tell(error: Exception | str, where: object = "") -> None:
    """Say on stderr, in one line, what went wrong; ``where``: its file, if it does not say so."""
    message = error if isinstance(error, str) else explain(error)
    where = printable(where)
    named = not where or message.startswith((f"{where} ", f"{where}:"))
    say(f"error: {message if named else f'{where}: {message}'}", err=True)


def fail(error: Exception | str) -> NoReturn:
    """Tell an error and end with exit code 2."""
    tell(error)
    raise typer.Exit(2) from (error if isinstance(error, Exception) else None)


class OneLine(TyperGroup):
    """Commands that fail in one line and exit code 2, whatever happens; warnings become notes."""

    def main(self, *args, **kwargs):
        _noted.clear()
        with warnings.catch_warnings():
            show = warnings.showwarning

            def as_note(message, category, *where, **more):
                if issubclass(category, UserWarning):
                    return note(message)
                return show(message, category, *where, **more)

            warnings.showwarning = as_note
            try:
                _check_working_folder()
                code = super().main(*args, **kwargs | {"standalone_mode": False})
                emit("", end=False)  # what was printed otherwise, too, has to get out
            except Exception as error:
                code = _exit_code(error)
        sys.exit(code if isinstance(code, int) else 0)


def _check_working_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:  # a library of torch's ends the process
        raise OSError("the working folder is gone; change to one that is there") from error


def _exit_code(error: Exception) -> int:
    """Tell what ended a command; the exit code for it."""
    with suppress(typer.Exit):
        if isinstance(error, typer.Exit):
            return error.exit_code
        if hasattr(error, "show"):  # click's own, for options that make no sense
            usage = io.StringIO()
            error.show(file=usage)
            emit("\n".join(map(printable, usage.getvalue().splitlines())), err=True)
            return error.exit_code
        tell("stopped" if isinstance(error, typer.Abort) else error)
    return 2
