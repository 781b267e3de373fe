"""JPEG XL, BPG and VTM (H.266's reference software), where their programs are found on PATH.

    image (PIL RGB, H×W) ──PNG, or planes of Y'CbCr──► the program, searching the quality
        ──► bytes ≤ target_bytes ──its decoder──► image

The programs are run as their manuals say, in a folder of their own that is gone afterwards.
Nothing stands in for one that is missing: ``why_not`` names it.

Paper: PerCo, Sec. 4: compares with VTM and BPG among classical codecs.
Differs from the paper: its settings are not known. Ours: 4:4:4 for all three; BPG at its defaults
else; VTM all-intra, 8-bit full-range BT.709 Y'CbCr in and out; JPEG XL at effort 9. VTM files are
bare streams of a frame; they hold the size of the photo, not the choice of colours.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from perco_lite.evaluation.codecs.classical import (
    BaselineResult,
    Tried,
    check_photo,
    once,
    search_quality,
)
from perco_lite.metrics import Unavailable

# Our name -> its programs, by the names they are installed under; the first one found is taken.
_VTM = ("EncoderApp", "EncoderAppStatic"), ("DecoderApp", "DecoderAppStatic")
PROGRAMS = {"jpegxl": (("cjxl",), ("djxl",)), "bpg": (("bpgenc",), ("bpgdec",)), "vtm": _VTM}
EXTERNAL_CODECS = tuple(PROGRAMS)
_SOURCES = {
    "jpegxl": "apt-get install libjxl-tools",
    "bpg": "build libbpg (https://bellard.org/bpg)",
    "vtm": "build VVCSoftware_VTM and put its bin/ on PATH",
}
VTM_CONFIG = "encoder_intra_vtm.cfg"  # comes with VTM, in cfg/ beside bin/
_BT709 = np.array(  # rows: Y', Cb, Cr from R'G'B', all of full range
    [
        [0.2126, 0.7152, 0.0722],
        [-0.2126 / 1.8556, -0.7152 / 1.8556, 0.9278 / 1.8556],
        [0.7874 / 1.5748, -0.7152 / 1.5748, -0.0722 / 1.5748],
    ]
)


def why_not(codec: str) -> str:
    """What is missing to use ``codec``, by name, and where to get it; "" where nothing is.

    VTM needs its configuration as well: ``$PERCO_LITE_VTM_CONFIG``, else cfg/ beside its bin/.
    """
    if codec not in PROGRAMS:
        raise ValueError(f"got codec {codec!r}, expected one of {', '.join(EXTERNAL_CODECS)}")
    for names in PROGRAMS[codec]:
        if not _find(names):
            return f"{codec}: no {' or '.join(names)} on PATH; {_SOURCES[codec]}"
    if codec == "vtm" and not _vtm_config().is_file():
        return f"vtm: no configuration at {_vtm_config()}; set PERCO_LITE_VTM_CONFIG to VTM's own"
    return ""


def check_available(codec: str) -> None:
    """Raise ``Unavailable`` for a codec whose programs are not here."""
    if reason := why_not(codec):
        raise Unavailable(reason)


def encode_near(
    image: Image.Image, codec: str, target_bytes: int, tried: Tried | None = None
) -> BaselineResult:
    """Make the largest file of at most ``target_bytes``, or the smallest if none fits.

    ``image`` is RGB. ``quality`` of the result is the codec's own scale, where less is better:
    JPEG XL's distance 0.1..25, BPG's quantizer 0..51, VTM's 0..63. A search runs the
    encoder about seven times; VTM takes minutes each time, so that ``tried``, as for
    ``classical.encode_near``, saves much where a photo has several targets. Raises ``ValueError``
    for an unknown codec, another mode or target, ``Unavailable`` for programs that are not here,
    ``RuntimeError`` with their last words where they fail.
    """
    check_available(codec)
    check_photo(image, target_bytes)
    encode, decode, worst, scale = _CODECS[codec]
    steps = worst if scale == 1 else worst - 1  # distance 0 would be lossless, another mode
    tried = {} if tried is None else tried

    def quality(step: int) -> float:
        return round((worst - step) * scale, 1)

    with tempfile.TemporaryDirectory(prefix="perco_lite_") as name:
        folder = Path(name)

        def made(step: int) -> bytes:
            return once(tried, quality(step), lambda: encode(image, quality(step), folder))

        data, step = search_quality(made, 0, steps, target_bytes)
        started = time.perf_counter()
        decoded = decode(data, image.size, folder)
        seconds = time.perf_counter() - started
    if decoded.size != image.size:
        raise RuntimeError(f"{codec}: put in {image.size}, got back {decoded.size}")
    reached = len(data) <= target_bytes
    return BaselineResult(codec, data, decoded, quality(step), reached, seconds)


def to_ycbcr(image: Image.Image) -> np.ndarray:
    """RGB photo to planes (3,H,W) uint8: BT.709 Y'CbCr, full range, 4:4:4, rounded."""
    planes = _BT709 @ np.asarray(image, np.float64).reshape(-1, 3).T
    planes[1:] += 128
    return planes.round().clip(0, 255).astype(np.uint8).reshape(3, image.height, image.width)


def from_ycbcr(planes: np.ndarray) -> Image.Image:
    """Planes (3,H,W) uint8 of ``to_ycbcr`` back to an RGB photo; within 2 of 255."""
    values = planes.reshape(3, -1).astype(np.float64)
    values[1:] -= 128
    rgb = (np.linalg.inv(_BT709) @ values).round().clip(0, 255).astype(np.uint8)
    return Image.fromarray(rgb.T.reshape(*planes.shape[1:], 3))


def _encode_jpegxl(image: Image.Image, distance: float, folder: Path) -> bytes:
    # a bare codestream: the container holds metadata, and there is none
    options = ["-d", distance, "-e", 9, "--container=0"]
    return _encode_png("jpegxl", image, folder, lambda png, out: [png, out, *options])


def _encode_bpg(image: Image.Image, quantizer: float, folder: Path) -> bytes:
    options = ["-q", quantizer, "-f", 444]
    return _encode_png("bpg", image, folder, lambda png, out: [*options, "-o", out, png])


def _encode_png(codec: str, image: Image.Image, folder: Path, arguments: Callable) -> bytes:
    source, target = folder / "photo.png", folder / "coded"
    # a fresh image has no EXIF or colour profile to carry over
    Image.frombytes("RGB", image.size, image.tobytes()).save(source, compress_level=1)
    return _run(codec, 0, arguments(source, target), target)


def _decode_jpegxl(data: bytes, size: tuple[int, int], folder: Path) -> Image.Image:
    return _decode_png("jpegxl", data, folder, lambda source, png: [source, png])


def _decode_bpg(data: bytes, size: tuple[int, int], folder: Path) -> Image.Image:
    return _decode_png("bpg", data, folder, lambda source, png: ["-o", png, source])


def _decode_png(codec: str, data: bytes, folder: Path, arguments: Callable) -> Image.Image:
    source, target = folder / "coded", folder / "decoded.png"
    source.write_bytes(data)
    _run(codec, 1, arguments(source, target), target)
    with Image.open(target) as image:
        return image.convert("RGB")


def _encode_vtm(image: Image.Image, quantizer: float, folder: Path) -> bytes:
    source, target = folder / "photo.yuv", folder / "coded.bin"
    source.write_bytes(to_ycbcr(image).tobytes())
    arguments = ["-c", _vtm_config(), "-i", source, "-b", target, "-o", os.devnull]
    arguments += ["-q", quantizer, "-wdt", image.width, "-hgt", image.height, "-fr", 1, "-f", 1]
    # the window cuts off what the encoder adds to fill its blocks
    arguments += ["--InputBitDepth=8", "--InputChromaFormat=444", "--ConformanceWindowMode=1"]
    return _run("vtm", 0, arguments, target)


def _decode_vtm(data: bytes, size: tuple[int, int], folder: Path) -> Image.Image:
    source, target = folder / "coded.bin", folder / "decoded.yuv"
    source.write_bytes(data)
    planes = np.frombuffer(_run("vtm", 1, ["-b", source, "-o", target, "-d", 8], target), np.uint8)
    width, height = size
    if planes.size != 3 * height * width:
        raise RuntimeError(f"vtm: decoded to {planes.size} samples, expected {3 * height * width}")
    return from_ycbcr(planes.reshape(3, height, width))


# encoder, decoder, worst of the codec's own scale in steps, the size of a step
_CODECS = {
    "jpegxl": (_encode_jpegxl, _decode_jpegxl, 250, 0.1),
    "bpg": (_encode_bpg, _decode_bpg, 51, 1),
    "vtm": (_encode_vtm, _decode_vtm, 63, 1),
}


def _find(names: tuple[str, ...]) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


def _vtm_config() -> Path:
    chosen = os.environ.get("PERCO_LITE_VTM_CONFIG")
    if chosen:
        return Path(chosen)
    return Path(_find(PROGRAMS["vtm"][0])).resolve().parent.parent / "cfg" / VTM_CONFIG


def _run(codec: str, which: int, arguments: list, target: Path) -> bytes:
    """Run encoder (0) or decoder (1); the bytes of the file it wrote."""
    target.unlink(missing_ok=True)  # what is read below is never an earlier run's
    program = _find(PROGRAMS[codec][which])
    command = [program, *(f"{a:g}" if isinstance(a, float) else str(a) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode or not target.is_file():
        words = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise RuntimeError(
            f"{codec}: {Path(program).name} failed with status {done.returncode} ({words}); "
            f"the command was: {' '.join(command)}"
        )
    return target.read_bytes()
