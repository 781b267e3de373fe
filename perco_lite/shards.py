"""Photos to train on, one after the other, from webdataset shards or from a plain folder.

    shard-000.tar: KEY.webp + KEY.json ──┐
    folder: photo.jpg, captions.json   ──┴──► ShardPhoto(key, image, captions, …)

Nothing is shuffled, cropped or resized here: the order is that of the sorted file names.

Paper: PerCo, Sec. 4.1 (OpenImages, 9M photos).
Differs from the paper: any photos, with captions where there are some.
"""

import io
import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from perco_lite.data import decode_photo, list_photos, load_photo, read_caption_lists

SHARD_PHOTO_SUFFIXES = ("webp", "jpg", "jpeg", "png")


@dataclass(frozen=True)
class ShardPhoto:
    """One photo: PIL RGB, any number of captions, and whether its aspect ratio was lost."""

    key: str
    image: Image.Image
    captions: list[str] = field(default_factory=list)
    source: str = ""
    squashed: bool = False


def read_training_photos(path: str | Path) -> Iterator[ShardPhoto]:
    """Read a folder of shards, one shard, or a folder of photos, whichever ``path`` is.

    Raises ``FileNotFoundError`` at once, before the first photo, if it is none of these.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no training photos at {path}; see data/README.md to get some")
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        return read_shards(path)
    try:
        photos = list_photos(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no training photos in {path}; expected webdataset shards (*.tar, each holding "
            "KEY.webp|jpg|png and KEY.json) or photos (png, jpg, webp, …) with a captions.json"
        ) from None
    return _read_photos(photos, path if path.is_dir() else path.parent)


def read_shards(paths: str | Path | Iterable[str | Path]) -> Iterator[ShardPhoto]:
    """Read tar files, or all ``*.tar`` of a folder in sorted order.

    A photo or shard that cannot be read is skipped; one warning at the end counts them.
    """
    if isinstance(paths, str | Path):
        paths = sorted(Path(paths).glob("*.tar")) if Path(paths).is_dir() else [Path(paths)]
    shards = [Path(path) for path in paths]
    if not shards or not all(shard.is_file() for shard in shards):
        missing = next((shard for shard in shards if not shard.is_file()), "*.tar")
        raise FileNotFoundError(f"no shard {missing}; see data/README.md for what is expected")
    return _read_shards(shards)


def _read_shards(shards: list[Path]) -> Iterator[ShardPhoto]:
    skipped = []

    def note_and_continue(error: Exception) -> bool:
        skipped.append(str(error))
        return True

    files = tar_file_expander(_open_shards(shards), handler=note_and_continue)
    for sample in group_by_keys(files, handler=note_and_continue):
        try:
            photo = _shard_photo(sample)
        except (ValueError, AttributeError) as error:  # PhotoError and bad JSON are ValueErrors
            skipped.append(str(error))
            continue
        yield photo
    _warn_of(skipped)


def _open_shards(shards: list[Path]) -> Iterator[dict]:
    # webdataset's own opener takes paths for URLs (C:…) and leaves the files open
    for shard in shards:
        with shard.open("rb") as stream:
            yield {"url": str(shard), "stream": stream}


def _shard_photo(sample: dict) -> ShardPhoto:
    key, name = sample["__key__"], f"{sample['__url__']}:{sample['__key__']}"
    suffix = next((suffix for suffix in SHARD_PHOTO_SUFFIXES if suffix in sample), None)
    if suffix is None:
        raise ValueError(f"{name} has no photo; expected KEY.{'|'.join(SHARD_PHOTO_SUFFIXES)}")
    about = json.loads(sample.get("json", "{}"))
    captions = about.get("captions") or []
    return ShardPhoto(
        key=key,
        image=decode_photo(io.BytesIO(sample[suffix]), name),
        captions=[captions] if isinstance(captions, str) else list(captions),
        source=about.get("source", ""),
        squashed=bool(about.get("squashed", False)),
    )


def _read_photos(photos: list[Path], folder: Path) -> Iterator[ShardPhoto]:
    captions_file = folder / "captions.json"
    captions = read_caption_lists(captions_file) if captions_file.is_file() else {}
    skipped = []
    for photo in photos:
        try:
            image = load_photo(photo)
        except ValueError as error:
            skipped.append(str(error))
            continue
        yield ShardPhoto(photo.stem, image, captions.get(photo.name, []), folder.name)
    _warn_of(skipped)


def _warn_of(skipped: list[str]) -> None:
    if skipped:
        warnings.warn(
            f"skipped {len(skipped)} photos or shards that cannot be read; the first: {skipped[0]}",
            stacklevel=3,
        )
