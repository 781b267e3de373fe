"""The files a command reads and writes: what fails is one line each, and the others still run.

    paths ──expand──► files ──plan_outputs──► (file, its outputs) ──► … ──write_whole──► output
                 └────────────────┴── what cannot be done ──► Batch.fail ──► a line on stderr

    files ──decompress_files──► PNG files, a row each

No picture that something else made is replaced, unless ``-o`` names it. Torch is imported where
files are decoded, so that a wrong path is told before anything is loaded.
"""

import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from perco_lite.cli.options import note, tell
from perco_lite.files import SOFTWARE, list_folder, read_perco, save_png

if TYPE_CHECKING:  # `perco --help` does not wait for it
    from PIL import Image

SAME_PHOTO = 0.9  # of the indices, that say a file was made of a photo


class Batch:
    """Keeps count of failures; the command ends with exit code 2 if there was one."""

    def __init__(self):
        self.failed = False

    def fail(self, path: str | Path, error: Exception) -> None:
        """Say in one line which file failed and why."""
        self.failed = True
        tell(error, path)

    @contextmanager
    def item(self, path: str | Path) -> Iterator[None]:
        """The boundary of one file: whatever goes wrong inside is one line, and the others run."""
        try:
            yield
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            self.fail(path, error)

    def finish(self) -> None:
        if self.failed:
            raise typer.Exit(2)


def expand(paths: list[Path], suffixes: frozenset[str], batch: Batch) -> list[Path]:
    """Files as given and folders by their files, each once; what is missing fails alone."""
    files: dict[str, Path] = {}
    for path in paths:
        with batch.item(path):
            if not path.exists():
                raise FileNotFoundError("no such file or folder; check the path")
            for file in _files_in(path, suffixes) if path.is_dir() else [path]:
                files.setdefault(os.path.abspath(file), file)
    return list(files.values())


def _files_in(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    files, others = list_folder(folder, suffixes)
    if others:
        note(others)
    if not files:
        wanted = " ".join(sorted(suffixes))
        raise FileNotFoundError(f"no file in this folder ends in {wanted}; give another folder")
    return files


def without_painted(files: list[Path]) -> list[Path]:
    """The photos among them; pictures that this package painted are named in a note."""
    painted = {file: None for file in files if _is_painted(file)}
    if painted:
        some = ", ".join(file.name[:80] for file in [*painted][:5]) + ", …" * (len(painted) > 5)
        note(f"{len(painted)} skipped, painted by perco: {some}; the photo is what to compress")
    return [file for file in files if file not in painted]


def _is_painted(path: Path) -> bool:
    from PIL import Image

    with suppress(Exception), Image.open(path, formats=["PNG"]) as image:
        return image.info.get("Software") == SOFTWARE
    return False


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
    try:
        named = _is_named(output, len(files), suffix)
    except (OSError, ValueError) as error:
        batch.fail(output, error)
        return []
    makers: dict[tuple[str, str], Path | None] = {_key(file): None for file in files}
    plan = []
    for file in files:
        with batch.item(file):
            base = output if named else (output or file.parent) / f"{file.stem}{suffix}"
            targets = [base.with_name(f"{base.stem}{tag}{suffix}") for tag in tags]
            if not named:
                targets = [
                    t.with_stem(f"{t.stem}_decoded") if _is_foreign(t) else t for t in targets
                ]
            for target in targets:
                _check_target(target, makers, named)
            makers.update((_key(target), file) for target in targets)
            plan.append((file, targets))
    return plan


def _is_named(output: Path | None, count: int, suffix: str) -> bool:
    """Whether ``output`` is the one file to write, rather than a folder."""
    if output is None or output.is_dir():
        return False
    if count == 1 and output.suffix not in ("", suffix):
        raise ValueError(f"the output must end in {suffix}, or be a folder that exists")
    if count > 1 and output.exists():
        raise ValueError("is a file, but there are several inputs; name a folder")
    return count == 1 and output.suffix == suffix


def _key(path: Path) -> tuple[str, str]:
    """What a file is found by on any system: many know no case, and one way to write an é."""
    folder, name = os.path.split(os.path.realpath(path))
    return folder, unicodedata.normalize("NFC", name).casefold()


def _check_target(target: Path, makers: dict[tuple[str, str], Path | None], named: bool) -> None:
    """Raise ValueError for an input (maker None), another's output, a picture of others; OSError
    for what cannot be a file's name."""
    key = _key(target)
    if makers.get(key):
        raise ValueError(f"would write {target}, as {makers[key]} does; run it alone with -o")
    if key in makers:
        raise ValueError(f"would write over {target}, an input; name another output with -o")
    if not named and _is_foreign(target):
        raise ValueError(
            f"would write over {target}, which perco did not make; name an output with -o"
        )
    with suppress(FileNotFoundError, NotADirectoryError):
        target.lstat()


def _is_foreign(path: Path) -> bool:
    """Whether there is a PNG at ``path`` that this package did not write."""
    return path.suffix == ".png" and os.path.exists(path) and not _is_painted(path)


def check_replaced(codec, path: Path, image: "Image.Image", target: Path) -> None:
    """Raise FileExistsError where ``target`` is a file that the photo at ``path`` did not make.

    Encoded again at the rate of the file, whatever its caption, a photo has the file's size and
    its indices, but for a few on another device. Of several photos of that name, only the one that
    has the most may replace it.
    """
    if not os.path.lexists(target):
        return
    from perco_lite.coding.bitstream import unpack
    from perco_lite.data import PHOTO_SUFFIXES, load_photo

    with suppress(OSError, ValueError):  # what is no file of these weights
        file = unpack(read_perco(target), codec.model_id)

        def likeness(image: "Image.Image") -> float:
            if image.size != (file.width, file.height):
                return 0.0
            indices = codec.encode(image, file.rate.name)[0].cpu().numpy()
            return float((indices == file.indices).mean())

        own, rivals = likeness(image), [0.0]
        for other in path.parent.iterdir() if own >= SAME_PHOTO else ():
            same_stem = _key(other.with_suffix("")) == _key(path.with_suffix(""))
            is_photo = other.suffix.lower() in PHOTO_SUFFIXES and not _is_painted(other)
            if same_stem and is_photo and not other.samefile(path):
                with suppress(OSError, ValueError):
                    rivals.append(likeness(load_photo(other)))
        if own >= SAME_PHOTO and own > max(rivals):
            return
    raise FileExistsError(
        f"{target} is there, and another photo may have made it; --overwrite replaces it, -o names "
        "another output"
    )


def decompress_files(
    codec,
    plan: list[tuple[Path, list[Path]]],
    steps: int | None = None,
    guidance: float | None = None,
    seeds: tuple[int, ...] = (0,),
    on_error: Callable[[Path, Exception], None] | None = None,
    max_pixels: int | None = None,
    sampler: str | None = None,
) -> Iterator[dict]:
    """Decode files to PNGs, each to one target per seed; files of equal size share U-Net calls.

    Yields a row per picture: file, output, seed, width, height, seconds (of its group, shared out
    evenly). A file that cannot be decoded goes to ``on_error`` and the others still run.
    """
    from perco_lite.coding.bitstream import unpack
    from perco_lite.sampling import choose_steps
    from perco_lite.tiling import check_price, decode_in_groups

    def fail(path: Path, error: Exception) -> None:
        if on_error is None:
            raise error
        on_error(path, error)

    items, few = [], codec.config.few_steps
    for path, targets in plan:
        try:
            parsed = unpack(read_perco(path), codec.model_id)
            codec.conditioner.branch(parsed.rate.name)
            check_price(parsed, max_pixels, choose_steps(few, parsed.rate.name, steps, sampler))
        except Exception as error:
            fail(path, error)
            continue
        items += [(path, t, s, parsed) for t, s in zip(targets, seeds, strict=True)]
    files = [item[3] for item in items]

    def decode(group: list[int]) -> list:
        seeds = [items[i][2] for i in group]
        how = {"seed": seeds, "max_pixels": max_pixels, "sampler": sampler}
        return codec.decompress([files[i] for i in group], steps, guidance, **how)

    for number, image, seconds in decode_in_groups(files, decode):
        path, target, seed, parsed = items[number]
        try:
            if isinstance(image, Exception):
                raise image
            save_png(image, target)
        except Exception as error:
            fail(path, error)
            continue
        row = {"file": str(path), "output": str(target), "seed": seed}
        row |= {"width": parsed.width, "height": parsed.height}
        yield row | {"seconds": round(seconds, 3)}
