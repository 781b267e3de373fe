"""One photo of a set, wherever it lies: a file of a folder, or a member of a webdataset shard.

    folder ──packed_photos──► Photo: name, shard, place in it, caption      (nothing is unpacked)
    Photo ──load_image──► PIL RGB, upright

    captions ──heard_in_training──► names of photos whose caption the caption coder was trained on

Paper: nothing of this.
Differs from the paper: what a caption costs is told with how many of them the coder has seen.
"""

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from perco_lite.data import decode_photo, find_data, load_photo
from perco_lite.pixels import PHOTO_SUFFIXES


@dataclass(frozen=True)
class Photo:
    """One photo of a set: file name, where it is, and its caption (None if it has none).

    ``member``: where it begins in the shard at ``path``, and its bytes; None for a file of its own.
    """

    name: str
    path: Path
    caption: str | None = None
    member: tuple[int, int] | None = None

    def open(self) -> BinaryIO:
        """The photo's own bytes, as a stream."""
        if self.member is None:
            return self.path.open("rb")
        start, size = self.member
        with self.path.open("rb") as shard:
            shard.seek(start)
            return io.BytesIO(shard.read(size))

    def load_image(self) -> Image.Image:
        """Upright RGB image; raises as ``data.load_photo``."""
        if self.member is None:
            return load_photo(self.path)
        return decode_photo(self.open(), f"{self.path}, {self.name}")


def packed_photos(folder: Path) -> list[Photo]:
    """Photos of a folder's shards (``*.tar``, not compressed), with the first caption of each.

    Raises ``ValueError`` for a shard that is damaged, or two photos of one name.
    """
    photos, captions = {}, {}
    for path in sorted(folder.glob("*.tar")):
        try:
            with tarfile.open(path, "r:") as shard:
                for one in filter(tarfile.TarInfo.isfile, shard):
                    name = Path(one.name)
                    if name.suffix == ".json":
                        said = json.load(shard.extractfile(one)).get("captions") or [None]
                        captions[name.stem] = said[0]
                    elif name.suffix.lower() in PHOTO_SUFFIXES:
                        if name.name in photos:
                            raise ValueError(f"two photos are called {name.name}")
                        place = one.offset_data, one.size
                        photos[name.name] = Photo(name.name, path, None, place)
        except (tarfile.TarError, ValueError, AttributeError, OSError) as error:
            raise ValueError(f"{path} is no shard of photos ({error}); get it again") from error
    return [
        Photo(name, photo.path, captions.get(Path(name).stem), photo.member)
        for name, photo in sorted(photos.items())
    ]


def read_instances(path: str | Path) -> dict[str, tuple[tuple[int, int], list[dict]]]:
    """Map file names to (width, height) and the instances of COCO's file for that photo.

    Each instance has ``category`` (its name) and ``segmentation``. ``ValueError`` for another file.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = {kind["id"]: kind["name"] for kind in content["categories"]}
        photos = {
            image["id"]: (image["file_name"], ((image["width"], image["height"]), []))
            for image in content["images"]
        }
        for one in content["annotations"]:
            photos[one["image_id"]][1][1].append(
                {"category": categories[one["category_id"]], "segmentation": one["segmentation"]}
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of COCO instances; get it again") from error
    return dict(photos.values())


def heard_in_training(photos: Iterable[Photo]) -> list[str] | None:
    """Names of photos whose caption stands word for word in the caption coder's training.

    None where those sentences are not on this machine.
    """
    try:
        known = known_sentences()
    except FileNotFoundError:
        return None
    return sorted(p.name for p in photos if p.caption and sentence(p.caption) in known)


def known_sentences() -> frozenset[str]:
    """What the caption coder was trained on, each as ``sentence`` has it.

    ``FileNotFoundError`` where ``captions/*_train.txt`` is not on this machine.
    """
    folder = find_data("captions")
    files = sorted(folder.glob("*_train.txt")) if folder else []
    if not files:
        raise FileNotFoundError(
            'no *_train.txt in a data folder "captions": which sentences the coder has seen is '
            "not known (data/README.md)"
        )
    return _read_sentences(*((file, file.stat().st_mtime_ns) for file in files))


@cache
def _read_sentences(*files: tuple[Path, int]) -> frozenset[str]:
    known = set()
    for file, _ in files:
        with file.open(encoding="utf-8") as lines:
            known.update(map(sentence, lines))
    return frozenset(known)


def sentence(caption: str) -> str:
    """A caption without what does not make it another sentence."""
    return " ".join(caption.lower().split()).rstrip(" .")
