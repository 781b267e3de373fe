"""The `perco` commands that need other models than the codec: their options, and what they write.

    perco caption FOLDER ──► captions.json      perco convert CHECKPOINT ──► a codec's folder
    perco compress, of a photo without a caption ──caption_writer──► one

As in ``cli``, what a command needs is imported when it runs.
"""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perco_lite.cli.files import Batch
from perco_lite.cli.options import Device, fail, note, say
from perco_lite.files import explain, fresh_name, write_whole

if TYPE_CHECKING:
    from PIL import Image

LITE = "lite"  # the captioner of the package


def caption(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="JSON file; captions in it are kept. Default: captions.json in the folder, where "
            "training looks for it.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="lite (the package's own, or a folder of one), BLIP or BLIP-2 (folder or hub id). "
            "Default: a small BLIP, or lite where the hub is not reached."
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Photos at once.", min=1)] = 8,
    beams: Annotated[
        int | None, typer.Option(help="Of lite: sentences to choose from; 1 = greedy.", min=1)
    ] = None,
    device: Device = None,
) -> None:
    """Describe photos, once, for `perco compress --captions` and `perco train`."""
    from perco_lite.data import list_photos, load_photo, read_caption_lists

    if output is None:
        output = (photos if photos.is_dir() else photos.parent) / "captions.json"
    captions = read_caption_lists(output) if output.exists() else {}
    todo = [path for path in list_photos(photos) if path.name not in captions]
    describe = _load_captioner(model, device, beams) if todo else None
    batch, kept = Batch(), len(captions)
    for start in range(0, len(todo), batch_size):
        images = {}
        for path in todo[start : start + batch_size]:
            with batch.item(path):
                images[path.name] = load_photo(path)
        if not images:
            continue
        try:
            lines = describe(list(images.values()))
            captions.update((n, [line]) for n, line in zip(images, lines, strict=True))
            write_whole(output, _as_json(captions))  # after every batch: a cut costs one
        except (RuntimeError, MemoryError) as error:
            fail(f"{len(images)} photos at once: {_reason(error, batch_size)}")
        except OSError as error:
            fail(error)
        for name, line in zip(images, lines, strict=True):
            say(f"{name}: {line}")
    say(f"{output}: {len(captions) - kept} new captions, {kept} kept", err=True)
    batch.finish()


def convert(
    source: Annotated[Path, typer.Argument(help="Folder of PerCo (SD): hyper_enc, unet, …")],
    target: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    base: Annotated[
        str | None,
        typer.Option(help="Stable Diffusion (folder or hub id) for the parts SOURCE lacks."),
    ] = None,
    half: Annotated[bool, typer.Option(help="Write float16, half the size.")] = False,
) -> None:
    """Convert a published PerCo (SD) checkpoint to weights for --weights."""
    from perco_lite.loading import quiet_libraries

    if target.exists():
        fail(f"{target} is there already; name a new folder")
    try:
        import torch

        from perco_lite.full_scale.perco_sd import convert_checkpoint

        quiet_libraries()
        codec = convert_checkpoint(source, base, torch.float16 if half else torch.float32)
        _save_whole(codec, target)
    except (OSError, ValueError) as error:
        fail(error)
    except MemoryError:
        fail("not enough memory for this checkpoint, about 6 GiB; close other programs")
    say(f"{target}: a codec for the rate {codec.rates[0]}")


def _save_whole(codec, target: Path) -> None:
    """Save beside the target, then rename: there is never half a codec."""
    fresh = fresh_name(target)
    try:
        codec.save_pretrained(fresh, safe_serialization=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def caption_writer() -> "Callable[[Image.Image], str]":
    """What writes the caption of a photo that has none; "" where it is missing, which a note says.

    It runs on the CPU: that takes a tenth of a second, whatever the codec runs on.
    """
    from perco_lite.captioning import Captioner

    try:
        return Captioner.from_pretrained()
    except (FileNotFoundError, ValueError) as error:
        note(f"{explain(error)}; files have no caption")
        return lambda photo: ""


def _load_captioner(
    model: str | None, device: str | None, beams: int | None
) -> "Callable[[list[Image.Image]], list[str]]":
    """What describes photos: our own captioner, or BLIP."""
    from perco_lite.captioning.captioner import BEAMS, CONFIG, FILE, Captioner
    from perco_lite.full_scale import captioning
    from perco_lite.loading import find_device, quiet_libraries

    quiet_libraries()
    own = model == LITE or (model and all((Path(model) / f).is_file() for f in (CONFIG, FILE)))
    if model is None:
        try:
            return captioning.Captioner(captioning.CAPTIONER, find_device(device)).describe
        except FileNotFoundError as error:
            note(f"{explain(error)}. Taking the small captioner of this package, --model {LITE}")
            own = True
    if own:
        folder = None if model in (None, LITE) else model
        captioner = Captioner.from_pretrained(folder, find_device(device))
        return partial(captioner.describe, beams=beams or BEAMS)
    if beams:
        fail(
            f"got --beams {beams} for {model}, which writes greedily; --beams is of --model {LITE}"
        )
    return captioning.Captioner(model, find_device(device)).describe


def _reason(error: Exception, batch_size: int) -> str:
    message = explain(error)
    if "memory" in message:
        return f"not enough memory; lower --batch-size (now {batch_size}), or use --device cpu"
    return message


def _as_json(captions: dict[str, list[str]]) -> bytes:
    """One caption as a string, several as a list: as they were."""
    plain = {name: texts[0] if len(texts) == 1 else texts for name, texts in captions.items()}
    return (json.dumps(plain, ensure_ascii=False, indent=1) + "\n").encode()
