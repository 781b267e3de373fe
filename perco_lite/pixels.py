"""A photo file to pixels that mean what they say: upright, 8-bit, sRGB, and the photo itself.

    bytes ──formats below──► page ──orientation, depth, colour profile──► RGB image
              └── metadata that is damaged never refuses sound pixels

Paper: nothing on this; its photos are sRGB JPEGs.

Taught in notebook 01.
"""

import functools
import importlib.util
import io
import struct
import warnings
import zlib
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms

MAX_PIXELS = 100_000_000  # a larger photo needs more memory than a laptop has to spare
# Only these are tried, whatever a file is called: Pillow hands an EPS to another program.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "TGA")
PHOTO_SUFFIXES = frozenset(
    ".png .jpg .jpeg .jpe .jfif .mpo .webp .avif .bmp .tif .tiff .gif .ppm .jp2 .tga".split()
    + (".heic .heif".split() if importlib.util.find_spec("pillow_heif") else [])
)
_ORIENTATION, _SUBFILE, _OLD_SUBFILE, _PHOTOMETRIC, _SUB_IFDS = 0x0112, 254, 255, 262, 330
_UPRIGHT = {  # EXIF orientation: what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}  # of a profile's colour space


class PhotoError(ValueError):
    """A photo that cannot be read; one line naming the file and what to do."""


def decode_photo(stream: BinaryIO, name: str) -> Image.Image:
    """Decode one photo from an open binary file to upright sRGB; ``name`` is for error messages.

    Of an animation the first frame, of a TIFF the photo and not its thumbnail. Raises
    ``PhotoError``; the size is checked before any pixel is decoded.
    """
    data = stream.read()
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels up; our own limit, below, is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _open(data, name)
        return to_rgb(image, name)
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(f"{name} has over {MAX_PIXELS:,} pixels; make it smaller first") from error
    except Image.UnidentifiedImageError as error:
        raise PhotoError(
            f"{name} is no image that Pillow knows, or its start is damaged; save it as PNG or JPEG"
        ) from error
    except Exception as error:  # on broken bytes, Pillow's readers raise a dozen kinds of error
        raise PhotoError(
            f"{name} is damaged or cut short ({type(error).__name__}: {str(error)[:200]}); "
            "copy it again, or open it elsewhere and save it as PNG"
        ) from error


def _open(data: bytes, name: str) -> Image.Image:
    """A loaded image; of a PNG that fails, with fewer and fewer of its ancillary chunks."""
    fewer = (b"tRNS", b"gAMA", b"sRGB", b"iCCP", b"eXIf"), (b"tRNS",)
    for kept in (None, *fewer) if data.startswith(b"\x89PNG\r\n\x1a\n") else (None,):
        try:
            return _load(data if kept is None else _bare_png(data, kept), name)
        except (PhotoError, Image.DecompressionBombError):
            raise
        except Exception as problem:
            error = problem
    raise error


def _load(data: bytes, name: str) -> Image.Image:
    formats = list(FORMATS)
    if data[4:8] == b"ftyp" and b"avif" not in data[8:64] and data[8:10] in (b"he", b"mi", b"ms"):
        formats = ["HEIF"]
        try:
            import pillow_heif
        except ImportError as error:
            raise PhotoError(
                f"{name} is HEIC, which Pillow alone does not read; pip install "
                "'perco_lite[heic]', or save it as JPEG"
            ) from error
        pillow_heif.register_heif_opener()
    Image.init()  # Image.open knows only the formats that were imported
    white_is_zero = False
    try:
        image: Any = Image.open(io.BytesIO(data), formats=formats)
    except Image.UnidentifiedImageError:  # of 16 bits, big end first: Pillow knows only black is 0
        image = Image.open(io.BytesIO(_black_is_zero(data)), formats=["TIFF"])
        white_is_zero = True
    _check_size(image.size, name)
    if image.format == "TIFF":
        image = _photo_of_tiff(image, data, name)
        white_is_zero |= image.tag_v2.get(_PHOTOMETRIC) == 0
    image.load()
    if white_is_zero and image.mode.startswith("I;16"):  # of fewer bits, Pillow turns them itself
        upright = Image.fromarray(65535 - np.asarray(image).astype(np.uint16))
        upright.info = dict(image.info)
        return upright
    return image


def _black_is_zero(tiff: bytes) -> bytes:
    """A big-endian TIFF that says its 0 is black; UnidentifiedImageError for others."""
    entry = struct.pack(">HHIHH", _PHOTOMETRIC, 3, 1, 0, 0)
    if not tiff.startswith(b"MM\0*") or entry not in tiff:
        raise Image.UnidentifiedImageError("no format that is read")
    return tiff.replace(entry, entry[:8] + b"\0\1\0\0", 1)


def _bare_png(data: bytes, kept: tuple[bytes, ...]) -> bytes:
    """A PNG without its ancillary chunks, but for sound ones of the names in ``kept``."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        chunk = data[at : at + 12 + length]
        sound = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
        if kind[:1].isupper() or (sound and kind in kept):
            parts.append(chunk)
        at += 12 + length
    return b"".join(parts)


def _photo_of_tiff(image: Any, data: bytes, name: str) -> Image.Image:
    """The page that is the photo: the first, unless it is marked, or looks, like a thumbnail.

    A page of at least four times the first one's pixels is the photo. A DNG has it in a page below
    the first (SubIFDs).
    """
    first, pages = image.size, []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        pages.append((_is_reduced(image), image.size[0] * image.size[1], number))
    image.seek(0)
    if pages[0][0]:
        inner = list(filter(None, (_page_at(data, o) for o in image.tag_v2.get(_SUB_IFDS, ()))))
        inner = [page for page in inner if not _is_reduced(page)]
        if inner:
            return max(inner, key=lambda page: page.size[0] * page.size[1])
        if _SUB_IFDS in image.tag_v2 and all(reduced for reduced, _, _ in pages):
            raise PhotoError(
                f"{name} has its photo as raw data of a sensor, and beside it a thumbnail of "
                f"{first[0]}×{first[1]}; develop it elsewhere and save it as TIFF or PNG"
            )
    whole = [page for page in pages if not page[0]] or pages
    largest = max(whole, key=lambda page: (page[1], -page[2]))
    keep_first = not pages[0][0] and 4 * pages[0][1] > largest[1]
    image.seek(0 if keep_first else largest[2])
    _check_size(image.size, name)
    return image


def _is_reduced(page: Any) -> bool:
    """Whether a TIFF page says it is a smaller version of another one, or a mask of it."""
    return bool(page.tag_v2.get(_SUBFILE, 0) & 0b101) or page.tag_v2.get(_OLD_SUBFILE) == 2


def _page_at(data: bytes, offset: int) -> Image.Image | None:
    """The TIFF page whose directory is at ``offset``, as if it were the first; None if raw."""
    order = {b"II*\0": "<I", b"MM\0*": ">I"}.get(data[:4], "")
    try:
        moved = data[:4] + struct.pack(order, offset) + data[8:]
        return Image.open(io.BytesIO(moved), formats=["TIFF"])
    except Exception:  # what Pillow does not know, and a file that is no classic TIFF
        return None


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
        return value if value in _UPRIGHT else 1
    except Exception:  # broken metadata says nothing of sound pixels
        return 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after EXIF orientation; values 5 to 8 swap them."""
    width, height = image.size
    return (height, width) if orientation(image) in (5, 6, 7, 8) else (width, height)


def to_rgb(image: Image.Image, name: str = "the photo") -> Image.Image:
    """Turn any Pillow image upright (EXIF) and into 8-bit sRGB; transparency goes on white.

    Colours are converted by the embedded ICC profile, perceptual intent; a profile that is broken
    or of another kind of image is left out with a warning. 16-bit grey is scaled by 255/65535, not
    clipped. What comes out has no metadata, so that it may come here again.
    Raises ``TypeError`` for anything but a Pillow image, ``PhotoError`` for a size or mode with no
    obvious 8-bit meaning.
    """
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"got {type(image).__name__}, expected a PIL image; use load_photo for a path, "
            "PIL.Image.fromarray for an array, tensor_to_image for a tensor"
        )
    _check_size(image.size, f"the {image.mode} image")
    profile, turn = image.info.get("icc_profile"), _UPRIGHT.get(orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "F":
        raise PhotoError(
            "got a floating-point image (mode F), whose white is unknown; "
            "scale it to 0..255 and convert it to mode L or RGB"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        image, profile = _grey16_to_grey8(image, profile, name), None
    alpha = None
    if image.has_transparency_data:
        grey = image.mode == "LA"
        alpha = image.convert("RGBA").getchannel("A")
        image = image.getchannel("L") if grey else image.convert("RGBA").convert("RGB")
    if profile and image.mode not in _MODES.values():
        image = image.convert("RGB")
    try:
        rgb = _to_srgb(image, profile, name) if profile else image.convert("RGB")
    except ValueError as error:
        raise PhotoError(f"cannot convert mode {image.mode} to RGB; save it as PNG") from error
    if alpha is not None:
        white = Image.new("RGBA", rgb.size, (255, 255, 255, 255))
        rgb.putalpha(alpha)
        rgb = Image.alpha_composite(white, rgb).convert("RGB")
    return Image.fromarray(np.array(rgb))


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _to_srgb(image: Image.Image, profile: bytes, name: str) -> Image.Image:
    """Convert an image of mode L, RGB or CMYK by its profile; as it is, where that is sRGB."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        mode = _MODES.get(space)
        if image.mode == "L" and mode == "RGB":  # tagged as the colours it was made of
            image = image.convert("RGB")
        if image.mode != mode:
            raise ValueError(f"it is for {space}, the pixels are {image.mode}")
        # exactly: LittleCMS's short cuts lose the darks of linear profiles
        how = ImageCms.Intent.PERCEPTUAL, ImageCms.Flags.NOOPTIMIZE
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB", *how)
        # rounding must not change what is sRGB already
        ramp = np.arange(0, 256, 15, dtype=np.uint8)
        cube = Image.fromarray(np.stack(np.meshgrid(ramp, ramp, ramp), -1).reshape(1, -1, 3))
        if mode == "RGB":
            moved = np.asarray(ImageCms.applyTransform(cube, transform)).astype(int)
            if np.abs(moved - np.asarray(cube)).max() <= 2:
                return image.copy()
        return ImageCms.applyTransform(image, transform) or image
    except Exception as error:  # LittleCMS's own, and what a broken header leads to
        reason = " ".join(str(error).split())[:200]
        warnings.warn(
            f"{name}: its colour profile is left out ({reason}), as if sRGB", stacklevel=3
        )
        return image.convert("RGB")


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise PhotoError(f"{name} is {width}×{height}, expected at least 1×1 pixel")
    if width * height > MAX_PIXELS:
        raise PhotoError(
            f"{name} is {width}×{height}, over {MAX_PIXELS:,} pixels; make it smaller first"
        )


def _grey16_to_grey8(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() > 65535:
        raise PhotoError(
            f"got grey levels {levels.min()}..{levels.max()}, expected 0..65535; "
            "scale them to 0..255 and convert to mode L"
        )
    # Pillow's own convert("I") keeps 8-bit values, so a mode-I image may be either.
    small = image.mode == "I" and levels.max() <= 255
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    if profile:  # its curve, between the 256 levels that LittleCMS is asked for
        curve = np.asarray(_to_srgb(ramp, profile, name))[0, :, 0]
        grey = np.interp(levels if small else levels / 257, np.arange(256), curve)
        return Image.fromarray(grey.round().astype(np.uint8))
    grey = levels if small else (levels * 255 + 32767) // 65535
    return Image.fromarray(grey.astype(np.uint8))
