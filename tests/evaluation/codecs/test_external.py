"""JPEG XL, BPG and VTM through small programs of ours that take the real ones' command lines."""

import stat
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perco_lite.evaluation.codecs.external import (
    EXTERNAL_CODECS,
    _run,
    encode_near,
    from_ycbcr,
    to_ycbcr,
    why_not,
)
from perco_lite.metrics import Unavailable, psnr

# Stands in for all six programs: refuses what the real one's manual does not have, then keeps
# fewer grey levels the worse the quality, and deflates them.
PROGRAM = """
import argparse, struct, sys, zlib
from pathlib import Path
name = Path(sys.argv[0]).name
parser = argparse.ArgumentParser(prog=name, allow_abbrev=False)
add = parser.add_argument
if name == "cjxl":
    add("input"), add("output"), add("-d", type=float), add("-e", type=int, choices=range(1, 10))
    add("--container", choices=["0", "1"])
elif name in ("djxl",):
    add("input"), add("output")
elif name == "bpgenc":
    add("-o", dest="output"), add("-q", type=int, choices=range(52)), add("input")
    add("-f", choices=["420", "422", "444"])
elif name == "bpgdec":
    add("-o", dest="output"), add("input")
elif name.startswith("EncoderApp"):
    add("-c"), add("-i", dest="input"), add("-b", dest="output"), add("-o", dest="recon")
    add("-q", type=int, choices=range(64)), add("-wdt", type=int), add("-hgt", type=int)
    add("-fr", type=int), add("-f", type=int), add("--InputBitDepth", type=int)
    add("--InputChromaFormat", choices=["400", "420", "422", "444"])
    add("--ConformanceWindowMode", type=int)
else:
    add("-b", dest="input"), add("-o", dest="output"), add("-d", type=int)
a = parser.parse_args()
source, target = Path(a.input), Path(a.output)
step = max(1, int(a.d * 4)) if name == "cjxl" else 1 + 2 * (getattr(a, "q", None) or 0)
if name in ("cjxl", "bpgenc"):
    from PIL import Image
    assert source.suffix == ".png"
    with Image.open(source) as image:
        assert image.mode == "RGB" and not image.info
        size, samples = image.size, image.tobytes()
elif name.startswith("EncoderApp"):
    assert Path(a.c).read_text() == "# intra" and a.f == 1 and a.ConformanceWindowMode == 1
    assert a.InputChromaFormat == "444" and a.InputBitDepth == 8 and a.recon == "/dev/null"
    size, samples = (a.wdt, a.hgt), source.read_bytes()
    assert len(samples) == 3 * a.wdt * a.hgt
else:
    data = source.read_bytes()
    size, samples = struct.unpack("<HH", data[:4]), zlib.decompress(data[4:])
    if name.startswith("DecoderApp"):
        assert a.d == 8
        target.write_bytes(samples)
    else:
        from PIL import Image
        Image.frombytes("RGB", size, samples).save(target, format="PNG")
    sys.exit()
levels = bytes(min(255, s // step * step + step // 2) for s in samples)
target.write_bytes(struct.pack("<HH", *size) + zlib.compress(levels, 9))
"""


def install(folder, name, text=PROGRAM):
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """All programs on PATH, and nothing else; VTM's laid out as it is built."""
    folder, vtm = tmp_path / "bin", tmp_path / "vtm" / "bin"
    folder.mkdir(), vtm.mkdir(parents=True)
    for name in ("cjxl", "djxl", "bpgenc", "bpgdec"):
        install(folder, name)
    for name in ("EncoderAppStatic", "DecoderAppStatic"):
        install(vtm, name)
    (tmp_path / "vtm" / "cfg").mkdir()
    (tmp_path / "vtm" / "cfg" / "encoder_intra_vtm.cfg").write_text("# intra")
    monkeypatch.setenv("PATH", f"{folder}:{vtm}")
    monkeypatch.delenv("PERCO_LITE_VTM_CONFIG", raising=False)
    return tmp_path


def available():
    return [codec for codec in EXTERNAL_CODECS if not why_not(codec)]


@pytest.mark.parametrize("codec", EXTERNAL_CODECS)
def test_file_is_just_below_the_target(photo, codec, programs):
    least = encode_near(photo, codec, 1)
    assert least.image.size == photo.size and not least.reached
    assert least.quality == {"jpegxl": 25, "bpg": 51, "vtm": 63}[codec]
    target = 3 * len(least.data)
    result = encode_near(photo, codec, target)
    assert result.reached and len(least.data) < len(result.data) <= target
    assert result.quality < least.quality
    assert psnr(photo, result.image) > psnr(photo, least.image) + 3

    result = encode_near(photo, codec, 10**6)  # the best quality
    assert result.quality == {"jpegxl": 0.1, "bpg": 0, "vtm": 0}[codec]
    assert psnr(photo, result.image) > (50 if codec == "vtm" else 99)  # Y'CbCr rounds


def test_metadata_is_left_out(photo, programs):
    tagged = photo.copy()
    tagged.info.update(icc_profile=b"SECRET" * 20)
    assert encode_near(tagged, "jpegxl", 1).data == encode_near(photo, "jpegxl", 1).data


def test_what_is_missing_is_named(photo, programs, monkeypatch):
    assert available() == ["jpegxl", "bpg", "vtm"]
    (programs / "bin" / "djxl").unlink()
    assert why_not("jpegxl").startswith("jpegxl: no djxl on PATH; apt-get install libjxl-tools")
    (programs / "vtm" / "cfg" / "encoder_intra_vtm.cfg").unlink()
    assert "set PERCO_LITE_VTM_CONFIG" in why_not("vtm")
    with pytest.raises(Unavailable, match="encoder_intra_vtm.cfg"):
        encode_near(photo, "vtm", 1000)
    other = programs / "my.cfg"
    other.write_text("# intra")
    monkeypatch.setenv("PERCO_LITE_VTM_CONFIG", str(other))
    assert available() == ["bpg", "vtm"]
    assert encode_near(photo, "vtm", 1).quality == 63  # and it is the one that is used
    monkeypatch.setenv("PATH", str(programs))
    assert available() == []
    assert "EncoderApp or EncoderAppStatic" in why_not("vtm")


def test_a_program_that_fails_is_quoted(photo, programs):
    bad = "import sys\nprint('starting')\nsys.exit('out of ink')\n"
    install(programs / "bin", "bpgenc", bad)
    with pytest.raises(RuntimeError, match=r"bpgenc failed with status 1 \(out of ink\); .* -q 51"):
        encode_near(photo, "bpg", 1)
    install(programs / "bin", "cjxl", "pass\n")  # says it went well, and wrote nothing
    stale = programs / "stale"
    stale.write_bytes(b"old")  # what another run left
    with pytest.raises(RuntimeError, match="cjxl failed with status 0 .it said nothing"):
        _run("jpegxl", 0, [], stale)
    short = "import sys\nopen(sys.argv[sys.argv.index('-o') + 1], 'wb').write(b'123')\n"
    install(programs / "vtm" / "bin", "DecoderAppStatic", short)
    with pytest.raises(RuntimeError, match=f"3 samples, expected {3 * photo.width * photo.height}"):
        encode_near(photo, "vtm", 1)


def test_errors_say_what_to_do(photo, programs):
    with pytest.raises(ValueError, match="'hm', expected one of jpegxl, bpg, vtm"):
        why_not("hm")
    with pytest.raises(ValueError, match="mode L, expected RGB; use data.to_rgb"):
        encode_near(photo.convert("L"), "bpg", 1000)
    with pytest.raises(ValueError, match="at least 1"):
        encode_near(photo, "bpg", 0)


def test_colours_by_hand():
    """Y' = 0.2126 R + 0.7152 G + 0.0722 B; Cb = (B - Y') / 1.8556, Cr = (R - Y') / 1.5748."""
    pixels = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [10, 200, 90]]], np.uint8)
    planes = to_ycbcr(Image.fromarray(pixels))
    assert planes.shape == (3, 1, 4)
    assert planes[:, 0, 0].tolist() == [255, 128, 128]
    assert planes[:, 0, 1].tolist() == [0, 128, 128]
    y = 0.2126 * 255
    # red: Cr would be 255.5, which is cut to 255
    assert planes[:, 0, 2].tolist() == [round(y), round(128 - y / 1.8556), 255]
    y = 0.2126 * 10 + 0.7152 * 200 + 0.0722 * 90
    expected = [y, 128 + (90 - y) / 1.8556, 128 + (10 - y) / 1.5748]
    assert planes[:, 0, 3].tolist() == [round(value) for value in expected]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_colours_come_back_within_two(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), np.uint8)
    back = np.asarray(from_ycbcr(to_ycbcr(Image.fromarray(pixels)))).astype(int)
    assert np.abs(back - pixels).max() <= 2
