"""The photos an evaluation runs over: Kodak, COCO or a folder, with captions and a resize rule.

    name or folder ──open_dataset──► PhotoSet: (name, path, caption) …, resize rule, notes
                                        └─ load(photo) ──► PIL RGB, as the codecs are given it

Only names are kept in memory. Photos are in order of their names, whatever the folder's order.

MS-COCO 30k: what is known is a list of 30,000 file names of train2017 (``res/doc/coco_names.txt``
of the repository Nikolai10/PerCo, which had it from the authors), not the rule that chose them; so
the list is read from a file. Others use 30,000 of val2014, which is another set.

Paper: PerCo, Sec. 4.1: Kodak and MS-COCO 30k, every photo squashed to 512x512 by bicubic resize.
Differs from the paper: Kodak and all else stay at their own size unless told otherwise;
``coco30k-native`` is the same list unsquashed.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from perco_lite.data import (
    find_data,
    list_photos,
    load_captions,
    load_photo,
    skimage_paths,
)

NAMED_SETS = ("kodak", "coco30k", "coco30k-native", "coco_eval", "samples")
COCO_LIST = "coco_names.txt"
COCO_PHOTOS = 30_000
SQUASH = (512, 512)
MIN_SIDE, MAX_SIDE = 8, 8192  # of a resize rule


@dataclass(frozen=True)
class Photo:
    """One photo of a set: file name, where it is, and its caption (None if it has none)."""

    name: str
    path: Path
    caption: str | None = None


@dataclass(frozen=True)
class PhotoSet:
    """Photos with one resize rule; ``all_names`` also has those beyond a limit."""

    name: str
    photos: tuple[Photo, ...]
    size: tuple[int, int] | None  # (width, height) each photo is squashed to; None = its own
    captions: str  # digest of every caption, "" without any
    all_names: frozenset[str]
    notes: tuple[str, ...] = ()  # what a reader of the figures should know
    instances: Path | None = None  # COCO's masks of these photos, where there are any

    @property
    def resize_rule(self) -> str:
        """In words, for protocols."""
        if self.size is None:
            return "own size"
        return f"squashed to {self.size[0]}x{self.size[1]}, Pillow bicubic"

    def load(self, photo: Photo) -> Image.Image:
        """Upright RGB image of a photo after the resize rule; raises as ``data.load_photo``."""
        image = load_photo(photo.path)
        if self.size is None or image.size == self.size:
            return image
        return image.resize(self.size, Image.Resampling.BICUBIC)

    def without_unreadable(self) -> tuple["PhotoSet", list[tuple[Photo, Exception]]]:
        """The set without files whose header is no photo's, and those with what is wrong.

        Reads headers only, some ten thousand a minute; a file cut short is found when decoded.
        """
        good, bad = [], []
        for photo in self.photos:
            if len(photo.name.splitlines()) > 1:  # a table has a line a row
                bad.append((photo, ValueError("its name has a line break; rename it")))
                continue
            try:
                with Image.open(photo.path) as image:
                    image.size  # noqa: B018 - reading it is the test
            except Exception:  # load_photo says what Pillow's dozen kinds of error mean
                try:
                    load_photo(photo.path)
                except Exception as error:
                    bad.append((photo, error))
                    continue
            good.append(photo)
        return replace(self, photos=tuple(good)), bad


def open_dataset(
    name: str,
    folder: str | Path | None = None,
    captions: str | Path | None = None,
    names: str | Path | None = None,
    resize: str | None = None,
    limit: int = 0,
) -> PhotoSet:
    """Find the photos called ``name``: one of ``NAMED_SETS``, or a folder of photos.

    Args:
        folder: where the photos of a named set are, if not where ``data.find_data`` looks.
        captions: JSON ``{"photo.png": "caption" or [...]}``, or a COCO captions file; of several
            captions the first counts. Default: ``captions.json`` in the folder; for Kodak and the
            samples this project's own.
        names: text file of the file names to use, one a line. COCO 30k needs it.
        resize: "none" or "WIDTHxHEIGHT"; default: the set's own rule.
        limit: only the first so many photos; 0 = all.
    Raises:
        FileNotFoundError: no such set, folder, list or photo on the list.
        ValueError: captions of none of the photos, or a rule that makes no sense.
    """
    if limit < 0:
        raise ValueError(f"got a limit of {limit} photos, expected 0 (all) or more")
    own = SQUASH if name == "coco30k" else None
    size = own if resize is None else parse_size(resize)
    photos, place = _find_photos(name, folder)
    notes = []
    if name.startswith("coco30k") and names is None:
        names = place / COCO_LIST
        if not names.is_file():
            raise FileNotFoundError(
                f"no list of names at {names}; the paper's 30,000 are in res/doc/{COCO_LIST} of "
                "github.com/Nikolai10/PerCo: pass that file with --list"
            )
    if names is not None:
        photos = _choose(photos, Path(names), place)
    if name.startswith("coco30k") and len(photos) != COCO_PHOTOS:
        notes.append(f"the list has {len(photos):,} names, the paper's has {COCO_PHOTOS:,}")
    table, source = _captions(name, place, captions)
    photos = [Photo(path.name, path, table.get(path.name) or None) for path in photos]
    photos.sort(key=lambda photo: photo.name)
    names_here = frozenset(p.name for p in photos)
    if captions is not None:
        notes += _check_captions(table, {p.name for p in list_photos(place)}, names_here, captions)
    chosen = tuple(photos[:limit] if limit else photos)
    bare = [p.name for p in chosen if p.caption is None]
    if bare:
        notes.append(f"{len(bare)} of {len(chosen)} photos have no caption ({_some(bare)})")
    if source:
        notes.append(f"captions: {source}")
    pairs = [(p.name, p.caption) for p in photos if p.caption is not None]
    digest = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16] if pairs else ""
    label = name if name in NAMED_SETS else place.resolve().name
    masks = place / "instances.json"
    masks = masks if masks.is_file() and name != "samples" else None
    return PhotoSet(label, chosen, size, digest, names_here, tuple(notes), masks)


def parse_size(text: str) -> tuple[int, int] | None:
    """(width, height) of "512x512"; None for "none"; ``ValueError`` for anything else."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})", text)
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
        raise ValueError(
            f"got resize rule {text!r}, expected none or WIDTHxHEIGHT such as 512x512, "
            f"sides from {MIN_SIDE} to {MAX_SIDE}"
        )
    return size


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


def _find_photos(name: str, folder: str | Path | None) -> tuple[list[Path], Path]:
    """Files of a set and the folder they are in."""
    if name == "samples" and folder is None:
        paths = skimage_paths()
        return paths, paths[0].parent
    if name in NAMED_SETS and name != "samples":
        key = name.removesuffix("-native")
        place = Path(folder) if folder is not None else find_data(key)
        if place is None:
            raise FileNotFoundError(
                f"no {key} photos found; give their folder with --folder, or put them in "
                f"$PERCO_LITE_DATA/{key} (data/README.md)"
            )
    else:
        if folder is not None:
            raise ValueError(f"got a folder for {name!r}, expected that of {NAMED_SETS[:-1]}")
        place = Path(name)
    if not place.is_dir():
        known = ", ".join(NAMED_SETS)
        raise FileNotFoundError(f"no folder at {place}; give a folder of photos, or one of {known}")
    return list_photos(place), place


def _choose(photos: list[Path], names: Path, place: Path) -> list[Path]:
    """Photos on a list; all of them must be there."""
    if not names.is_file():
        raise FileNotFoundError(f"no list of names at {names}; write one file name a line")
    lines = names.read_text(encoding="utf-8-sig").splitlines()
    wanted = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not wanted:
        raise ValueError(f"{names} is empty, expected one file name a line")
    by_name = {path.name: path for path in photos}
    missing = [name for name in wanted if name not in by_name]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(wanted)} photos of {names} are not in {place} "
            f"({_some(missing)}); give the folder they are in"
        )
    return [by_name[name] for name in wanted]


def _captions(name: str, place: Path, path: str | Path | None) -> tuple[dict[str, str], str]:
    """Captions by file name, and where they are from."""
    if path is not None:
        return load_captions(path), str(Path(path).name)
    beside = place / "captions.json"
    if name != "samples" and beside.is_file():
        return load_captions(beside), "captions.json beside the photos, the first of each"
    own = load_captions() if name in ("kodak", "samples") else {}
    return own, "this project's own (data/captions.json)" if own else ""


def _check_captions(table, in_folder: set[str], used: frozenset[str], path) -> list[str]:
    """A note on captions of photos that are not there; an error if not one fits."""
    if not used & set(table):
        raise ValueError(
            f"{path} has captions for {_some(table)}, none of them for these photos "
            f"({_some(used)}); give the file that belongs to them"
        )
    strange = set(table) - in_folder
    many = f"{path} has captions for {len(strange)} photos that do not exist ({_some(strange)})"
    return [many] if strange else []


def _some(names: Iterable[str], count: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:count]) + (", …" if len(names) > count else "")
