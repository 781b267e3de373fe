"""What happens to files in real life: nothing is lost, nothing steers a terminal, no traceback."""

import errno
import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from conftest import make_photo
from perco_lite import loading
from perco_lite.coding.bitstream import unpack
from perco_lite.files import MAX_PAINTED, save_png


@pytest.fixture(scope="module")
def codec(tiny_weights):
    return loading.load_codec(str(tiny_weights), "cpu")


@pytest.fixture
def perco(perco, codec, monkeypatch):
    """Run the command in this process: (exit code, lines of stdout, lines of stderr)."""
    monkeypatch.setattr(loading, "load_codec", lambda *_: codec)

    def run(*arguments):
        code, out, err = perco(*arguments)
        return code, out.splitlines(), err.splitlines()

    return run


def photo(path, seed=0, size=(300, 200)):
    path.parent.mkdir(exist_ok=True)
    make_photo(*size, seed=seed).save(path)
    return path


def shell(command, **more):
    """Run a line of the shell, `perco` being this one: (exit code, stdout, stderr)."""
    line = f'perco() {{ "{sys.executable}" -m perco_lite.cli "$@"; }}; {command}'
    done = subprocess.run(["sh", "-c", line], capture_output=True, encoding="utf-8", **more)
    return done.returncode, done.stdout, done.stderr


# --- nothing lost ---


def test_compress_decompress_compress(perco, tmp_path):
    for name in ("a.webp", "b.tif", "c.png"):
        photo(tmp_path / name, ord(name[0]))
    assert perco("compress", tmp_path, "--rate", "0.0313")[0] == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert perco("decompress", tmp_path, "--steps", 1)[0] == 0
    code, out, (note,) = perco("compress", tmp_path, "--rate", "0.0313")
    assert code == 0 and len(out) == 3
    assert note.startswith("note: 3 skipped, painted by perco: a.png, b.png, c_decoded.png")
    assert before.items() <= {file.name: file.read_bytes() for file in tmp_path.iterdir()}.items()


def test_a_file_that_another_photo_made_stays(perco, tmp_path):
    mine, other = photo(tmp_path / "a.png"), photo(tmp_path / "elsewhere" / "a.png", 1)
    target = tmp_path / "a.perco"
    for options in ((), ("--rate", "0.0313"), ("--caption", "a ramp"), ("--format", 1)):
        assert perco("compress", mine, *options)[::2] == (0, []), "the same photo made it"
    strangers = [other, photo(tmp_path / "elsewhere" / "b.png", 0, (200, 300))]
    before = target.read_bytes()
    for stranger in strangers:
        code, out, (line,) = perco("compress", stranger, "-o", target)
        assert (code, out) == (2, []) and "--overwrite" in line and str(target) in line
    assert target.read_bytes() == before
    assert perco("compress", other, "-o", target, "--overwrite")[0] == 0
    target.write_bytes(b"notes of somebody")
    assert perco("compress", mine)[0] == 2 and target.read_bytes() == b"notes of somebody"


def test_a_png_and_a_jpg_of_one_name(perco, tmp_path):
    first, second = photo(tmp_path / "a.png"), photo(tmp_path / "a.jpg")
    assert perco("compress", first, "--rate", "0.1250")[0] == 0
    before = (tmp_path / "a.perco").read_bytes()
    code, _, (line,) = perco("compress", second)
    assert code == 2 and line.startswith(f"error: {second}: {tmp_path / 'a.perco'} is there")
    assert (tmp_path / "a.perco").read_bytes() == before
    assert perco("compress", first, "--caption", "again")[0] == 0, "its own file"


def test_names_that_are_one_name_elsewhere(perco, tmp_path):
    for number, name in enumerate(("IMG.png", "img.jpg", "e\u0301.png", "\xe9.jpg")):
        photo(tmp_path / name, number)
    code, out, err = perco("compress", tmp_path)
    assert code == 2 and len(out) == 2 and len(err) == 2
    assert all("would write" in line and "-o" in line for line in err)


# --- one bad item ---


def test_a_name_too_long_fails_alone(perco, codec, tmp_path):
    data = codec.compress(make_photo(20, 10))
    for stem in ("b", "x" * 249):
        (tmp_path / f"{stem}.perco").write_bytes(data)
    photo(tmp_path / f"{'x' * 249}.png")
    code, out, (line,) = perco("decompress", tmp_path, "--steps", 1)
    assert code == 2 and len(out) == 1 and line.endswith("File name too long")
    os.remove(tmp_path / f"{'x' * 249}.png")
    assert perco("decompress", tmp_path, "--steps", 1)[0] == 0, "the name while writing fits"


@pytest.mark.parametrize("where", ["is_dir", "lstat"])
def test_a_forbidden_folder(perco, tmp_path, monkeypatch, where):
    path, real = photo(tmp_path / "a.png"), getattr(type(tmp_path), where)

    def forbid(self, *args, **kwargs):
        if "secret" in str(self):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(tmp_path), where, forbid)
    code, out, (line,) = perco("compress", path, "-o", tmp_path / "secret" / "out")
    assert (code, out) == (2, []) and line.endswith("Permission denied") and "secret" in line


def test_one_unreadable_argument(perco, tmp_path, monkeypatch):
    good, bad = photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    monkeypatch.setattr(os, "access", lambda path, *_: os.fspath(path) != str(bad))
    real = type(bad).open

    def forbid(self, *args, **kwargs):
        if self == bad:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(type(bad), "open", forbid)
    code, out, err = perco("compress", bad, good)
    assert code == 2 and len(out) == 1 and err == [f"error: {bad}: Permission denied"]


def test_whatever_one_file_raises_the_others_run(perco, codec, tmp_path, monkeypatch):
    photo(tmp_path / "a.png", size=(20, 10)), photo(tmp_path / "b.png", size=(30, 10))
    real = codec.compress

    def fail(image, *args):
        return real(image, *args) if image.width == 30 else {}["a" * 9999]

    monkeypatch.setattr(codec, "compress", fail)
    code, out, (line,) = perco("compress", tmp_path)
    assert code == 2 and len(out) == 1 and "KeyError" in line and len(line) < 1500


def test_no_traceback_wherever_it_prints_and_works(codec, tmp_path):
    file = tmp_path / "a.perco"
    file.write_bytes(codec.compress(make_photo(20, 10)))
    for command in ("perco inspect a.perco", "perco inspect a.perco --json", "perco rates"):
        code, _, err = shell(f"{command} >/dev/full", cwd=tmp_path)
        assert code == 2 and err == (
            "error: cannot write to standard output (No space left on device)\n"
        )
    assert shell("perco inspect a.perco none 2>/dev/full", cwd=tmp_path)[0] == 2
    code, _, err = shell("mkdir d; cd d; rmdir ../d; perco inspect ../a.perco", cwd=tmp_path)
    assert (code, err) == (2, "error: the working folder is gone; change to one that is there\n")


# --- what is said ---


def test_what_a_folder_has_besides_is_named_once(perco, tmp_path):
    for name in ("a.png", "sub/b.png"):
        photo(tmp_path / name)
    for name in ("b.xyz", "c.psd", ".hidden", "captions.json"):
        (tmp_path / name).write_bytes(b"x")
    code, out, err = perco("compress", tmp_path, tmp_path)
    assert code == 0 and err == [f"note: {tmp_path}: 3 not read: b.xyz, c.psd, sub/"]
    code, out, err = perco("inspect", tmp_path)
    assert code == 0 and len(err) == 1


def test_words_that_nobody_hears_are_told_once(perco, codec, tmp_path):
    for name in ("a.png", "b.png"):
        photo(tmp_path / name)
    code, out, (line,) = perco("compress", tmp_path, "--caption", "red " * 60)
    assert code == 0 and line.startswith("note: the model hears the first 32 tokens")
    with pytest.warns(UserWarning, match="first 32 tokens"):
        codec.compress(make_photo(9, 9), "red " * 60)


def test_a_warning_is_one_note(perco, tmp_path):
    make_photo(20, 10).save(tmp_path / "a.png", icc_profile=b"no profile")
    code, out, (line,) = perco("compress", tmp_path)
    assert code == 0 and line.startswith(f"note: {tmp_path / 'a.png'}: its colour profile")


def test_nothing_from_a_name_or_a_file_steers_the_terminal(perco, codec, tmp_path):
    evil = "a\x1b[2J\x9b31m\u202e\nb"
    photo(tmp_path / f"{evil}.png")
    caption = "a dog on top of \x9bJ a \u202ebench"
    printed = []
    for command in (
        ("compress", tmp_path, "--caption", caption),
        ("inspect", tmp_path),
        ("decompress", tmp_path, "--steps", 1),
        ("compress", tmp_path / f"{evil}.jpg"),
        ("compress", tmp_path, f"--{evil}"),
        ("rates", "--weights", evil),
    ):
        _, out, err = perco(*command)
        printed += [*out, *err]
    assert all(line.isprintable() for line in printed), "splitlines splits at U+0085, too"
    assert any("\\x1b[2J\\x9b31m\\u202e\\nb" in line for line in printed)


@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1), (5000, 3000)])
def test_a_map_fits_on_a_screen(perco, codec, tmp_path, size):
    (tmp_path / "a.perco").write_bytes(codec.compress(Image.new("RGB", size), "", "0.1250", 0))
    code, out, _ = perco("inspect", tmp_path)
    assert code == 0 and len(out) <= 52 and max(map(len, out)) <= 120


def test_what_is_painted_has_a_limit_and_a_price(perco, codec, tmp_path):
    data = codec.compress(make_photo(60, 50))
    file = tmp_path / "a.perco"
    file.write_bytes(data)
    code, out, (line,) = perco("decompress", file, "--steps", 1, "--max-pixels", 2999)
    assert (code, out) == (2, []) and "60×50" in line and "--max-pixels 3000" in line
    assert "GB" in line and "seconds" in line
    assert perco("decompress", file, "--steps", 1, "--max-pixels", 3000)[0] == 0
    with pytest.raises(ValueError, match="60×50 .*max_pixels"):
        codec.decompress(data, 1, max_pixels=2999)
    assert codec.decompress(data, 1, max_pixels=None).size == (60, 50)
    large = unpack(codec.compress(Image.new("RGB", (65_535, 245)), "", "0.0019", 0))
    assert large.width * large.height > MAX_PAINTED
    with pytest.raises(ValueError, match="over the limit of 16.0"):
        codec.decompress(large, 1)


def test_rates_of_weights_on_the_hub(perco, tmp_path, tiny_weights, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda name, file: str(tiny_weights / file)
    )
    code, out, err = perco("rates", "--json", "--weights", "owner/name")
    served = [row["name"] for row in json.loads("\n".join(out)) if row["served"]]
    assert code == 0 and served == ["0.0019", "0.0098", "0.0313", "0.1250"]
    monkeypatch.undo()
    code, out, (line,) = perco("rates", "--weights", "owner/name")
    assert code == 2 and line.startswith("error: no codec at owner/name on the hub")


def test_our_mark_is_read_whatever_a_file_is_called(perco, tmp_path):
    save_png(make_photo(20, 10), tmp_path / "A.PNG")
    code, out, (line,) = perco("compress", tmp_path / "A.PNG")
    assert (code, out) == (0, []) and "A.PNG" in line
