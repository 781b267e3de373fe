"""Options that several commands have, and how any of them fails: one line, exit code 2.

error ──fail──► "error: what went wrong, and what to change" on stderr
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from perco_lite.files import explain

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
Files = Annotated[list[Path], typer.Argument(help=".perco files or folders of them.")]
DenoisingSteps = Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)]
PROBLEMS = (OSError, ValueError, RuntimeError, MemoryError, ImportError)  # with a message for users


def tell(error: Exception | str, where: object = "") -> None:
    """Say on stderr, in one line, what went wrong; ``where``: its file, if it does not say so."""
    message = error if isinstance(error, str) else explain(error)
    named = not str(where) or message.startswith((f"{where} ", f"{where}:"))
    typer.echo(f"error: {message if named else f'{where}: {message}'}", err=True)


def fail(error: Exception | str) -> NoReturn:
    """Tell an error and end with exit code 2."""
    tell(error)
    raise typer.Exit(2) from (error if isinstance(error, Exception) else None)


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """``fail`` with what goes wrong inside."""
    try:
        yield
    except typer.Exit:  # a RuntimeError, and told already
        raise
    except PROBLEMS as error:
        fail(error)
