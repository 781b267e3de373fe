"""The photos of a dated list: which sets its claims name, and what of them is on this machine.

    "kodak and coco_eval, 124" ──SETS──► ("kodak", "coco_eval") ──find_photos──► ClaimPhoto …
                                                             └── what is missing, by name and number

Paper: PerCo, Sec. 4.1 (Kodak whole; 30,000 photos of COCO).
Differs from the paper: 100 photos of COCO at their own size; 500 of Flickr8k for what no picture
shows; large photos as pictures of their own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from perco_lite.data import find_data, list_photos, load_captions, load_photo, read_caption_lists
from perco_lite.evaluation.datasets import missing_kodak
from perco_lite.training.shards import read_training_photos

LARGE = 1024  # pixels a side; claims on size have photos of that, and the same at half of it
SETS = {  # what a list calls them -> the folders they are in
    "kodak": ("kodak",),
    "coco_eval": ("coco_eval",),
    "kodak and coco_eval": ("kodak", "coco_eval"),
    "flickr8k of val": ("val",),
    "large photos as pictures of their own": ("large",),
}


@dataclass(frozen=True)
class ClaimPhoto:
    """A photo: ``name`` is "folder/file"; its captions, the first is its own; another's caption."""

    name: str
    path: Path | None
    captions: tuple[str, ...] = ()
    other: str = ""
    pixels: Image.Image | None = None  # of a shard, which has no file of its own
    crop: int = 0  # pixels a side of its middle; 0 = the whole photo

    @property
    def folder(self) -> str:
        return self.name.partition("/")[0]

    @property
    def caption(self) -> str:
        return self.captions[0] if self.captions else ""

    @cached_property
    def image(self) -> Image.Image:
        """Upright RGB; of a large photo the middle 1024 x 1024 pixels, its short side shrunk."""
        image = load_photo(self.path) if self.pixels is None else self.pixels
        return self.cut(middle(image, LARGE) if self.folder == "large" else image)

    def cut(self, whole: Image.Image) -> Image.Image:
        """Its part of the whole photo, or of a mask of that."""
        if not self.crop:
            return whole
        width, height = (min(side, self.crop) for side in whole.size)
        left, top = (whole.width - width) // 2, (whole.height - height) // 2
        return whole.crop((left, top, left + width, top + height))


def middle(image: Image.Image, side: int) -> Image.Image:
    """The middle square of a photo, shrunk to ``side`` pixels (Lanczos)."""
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.LANCZOS)


def named_set(photos: str) -> tuple[str, int]:
    """What a list's "kodak and coco_eval, 124" names: one of SETS, and how many photos.

    ``ValueError`` for anything else.
    """
    name, _, number = photos.rpartition(", ")
    if name not in SETS or not number.isdecimal():
        known = "; ".join(SETS)
        raise ValueError(
            f"got photos {photos!r}, expected one of {known}, a comma and their number"
        )
    return name, int(number)


def find_photos(sets: Iterable[str], limit: int = 0, crop: int = 0) -> dict[str, list[ClaimPhoto]]:
    """The photos of these SETS that are here, by folder; captions of other photos go around.

    ``limit``: of each folder the first so many; 0 = all.
    """
    folders = dict.fromkeys(folder for name in sets for folder in SETS[name])
    return {folder: _find(folder, crop)[: limit or None] for folder in folders}


def missing_photos(photos: str, found: dict[str, list[ClaimPhoto]], limit: int = 0) -> str:
    """What a list's ``photos`` asks for and is not here, in one line; "" where all are.

    ``limit``: a short run wants no more of each folder.
    """
    name, number = named_set(photos)
    here = {folder: len(found[folder]) for folder in SETS[name]}
    if all(count >= limit for count in here.values()) if limit else sum(here.values()) == number:
        return ""
    said = " and ".join(f"{count} of {folder}" for folder, count in here.items())
    wanted = f"{limit} of each" if limit else f"{number} photos in all"
    lacks = missing_kodak(p.name for p in found["kodak"]) if "kodak" in here and not limit else ""
    wanted += f"; no {lacks}" if lacks else ""
    return f"got {said}, expected {wanted} (data/README.md)"


def _find(folder: str, crop: int) -> list[ClaimPhoto]:
    place = find_data(folder)
    if place is None:
        return []
    if folder == "val":
        shown = [(p.key, None, p.captions, p.image) for p in read_training_photos(place)]
        shown = [one for one in shown if len(one[2]) > 1]
    else:
        texts = _captions(folder, place)
        shown = [(p.name, p, texts.get(p.name, []), None) for p in list_photos(place)]
    if folder == "large":
        shown = [one for one in shown if min(_size(one[1])) >= LARGE]
    others = [texts[0] if texts else "" for _, _, texts, _ in shown]
    others = others[1:] + others[:1]
    return [
        ClaimPhoto(f"{folder}/{name}", path, tuple(texts), other, pixels, crop)
        for (name, path, texts, pixels), other in zip(shown, others, strict=True)
    ]


def _captions(folder: str, place: Path) -> dict[str, list[str]]:
    if folder == "kodak":
        return {name: [text] for name, text in load_captions().items()}
    beside = place / "captions.json"
    return read_caption_lists(beside) if beside.is_file() else {}


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size
