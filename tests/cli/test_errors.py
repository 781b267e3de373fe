"""What the `perco` command says to bad input: one line each, exit code 2, the others still done."""

import json
import os
import shutil

import pytest
import torch
from PIL import Image

from conftest import png_header
from perco_lite import loading
from perco_lite.coding.bitstream import pack, unpack

SERVED = "0.0019, 0.0098, 0.0313, 0.1250"


@pytest.fixture(scope="module")
def codec(tiny_weights):
    return loading.load_codec(str(tiny_weights), "cpu")


@pytest.fixture
def perco(perco, codec, monkeypatch):
    """Run the command in this process: (exit code, stdout, lines of stderr)."""
    real = loading.load_codec

    def load(weights=None, device=None, dtype=None):
        return codec if weights is None and device is None else real(weights, device, dtype)

    monkeypatch.setattr(loading, "load_codec", load)

    def run(*arguments):
        code, out, err = perco(*arguments)
        return code, out, err.splitlines()

    return run


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "good.png")
    return tmp_path / "good.png"


@pytest.fixture
def data(codec):
    """Bytes of one good file."""
    return codec.compress(Image.new("RGB", (20, 10), "red"), "a red wall")


# --- photos ---


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is empty (0 bytes)", id="empty"),
        pytest.param(b"hello\n" * 99, "is no image that Pillow knows", id="text"),
        pytest.param(png_header(20_000, 10_000), "over 100,000,000 pixels", id="huge"),
        pytest.param(b"\xff\xd8\xff\xe0" + bytes(99), "is no image|damaged", id="corrupt"),
        pytest.param(None, "no such file", id="missing"),
        pytest.param("folder", "no file in this folder ends in", id="empty folder"),
    ],
)
def test_a_bad_photo_is_named_and_the_others_done(perco, photo, tmp_path, content, message):
    bad = tmp_path / "bad.png"
    if content == "folder":
        bad.mkdir()
    elif content is not None:
        bad.write_bytes(content)
    code, out, err = perco("compress", bad, photo)
    assert code == 2 and len(out.splitlines()) == 1
    (line,) = err
    assert line.startswith(f"error: {bad}") and any(m in line for m in message.split("|"))
    assert unpack((tmp_path / "good.perco").read_bytes()).width == 20
    assert not (tmp_path / "bad.perco").exists() and not list(tmp_path.glob("*.part"))


def test_two_photos_for_one_file(perco, photo, tmp_path):
    Image.new("RGB", (5, 5)).save(tmp_path / "good.jpg")
    code, out, err = perco("compress", tmp_path)
    assert code == 2 and len(out.splitlines()) == 1
    assert err[0].startswith(f"error: {photo}: would write") and "good.jpg does" in err[0]
    assert unpack((tmp_path / "good.perco").read_bytes()).width == 5


def test_a_place_that_cannot_be_written(perco, photo, data, tmp_path):
    (tmp_path / "taken").write_bytes(b"x")
    target = tmp_path / "taken" / "sub"
    code, out, (line,) = perco("compress", photo, "-o", target)
    assert (code, out) == (2, "") and f"cannot write {target / 'good.perco'}" in line
    (tmp_path / "a.perco").write_bytes(data)
    code, out, (line,) = perco("decompress", tmp_path / "a.perco", "--steps", 1, "-o", target)
    assert (code, out) == (2, "") and f"cannot write {target / 'a.png'}" in line
    code, out, (line,) = perco("compress", photo, "-o", tmp_path / "x.png")
    assert code == 2 and "must end in .perco" in line and not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("rate", "message"),
    [("0.5", "not one of these weights"), ("0.0024", "one of the paper, not of these weights")],
)
def test_a_rate_that_is_not_served(perco, photo, rate, message):
    code, out, (line,) = perco("compress", photo, "--rate", rate)
    assert (code, out) == (2, "") and message in line and line.endswith(f"expected one of {SERVED}")


def test_captions(perco, photo, tmp_path):
    code, _, (line,) = perco("compress", photo, "--captions", tmp_path / "none.json")
    assert code == 2 and "no captions at" in line and "none.json" in line
    captions = tmp_path / "captions.json"
    for text in ("{", '["a"]', '{"good.png": 3}', "\x80"):
        captions.write_bytes(text.encode("latin-1"))
        code, _, (line,) = perco("compress", photo, "--captions", captions)
        assert code == 2 and line.startswith(f"error: {captions}"), text
    code, _, (line,) = perco("compress", photo, "--captions", captions, "--caption", "a cat")
    assert code == 2 and "give one of them" in line
    code, _, (line,) = perco("compress", photo, "--caption", "猫" * 30_000)
    assert code == 2 and str(photo) in line and "expected at most 65535" in line
    assert not (tmp_path / "good.perco").exists()


def test_too_large_for_the_memory(perco, photo, codec, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] can't allocate memory:\n12 bytes")

    monkeypatch.setattr(codec, "compress", fail)
    code, out, (line,) = perco("compress", photo)
    assert code == 2 and line.startswith(f"error: {photo}: not enough memory")


# --- .perco files ---


def cases(data: bytes) -> dict[str, tuple[bytes, str]]:
    """Damaged and foreign files by name, each with what is said of it."""
    flipped = bytearray(data)
    flipped[-4] ^= 1
    stranger = unpack(data)
    other = type(stranger)(**{**vars(stranger), "model_id": stranger.model_id ^ 1})
    return {
        "cut": (data[:-3], "wrong checksum, the file was cut or altered"),
        "stump": (data[:5], "only 5 bytes"),
        "flipped": (bytes(flipped), "wrong checksum"),
        "empty": (b"", "the file is empty"),
        "photo": (b"\x89PNG\r\n\x1a\n" + bytes(50), "this is a PNG image, not a .perco file"),
        "stranger": (pack(other), "load the weights that made it"),
    }


def test_each_bad_file_is_named_and_the_others_done(perco, data, tmp_path):
    bad = cases(data)
    for name, (content, _) in bad.items():
        (tmp_path / f"{name}.perco").write_bytes(content)
    (tmp_path / "good.perco").write_bytes(data)
    (tmp_path / "zero.perco").symlink_to("/dev/zero")
    code, out, err = perco(
        "decompress", "--steps", 1, tmp_path, tmp_path / "missing.perco", tmp_path / "zero.perco"
    )
    assert code == 2 and out.startswith(f"{tmp_path / 'good.png'}: 20×10") and out.count("\n") == 1
    assert len(err) == len(bad) + 2
    said = {line.split(": ")[1]: line for line in err}
    for name, (_, message) in bad.items():
        assert message in said[str(tmp_path / f"{name}.perco")]
    assert "not a .perco file" in said[str(tmp_path / "zero.perco")], "read to no end"
    assert [path.name for path in tmp_path.glob("*.png")] == ["good.png"]


def test_inspect_of_bad_files_is_still_json(perco, data, tmp_path):
    for name, (content, _) in cases(data).items():
        (tmp_path / f"{name}.perco").write_bytes(content)
    code, out, err = perco("inspect", tmp_path, "--json")
    assert code == 2 and len(err) == 5, "it needs no weights, so a stranger is no stranger"
    assert [os.path.basename(row["file"]) for row in json.loads(out)] == ["stranger.perco"]
    code, out, err = perco("decompress", tmp_path / "cut.perco", "--json")
    assert code == 2 and json.loads(out) == [] and len(err) == 1


def test_what_is_too_much_at_once_goes_one_by_one(perco, data, codec, tmp_path, monkeypatch):
    real, sizes = codec.decompress, []

    def sparing(files, *args, **kwargs):
        sizes.append(len(files))
        if len(files) > 1 or files[0].caption == "large":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return real(files, *args, **kwargs)

    monkeypatch.setattr(codec, "decompress", sparing)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.perco").write_bytes(data)
    red = Image.new("RGB", (20, 10), "red")
    (tmp_path / "b.perco").write_bytes(codec.compress(red, "large"))
    code, out, (line,) = perco("decompress", tmp_path, "--steps", 1)
    assert code == 2 and line.startswith(f"error: {tmp_path / 'b.perco'}: not enough memory")
    assert sizes == [3, 1, 1, 1] and out.count("\n") == 2


# --- options ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--sampler", "euler"),
            "unknown sampler 'euler', expected one of fast, paper, ddim, dpm++",
        ),
        (("--guidance", "nan"), "give a number, such as 2"),
        (("--seed", "-1"), "give numbers from 0"),
        (("--seed", str(2**64)), "give numbers from 0"),
        (("--device", "nonsense"), "no device 'nonsense' on this machine"),
        (("--device", "meta"), "no device 'meta' on this machine"),
        (("--steps", "0"), "--steps"),
        (("--steps", "many"), "--steps"),
    ],
)
def test_options_that_make_no_sense(perco, data, tmp_path, options, message):
    (tmp_path / "a.perco").write_bytes(data)
    code, out, err = perco("decompress", tmp_path / "a.perco", *options)
    assert (code, out) == (2, "") and message in err[-1]
    assert not (tmp_path / "a.png").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_said_in_one_line(perco, photo):
    code, out, (line,) = perco("compress", photo, "--device", "cuda")
    assert (code, out) == (2, "") and "no device 'cuda' on this machine" in line


def spoil(weights, kind):
    """Break a copy of the weights."""
    if kind == "cut":
        file = weights / "unet" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:2000])
    elif kind == "no part":
        shutil.rmtree(weights / "unet")
    elif kind == "index":
        (weights / "model_index.json").write_text("{")
    elif kind == "other":
        (weights / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    elif kind == "empty":
        shutil.rmtree(weights)
        weights.mkdir()
    elif kind == "missing":
        shutil.rmtree(weights)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no folder of weights at"),
        ("empty", "no model_index.json in"),
        ("index", "model_index.json is damaged"),
        ("other", "holds a StableDiffusionPipeline, expected a PercoCodec"),
        ("cut", "do not load"),
        ("no part", "do not load"),
    ],
)
def test_weights_that_are_none(perco, photo, tiny_weights, tmp_path, kind, message):
    weights = tmp_path / "weights"
    shutil.copytree(tiny_weights, weights)
    spoil(weights, kind)
    for command in (("compress", photo), ("info",)):
        code, out, (line,) = perco(*command, "--weights", weights)
        assert (code, out) == (2, "") and message in line and str(weights) in line
    if kind in ("missing", "empty"):
        code, out, (line,) = perco("rates", "--weights", weights)
        assert (code, out) == (2, "") and str(weights) in line


def test_no_bundled_weights(perco, monkeypatch, tmp_path):
    monkeypatch.setattr("perco_lite.codec.BUNDLED", tmp_path)
    with pytest.raises(FileNotFoundError, match="reinstall the package, or train your own"):
        loading.PercoCodec.from_pretrained()


def test_weights_that_do_not_fit_on_the_device_say_what_helps(tiny_weights, monkeypatch):
    def fail(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.20 GiB")

    monkeypatch.setattr(loading.PercoCodec, "to", fail)
    with pytest.raises(ValueError, match=r"weights \(0.0 GiB\) do not fit on cpu.*bfloat16"):
        loading.load_codec(str(tiny_weights), "cpu")
