"""Photos in and out: files, tensors, and where photos and captions are found.

    file ──load_photo──► PIL RGB ──image_to_tensor──► image (1,3,H,W) in [-1,1], float32
                            ▲                           │ pad_to_multiple (right, bottom)
                            └──────tensor_to_image──────┘

Every image tensor in this package has the range stated here: -1 is black, +1 is white.

Paper: PerCo, Sec. 4.1: trained on OpenImages, measured on Kodak and MS-COCO 30k.
Differs from the paper: photos are only looked up in folders, nothing is downloaded; where there is
no Kodak, the samples are the photos inside scikit-image.

Taught in notebook 01.
"""

import importlib.metadata
import importlib.util
import json
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pooch
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from perco_lite.files import list_folder
from perco_lite.pixels import PHOTO_SUFFIXES, PhotoError, decode_photo, to_rgb

DATA_NAMES = ("kodak", "train", "val", "coco_eval", "coco30k", "large", "captions", "weights")
# The colour photographs inside scikit-image's wheel: reading them needs no network.
SKIMAGE_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")

_CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sample:
    """One sample photo: file name, PIL RGB image, caption ("" if none) and where it came from."""

    name: str
    image: Image.Image
    caption: str
    source: str  # "kodak" or "scikit-image"


def load_photo(path: str | Path) -> Image.Image:
    """Read one photo as an upright 8-bit RGB image (of an animation, the first frame).

    Raises ``FileNotFoundError``, or ``PhotoError`` for a folder and for a file that is empty, not
    an image, cut short, or larger than ``MAX_PIXELS``.
    """
    path = Path(path)
    if path.is_dir():
        raise PhotoError(f"{path} is a folder, expected one photo; use list_photos for its files")
    if not path.exists():
        raise FileNotFoundError(f"no photo at {path}; check the path (now in {Path.cwd()})")
    if path.stat().st_size == 0:
        raise PhotoError(f"{path} is empty (0 bytes); copy or download it again")
    with path.open("rb") as stream:
        return decode_photo(stream, str(path))


def image_to_tensor(image: Image.Image) -> Tensor:
    """Convert any Pillow image (through ``to_rgb``) to (1, 3, H, W) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.array(to_rgb(image)))  # (H, W, 3) uint8
    return pixels.permute(2, 0, 1)[None].to(torch.float32) / 127.5 - 1


def tensor_to_image(tensor: Tensor) -> Image.Image | list[Image.Image]:
    """Convert [-1, 1] (clamped) to RGB: (3, H, W) or (1, 3, H, W) to one image, more to a list.

    Raises ``ValueError`` for another shape, or values that are not finite.
    """
    if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3:
        raise ValueError(
            f"got shape {tuple(tensor.shape)}, expected (3,H,W) or (B,3,H,W); "
            "put the three colour channels before height and width"
        )
    pixels = tensor.detach().to("cpu", torch.float32).reshape(-1, *tensor.shape[-3:])
    if not torch.isfinite(pixels).all():
        raise ValueError("got NaN or infinite pixels, expected [-1, 1]; check the model's output")
    pixels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    images = [Image.fromarray(array) for array in pixels.permute(0, 2, 3, 1).contiguous().numpy()]
    return images[0] if len(images) == 1 else images


def pad_to_multiple(tensor: Tensor, multiple: int) -> Tensor:
    """Repeat the right column and the bottom row until H and W are multiples: (B,C,H,W) in, out.

    Edges are repeated rather than mirrored since a mirror cannot be wider than the image.
    """
    if tensor.ndim != 4 or multiple < 1:
        raise ValueError(
            f"got shape {tuple(tensor.shape)} and multiple {multiple}, "
            "expected (B,C,H,W) and a multiple of at least 1"
        )
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def list_photos(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """List files as given and folders by their photos, sorted by name.

    What a folder has besides is named in a warning. Raises ``FileNotFoundError`` for a missing
    path and for a folder without photos.
    """
    photos = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        path = Path(path)
        if path.is_dir():
            found, note = list_folder(path, PHOTO_SUFFIXES)
            if not found:
                suffixes = " ".join(sorted(PHOTO_SUFFIXES))
                raise FileNotFoundError(f"no photos in {path}; expected files ending in {suffixes}")
            if note:
                warnings.warn(note, stacklevel=2)
            photos += found
        elif path.exists():
            photos.append(path)
        else:
            raise FileNotFoundError(f"no file or folder at {path}; check the path")
    return photos


def find_data(name: str, root: str | Path | None = None) -> Path | None:
    """Find the folder of photos called ``name`` (one of ``DATA_NAMES``); None where there is none.

    Looks in ``root``, else in ``$PERCO_LITE_DATA`` and in the download cache. Raises
    ``FileNotFoundError`` if a place that was asked for (``root`` or the variable) is not there.
    """
    if name not in DATA_NAMES:
        raise ValueError(f"got data name {name!r}, expected one of {', '.join(DATA_NAMES)}")
    if root is not None:
        for folder in (Path(root) / name, Path(root)):
            if folder.is_dir() and folder.name == name:
                return folder
        raise FileNotFoundError(f"no folder {Path(root) / name}; see data/README.md to get it")
    return next((place / name for place in _places() if (place / name).is_dir()), None)


def find_file(name: str, file: str) -> Path | None:
    """Find one file of the data called ``name``, in the places where ``find_data`` looks."""
    return next((p for place in _places() if (p := place / name / file).is_file()), None)


def cache_folder() -> Path:
    """Where downloads are kept, the last place to look in."""
    return Path(pooch.os_cache("perco_lite"))


def _places() -> list[Path]:
    places = [cache_folder()]
    variable = os.environ.get("PERCO_LITE_DATA")
    if variable:
        if not Path(variable).is_dir():
            raise FileNotFoundError(
                f"PERCO_LITE_DATA is {variable}, which is no folder; correct it or unset it"
            )
        places.insert(0, Path(variable))
    return places


def read_caption_lists(path: str | Path) -> dict[str, list[str]]:
    """Captions by file name, of ``{"photo.png": "caption" or ["caption", …]}`` or COCO's JSON.

    Raises ``FileNotFoundError``, or ``ValueError`` for any other file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no captions at {path}; write one as {{"photo.png": "caption"}}')
    data = path.read_bytes()
    try:
        captions = json.loads(data.decode("utf-8-sig"))
        if isinstance(captions.get("annotations"), list):
            captions = _coco_captions(captions)
        lists = {key: [text] if isinstance(text, str) else text for key, text in captions.items()}
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError) or b"\0" in data:  # of UTF-16
            raise ValueError(f"{path} is not UTF-8; save it as UTF-8") from error
        raise ValueError(f'{path} is not a JSON object {{"photo.png": "caption"}}') from error
    for key, texts in lists.items():
        if not isinstance(texts, list) or not all(map(_is_text, texts)):
            raise ValueError(
                f"{path}: got {ascii(texts):.60} for {key:.60}, expected a string or list of them"
            )
    return lists


def _is_text(one: object) -> bool:
    """A string without half a surrogate pair, which JSON allows and no tokenizer takes."""
    return isinstance(one, str) and one.encode(errors="ignore").decode() == one


def _coco_captions(content: dict) -> dict[str, list[str]]:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    captions: dict[str, list[str]] = {}
    for note in sorted(content["annotations"], key=lambda note: note.get("id", 0)):
        captions.setdefault(names[note["image_id"]], []).append(note["caption"].strip())
    return captions


def load_captions(path: str | Path | None = None) -> dict[str, str]:
    """Map file names to captions (of several, the first); default: this project's own captions.

    Those are in ``data/captions.json`` of the checkout, or where pip put it; {} without either.
    """
    if path is None:
        path = _CHECKOUT / "data" / "captions.json"
        if not path.is_file():
            path = next((place for place in installed_captions() if place.is_file()), None)
        if path is None:
            return {}
    return {name: texts[0] if texts else "" for name, texts in read_caption_lists(path).items()}


def installed_captions() -> list[Path]:
    """Where pip put captions.json and the tables beside it, if it did: in the environment's share.

    An empty list for a checkout.
    """
    try:
        files = importlib.metadata.files("perco_lite") or ()
    except importlib.metadata.PackageNotFoundError:
        return []
    place = "share/perco_lite/data/captions.json"
    return [Path(file.locate()) for file in files if file.as_posix().endswith(place)]


def skimage_paths() -> list[Path]:
    """Where scikit-image's wheel has its colour photos; skimage.data itself may use a network."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ImportError("the sample photos are in scikit-image; pip install scikit-image")
    return [Path(spec.origin).parent / "data" / name for name in SKIMAGE_PHOTOS]


def skimage_photos() -> list[Sample]:
    """Load those photos, with this project's captions."""
    return _samples(skimage_paths(), "scikit-image")


def kodak_photos(root: str | Path | None = None) -> list[Sample]:
    """Load the Kodak photos, where ``find_data`` finds them; an empty list where it does not."""
    folder = find_data("kodak", root)
    return [] if folder is None else _samples(list_photos(folder), "kodak")


def sample_photos() -> list[Sample]:
    """Load the photos for demonstrations: Kodak where it is found, else scikit-image's."""
    return kodak_photos() or skimage_photos()


def _samples(paths: list[Path], source: str) -> list[Sample]:
    captions = load_captions()
    return [Sample(p.name, load_photo(p), captions.get(p.name, ""), source) for p in paths]
