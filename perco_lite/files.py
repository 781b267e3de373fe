"""Bytes on disk, whole or not at all, and errors in one line; needs no torch.

    picture, table, bytes ──write_whole──► a file that is never seen half written
    path ──read_perco──► the bytes of a `.perco` file, and no more than one can have
    text of a file or a name ──printable──► one bounded line that cannot steer a terminal
    folder ──check_weights──► an error, or nothing: all it names is a codec's, and may be imported

Paper: nothing on this.

Taught in notebook 00.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `perco --help` does not wait for it
    from PIL import Image

SOFTWARE = "perco_lite"  # written into our PNGs: these may be painted over
MAX_PAINTED = 16_000_000  # pixels of a file, unless more is asked for: ten bytes name 100 million
MAX_PERCO_BYTES = 2**22  # no valid file is half as long

# Errors that come with a message for users.
PROBLEMS = (OSError, ValueError, RuntimeError, MemoryError, ImportError, FloatingPointError)

# Library and classes of a codec's parts. diffusers imports whatever a folder of weights names.
PARTS = {
    "autoencoder": ("perco_lite.autoencoder", ("Autoencoder", "StableDiffusionAutoencoder")),
    "conditioner": ("perco_lite.condition", ("LocalConditioner",)),
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "tokenizer": (
        "transformers",
        ("PreTrainedTokenizerFast", "TokenizersBackend", "CLIPTokenizer", "CLIPTokenizerFast"),
    ),
    "scheduler": (  # those that can take a v-prediction
        "diffusers",
        tuple(
            f"{name}Scheduler"
            for name in (
                "DDIM DDPM DPMSolverMultistep DPMSolverSDE DPMSolverSinglestep DEISMultistep "
                "EulerDiscrete EulerAncestralDiscrete HeunDiscrete KDPM2Discrete "
                "KDPM2AncestralDiscrete LMSDiscrete PNDM SASolver TCD LCM UniPCMultistep"
            ).split()
        ),
    ),
}


def printable(text: object, limit: int = 1200) -> str:
    """Text that came from a file or a name, as one line that is safe to print.

    Escapes what a terminal obeys or does not show (line ends, ESC, U+009B, U+202E) as Python does;
    of more than ``limit`` characters the middle is left out.
    """
    text = _cut(str(text), limit)
    return _cut("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text), limit)


def _cut(text: str, limit: int) -> str:
    tail = limit // 3
    return text if len(text) <= limit else f"{text[: limit - tail - 3]} … {text[-tail:]}"


def explain(error: Exception) -> str:
    """What went wrong, in one bounded line without the library's own decoration."""
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        return printable(f"{named}{error.strerror}")
    message = printable(" ".join(str(error).split()), 600)
    if not message or not isinstance(error, PROBLEMS):
        message = f"{type(error).__name__}: {message}".removesuffix(": ")
    if isinstance(error, MemoryError) or "allocate" in message or "out of memory" in message:
        return (
            "not enough memory for a photo of this size; make it smaller, or use another --device"
        )
    return message


def list_folder(folder: Path, suffixes: frozenset[str]) -> tuple[list[Path], str]:
    """Files of a folder that end in ``suffixes``, by name, and a note of what is not read.

    The note is "" where all else are hidden files, and those that other commands read or write.
    """
    from perco_lite.pixels import PHOTO_SUFFIXES

    known = suffixes | PHOTO_SUFFIXES | {".perco", ".json"}
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [f for f in entries if f.suffix.lower() in suffixes and (f.is_file() or not f.exists())]
    other = [f for f in entries if f.is_dir() or f.suffix.lower() not in known]
    names = [f.name + "/" * f.is_dir() for f in other]
    if not names:
        return files, ""
    some = ", ".join(printable(name, 80) for name in names[:5])
    note = f"{folder}: {len(names)} not read: {some}{', …' if len(names) > 5 else ''}"
    if any(name.lower().endswith((".heic", ".heif")) for name in names):
        note += "; for .heic pip install 'perco_lite[heic]'"
    return files, note


def read_perco(path: Path) -> bytes:
    """Bytes of a file, of which no more are read than a `.perco` file can have."""
    with path.open("rb") as stream:
        data = stream.read(MAX_PERCO_BYTES + 1)
    if len(data) > MAX_PERCO_BYTES:
        raise ValueError(
            f"over {MAX_PERCO_BYTES:,} bytes, not a .perco file: make one with `perco compress`"
        )
    return data


def _are_few_steps(value) -> bool:
    """Whether a setting is timesteps by rate, each list falling, within 0 to 999."""
    return isinstance(value, dict) and all(
        isinstance(steps, list)
        and steps == sorted({s for s in steps if type(s) is int and 0 <= s < 1000}, reverse=True)
        for steps in value.values()
    )


def check_weights(folder: Path, bundled: bool = False) -> None:
    """Raise unless ``model_index.json`` of a folder names a codec, and parts out of PARTS alone.

    Nothing is imported. Raises FileNotFoundError or ValueError, in one line.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise FileNotFoundError(
            f"no bundled weights in {folder}; reinstall the package, or train your own "
            "(perco train codec) and pass their folder"
            if bundled
            else f"no model_index.json in {folder}, so it holds no codec; give a folder that "
            "`perco train codec` or save_pretrained wrote"
        )
    try:
        named = json.loads(index.read_text(encoding="utf-8"))
        kind = named["_class_name"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{index} is damaged; download or train these weights again") from error
    if kind != "PercoCodec":
        kind = kind if isinstance(kind, str) and kind.isidentifier() else repr(kind)
        theirs = (folder / "hyper_enc").is_dir()  # PerCo (SD)'s
        what = f"`perco convert {folder} NEW_FOLDER` makes one of it" if theirs else "check it"
        raise ValueError(f"{folder} holds a {kind:.60}, expected a PercoCodec; {what}")
    for part, source in named.items():
        if part not in PARTS and not isinstance(source, (list, dict)):
            continue  # settings
        if part == "few_steps" and _are_few_steps(source):
            continue
        library, classes = PARTS.get(part, ("", ()))
        if source not in [[library, name] for name in classes]:
            expected = f"expected {library}, {' or '.join(classes[:4])}" if classes else "unknown"
            raise ValueError(
                f"{folder} names code that is no codec's: {part!r:.60} is {source!r:.60}, "
                f"{expected}; nothing of it was run"
            )
        if (folder / part / f"{library}.py").exists():  # releases of diffusers would take this one
            raise ValueError(
                f"{folder} holds code of its own, {part}/{library}.py; nothing of it was run"
            )


def is_hub_id(weights: str) -> bool:
    """Whether weights are named as on the hub: ``owner/name``."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", weights) is not None


def fresh_name(path: Path) -> Path:
    """A name in the folder of ``path`` that nobody else takes, in whatever container they run."""
    return path.with_name(f".perco_lite-{os.urandom(8).hex()}.part")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Another name to write under, renamed at the end: nobody ever sees half a file, Ctrl-C or not.

    Raises ``OSError`` naming ``path``.
    """
    fresh = fresh_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        fresh.replace(path)
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror or error}); name another output with -o"
        ) from error
    finally:
        with suppress(OSError):
            fresh.unlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write bytes, whole or not at all; raises as ``whole``."""
    with whole(path) as fresh:
        fresh.write_bytes(data)


def write_csv(
    path: Path,
    rows: Iterable[Mapping],
    columns: Sequence[str] = (),
    digits: int | None = None,
) -> None:
    """Write a table, whole or not at all; default: every column that any row has.

    Empty where a row has none or None; ``digits``: significant ones of a float, None = all of them.
    With ``columns``, one row at a time is in memory. Names of files need not be text.
    """
    if not columns:
        rows = list(rows)
        columns = tuple(dict.fromkeys(key for row in rows for key in row))
    with (
        whole(path) as fresh,
        fresh.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            cells = (row.get(column) for column in columns)
            short = (f"{c:.{digits}g}" if digits and isinstance(c, float) else c for c in cells)
            writer.writerow(short)


def save_png(image: "Image.Image", path: Path) -> None:
    """Write a PNG that says who made it, whole or not at all."""
    from PIL.PngImagePlugin import PngInfo

    about, stream = PngInfo(), io.BytesIO()
    about.add_text("Software", SOFTWARE)
    image.save(stream, format="PNG", pnginfo=about)
    write_whole(path, stream.getvalue())
