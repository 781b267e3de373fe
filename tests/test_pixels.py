"""Pixels that mean what they say: colour profiles, depths, pages, and metadata that is damaged."""

import importlib.util
import io
import struct
import subprocess
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from conftest import make_photo, pixels
from perco_lite.pixels import PHOTO_SUFFIXES, PhotoError, decode_photo, to_rgb

has_heif = importlib.util.find_spec("pillow_heif") is not None
# to XYZ under D50, as ICC profiles have it; a column a primary
SRGB = [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]
SPACES = {  # matrix, gamma
    "Display P3": ([[0.515, 0.292, 0.157], [0.241, 0.692, 0.067], [-0.001, 0.042, 0.784]], 2.2),
    "Adobe RGB": ([[0.610, 0.205, 0.149], [0.311, 0.626, 0.063], [0.020, 0.061, 0.745]], 2.2),
    "ProPhoto": ([[0.798, 0.135, 0.031], [0.288, 0.712, 0.0], [0.0, 0.0, 0.825]], 1.8),
    "swapped": ([row[::-1] for row in SRGB], 2.2),
}


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * value)) for value in values)


def profile(columns, gamma: float, space: bytes = b"RGB ") -> bytes:
    """An ICC profile, version 2: a matrix (or none, of grey) and one gamma."""
    white = fixed(0.9642, 1, 0.8249)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + white
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)
    for name, column in zip((b"r", b"g", b"b"), np.transpose(columns or 3 * [[]]), strict=False):
        tags[name + b"XYZ"], tags[name + b"TRC"] = b"XYZ " + bytes(4) + fixed(*column), curve
    tags |= {} if columns else {b"kTRC": curve}
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    head = bytes(4) + b"lcms\2\x10\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += white + bytes(48)
    size = struct.pack(">I", at + len(body))
    return size + head[4:] + struct.pack(">I", len(tags)) + table + body


def scene(width: int = 48, height: int = 32) -> np.ndarray:
    """Colours of all hues, not too pure, so that every space holds them: (H,W,3) uint8."""
    down, right = np.mgrid[0:height, 0:width]
    waves = [np.sin(right / 7 + k * 2.1) * np.cos(down / 9) for k in range(3)]
    return (128 + 60 * np.stack(waves, -1)).round().astype(np.uint8)


def linear(levels: np.ndarray) -> np.ndarray:
    x = levels / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def in_space(name: str) -> Image.Image:
    """The scene's colours as another space writes them."""
    matrix, gamma = SPACES[name]
    values = linear(scene()) @ np.transpose(SRGB) @ np.linalg.inv(matrix).T
    return Image.fromarray((255 * values.clip(0, 1) ** (1 / gamma)).round().astype(np.uint8))


def stored(image: Image.Image, suffix: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, suffix, **options)
    return stream.getvalue()


def read(data: bytes) -> np.ndarray:
    return np.asarray(decode_photo(io.BytesIO(data), "a photo")).astype(int)


LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("space", SPACES)
def test_colours_are_those_of_the_profile(space, suffix):
    icc = profile(*SPACES[space])
    data = stored(in_space(space), suffix, icc_profile=icc, **LOSSLESS[suffix])
    error = np.abs(read(data) - scene())
    assert error.max() <= 3 and error.mean() < 0.7
    assert np.abs(np.asarray(in_space(space)).astype(int) - scene()).mean() > 3  # without one


def test_transparency_and_palettes_have_profiles_too():
    icc, image = profile(*SPACES["Display P3"]), in_space("Display P3")
    clear = image.convert("RGBA")
    clear.putalpha(Image.new("L", image.size, 0).point(lambda _: 255))
    clear.putpixel((0, 0), (0, 0, 0, 0))
    pixels = read(stored(clear, icc_profile=icc))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert np.abs(pixels - scene())[1:].max() <= 3
    few = image.quantize(8)
    wanted = read(stored(few.convert("RGB"), icc_profile=icc))
    assert (read(stored(few, icc_profile=icc)) == wanted).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_linear_grey_is_brightened(dtype):
    levels = scene()[..., 0]
    most = np.iinfo(dtype).max
    image = Image.fromarray((linear(levels) * most).round().astype(dtype))
    pixels = read(stored(image, icc_profile=profile(None, 1.0, b"GRAY")))
    assert np.abs(pixels[..., 0] - levels).max() <= 3


def test_what_is_srgb_stays_bit_for_bit():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (read(stored(Image.fromarray(scene()), icc_profile=srgb)) == scene()).all()
    grey = Image.fromarray(scene()).convert("L")  # tagged as the colours it was made of
    assert (read(stored(grey, icc_profile=srgb))[..., 0] == np.asarray(grey)).all()


@pytest.mark.parametrize(
    "icc",
    [b"no profile", profile(*SPACES["Adobe RGB"])[:200], profile(None, 2.2, b"GRAY")],
    ids=["nonsense", "cut", "of grey"],
)
def test_a_profile_that_does_not_fit_is_left_out_and_named(icc):
    with pytest.warns(UserWarning, match="a photo: its colour profile is left out"):
        assert (read(stored(Image.fromarray(scene()), icc_profile=icc)) == scene()).all()


def test_a_profile_is_used_once():
    data = stored(in_space("ProPhoto"), icc_profile=profile(*SPACES["ProPhoto"]))
    once = to_rgb(Image.open(io.BytesIO(data)))
    assert (np.asarray(to_rgb(once)) == np.asarray(once)).all() and not once.info


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("order", "<>")
def test_white_is_zero(dtype, order):
    levels = scene()[..., 0]
    most = np.iinfo(dtype).max
    upside_down = (most - levels.astype(int) * (most // 255)).astype(dtype)
    stream = io.BytesIO()
    tifffile.imwrite(stream, upside_down, photometric="miniswhite", byteorder=order)
    assert np.abs(read(stream.getvalue())[..., 0] - levels).max() == 0


def pages(*written) -> bytes:
    """A TIFF of pages, each an array and tifffile's options for it."""
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as tiff:
        for array, options in written:
            tiff.write(array, photometric="rgb", **options)
    return stream.getvalue()


THUMBNAIL = np.zeros((16, 24, 3), np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        pages((THUMBNAIL, {"subfiletype": 1}), (scene(), {})),
        pages((THUMBNAIL[:8, :12], {}), (scene(), {})),
        pages((scene(), {}), (np.zeros((64, 96, 3), np.uint8), {"subfiletype": 1})),
        pages((THUMBNAIL, {"subfiletype": 1, "subifds": 1}), (scene(), {})),
        pages((scene(), {}), (THUMBNAIL, {})),
    ],
    ids=["marked", "unmarked", "a larger copy", "below the first", "last"],
)
def test_the_photo_and_not_its_thumbnail(data):
    assert (read(data) == scene()).all()


def test_a_raw_photo_is_not_replaced_by_its_thumbnail():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as tiff:
        tiff.write(THUMBNAIL, photometric="rgb", subfiletype=1, subifds=1)
        tiff.write(np.zeros((32, 48), np.uint16), photometric=32803)  # a colour filter array
    with pytest.raises(PhotoError, match="a photo has its photo as raw data of a sensor"):
        read(stream.getvalue())


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


BOMB = zlib.compress(bytes(70_000_000))


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"iTXt", b"about\0\1\0\0\0" + BOMB),
        chunk(b"zTXt", b"about\0\0" + BOMB),
        chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
        chunk(b"eXIf", b"nonsense"),
        chunk(b"tEXt", b"a\0b", crc=1),
        chunk(b"iCCP", b"x\0\0" + b"nothing deflated"),
        chunk(b"tIME", b""),
    ],
    ids=["large text", "large zTXt", "broken eXIf", "no eXIf", "checksum", "iCCP", "tIME"],
)
def test_damaged_metadata_refuses_no_pixels(extra, place):
    data = stored(Image.fromarray(scene()))
    at = 33 if place == "before" else len(data) - 12  # behind IHDR, or before IEND
    assert (read(data[:at] + extra + data[at:]) == scene()).all()


def test_damaged_pixels_are_still_refused():
    data = bytearray(stored(Image.fromarray(scene())))
    data[60] ^= 0xFF
    with pytest.raises(PhotoError, match="a photo is damaged or cut short"):
        read(bytes(data))


def test_no_other_program_is_started(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(PhotoError, match="a photo is no image that Pillow knows"):
        read(eps)


def test_heic_is_named():
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(64)
    with pytest.raises(PhotoError, match="HEIC" if not has_heif else "a photo is"):
        read(data)


@pytest.mark.skipif(not has_heif, reason="pillow-heif is an extra")
def test_heic_is_read_where_pillow_heif_is_installed():
    import pillow_heif

    pillow_heif.register_heif_opener()
    photo, stream = make_photo(60, 40), io.BytesIO()
    photo.save(stream, format="HEIF", quality=90)
    assert np.abs(pixels(read(stream.getvalue())) - pixels(photo)).mean() < 8
    assert ".heic" in PHOTO_SUFFIXES
