"""The photos an evaluation runs over: Kodak, COCO, shards or a folder, captions, a resize rule.

    name or folder ──open_dataset──► PhotoSet: (name, path, caption) …, resize rule, notes
                                        └─ load(photo) ──► PIL RGB, as the codecs are given it

Only names are kept in memory. ``val`` is 500 photos of Flickr8k that nothing was trained on;
``large`` are photos that are large by themselves. Photos are in order of their names,
whatever the folder's order.

MS-COCO 30k: what is known is a list of 30,000 file names of train2017 (``res/doc/coco_names.txt``
of the repository Nikolai10/PerCo, which had it from the authors), not the rule that chose them; so
the list is read from a file. Others use 30,000 of val2014, which is another set.

Paper: PerCo, Sec. 4.1: Kodak and MS-COCO 30k, every photo squashed to 512x512 by bicubic resize.
Differs from the paper: Kodak and all else stay at their own size unless told otherwise;
``coco30k-native`` is the same list unsquashed.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from perco_lite.data import find_data, list_photos, load_captions, skimage_paths
from perco_lite.evaluation.photos import Photo, heard_in_training, packed_photos
from perco_lite.evaluation.photos import read_instances as read_instances

NAMED_SETS = ("kodak", "coco30k", "coco30k-native", "coco_eval", "val", "large", "samples")
WHOLE = {"kodak": 24, "coco_eval": 100, "val": 500}  # photos, where all are there
COCO_LIST = "coco_names.txt"
COCO_PHOTOS = 30_000
SQUASH = (512, 512)
MIN_SIDE, MAX_SIDE = 8, 8192  # of a resize rule


@dataclass(frozen=True)
class PhotoSet:
    """Photos with one resize rule; ``all_names`` also has those beyond a limit."""

    name: str
    photos: tuple[Photo, ...]
    # (width, height) each photo is squashed to, or the long side it is shrunk to; None = its own
    size: tuple[int, int] | int | None
    captions: str  # digest of every caption, "" without any
    all_names: frozenset[str]
    notes: tuple[str, ...] = ()  # what a reader of the figures should know
    instances: Path | None = None  # COCO's masks of these photos, where there are any
    gaps: tuple[str, ...] = ()  # of the notes, those about photos that should be there

    @property
    def resize_rule(self) -> str:
        """In words, for protocols."""
        if self.size is None:
            return "own size"
        if isinstance(self.size, int):
            return f"long side shrunk to {self.size}, Pillow bicubic"
        return f"squashed to {self.size[0]}x{self.size[1]}, Pillow bicubic"

    def load(self, photo: Photo) -> Image.Image:
        """Upright RGB image of a photo after the resize rule; raises as ``data.load_photo``."""
        image, size = photo.load_image(), self.size
        if isinstance(size, int):
            scale = size / max(image.size)
            size = tuple(max(1, round(scale * side)) for side in image.size)
        if size is None or image.size == size:
            return image
        return image.resize(size, Image.Resampling.BICUBIC)

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
                with photo.open() as stream, Image.open(stream) as image:
                    image.size  # noqa: B018 - reading it is the test
            except Exception:  # load_image says what Pillow's dozen kinds of error mean
                try:
                    photo.load_image()
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
        resize: "none", "WIDTHxHEIGHT" or "long:SIDE" (without smaller photos); default: the set's
            own rule.
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
    if name.startswith("coco30k") and names is None:
        names = place / COCO_LIST
        if not names.is_file():
            raise FileNotFoundError(
                f"no list of names at {names}; the paper's 30,000 are in res/doc/{COCO_LIST} of "
                "github.com/Nikolai10/PerCo: pass that file with --list"
            )
    known = {photo.name for photo in photos}
    if names is not None:
        photos = _choose(photos, Path(names), place)
    gaps = _gaps(name, photos, names is not None)
    notes = list(gaps)
    table, source = _captions(name, place, captions)
    photos = [replace(p, caption=table.get(p.name) or p.caption or None) for p in photos]
    photos.sort(key=lambda photo: photo.name)
    names_here = frozenset(p.name for p in photos)
    if captions is not None:
        notes += _check_captions(table, known, names_here, captions)
    if isinstance(size, int):
        photos, small = _large_enough(photos, size)
        notes += [f"{len(small)} photos are below {size} pixels: {_some(small)}"] if small else []
    chosen = tuple(photos[:limit] if limit else photos)
    label = name if name in NAMED_SETS else place.resolve().name
    masks = place / "instances.json"
    masks = masks if masks.is_file() and name != "samples" else None
    if not source and any(p.member and p.caption for p in chosen):
        source = "in the shards, the first of each"
    notes += _caption_notes(chosen, source)
    digest = _digest(photos)
    return PhotoSet(label, chosen, size, digest, names_here, tuple(notes), masks, tuple(gaps))


def _gaps(name: str, photos: list[Photo], chosen: bool) -> list[str]:
    """What is to be said of photos that should be there."""
    count = len(photos)
    if name.startswith("coco30k"):
        whole = count == COCO_PHOTOS
        return [] if whole else [f"the list has {count:,} names, the paper's has {COCO_PHOTOS:,}"]
    whole = WHOLE.get(name, count)
    if count >= whole or chosen:
        return []
    lacks = missing_kodak(p.name for p in photos) if name == "kodak" else ""
    return [f"{count} of {whole} photos are here" + (f"; no {lacks}" if lacks else "")]


def missing_kodak(names: Iterable[str]) -> str:
    """The first few of kodim01 to kodim24 that are not among these files; "" where all are."""
    return _some({f"kodim{n:02}" for n in range(1, 25)} - {Path(name).stem for name in names}, 5)


def _large_enough(photos: list[Photo], side: int) -> tuple[list[Photo], list[str]]:
    """Photos whose long side is at least that, and the names of the others; reads headers."""
    large, small = [], []
    for photo in photos:
        with contextlib.suppress(Exception), photo.open() as stream, Image.open(stream) as image:
            if max(image.size) < side:
                small.append(photo.name)
                continue
        large.append(photo)  # one that cannot be read is told of later
    if not large:
        raise ValueError(
            f"got no photo of {side} pixels or more; take a smaller long side, or larger photos"
        )
    return large, small


def _caption_notes(photos: Iterable[Photo], source: str) -> list[str]:
    bare = [p.name for p in photos if p.caption is None]
    notes = [f"{len(bare)} of {len(photos)} photos have no caption ({_some(bare)})"] if bare else []
    notes += [f"captions: {source}"] if source else []
    if heard := heard_in_training(photos):
        notes.append(
            f"{len(heard)} of {len(photos)} captions stand word for word among the sentences that "
            f"the caption coder was trained on ({_some(heard)})"
        )
    return notes


def _digest(photos: Iterable[Photo]) -> str:
    pairs = [(p.name, p.caption) for p in photos if p.caption is not None]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16] if pairs else ""


def parse_size(text: str) -> tuple[int, int] | int | None:
    """(width, height) of "512x512", a side of "long:512", None for "none"; else ``ValueError``."""
    if text == "none":
        return None
    match = re.fullmatch(r"(\d{1,5})[x×](\d{1,5})|long:(\d{1,5})", text)
    sides = [int(side) for side in match.groups() if side] if match else [0]
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in sides):
        usual = "long:1024" if text.startswith("long") else "none or WIDTHxHEIGHT such as 512x512"
        raise ValueError(
            f"got resize rule {text!r}, expected {usual}, sides from {MIN_SIDE} to {MAX_SIDE}"
        )
    return tuple(sides) if len(sides) == 2 else sides[0]


def _find_photos(name: str, folder: str | Path | None) -> tuple[list[Photo], Path]:
    """Photos of a set and the folder they are in."""
    if name == "samples" and folder is None:
        paths = skimage_paths()
        return _plain_files(paths), paths[0].parent
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
    if any(place.glob("*.tar")):
        return packed_photos(place), place
    return _plain_files(list_photos(place)), place


def _plain_files(paths: Iterable[Path]) -> list[Photo]:
    return [Photo(path.name, path) for path in paths]


def _choose(photos: list[Photo], names: Path, place: Path) -> list[Photo]:
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
