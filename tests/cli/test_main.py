"""The `perco` command as its users run it: what it writes, what it prints, what it leaves alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo
from perco_lite import data, loading
from perco_lite.codec import DEFAULT_GUIDANCE
from perco_lite.coding.bitstream import unpack
from perco_lite.loading import weights_digest
from perco_lite.rates import RATES

CAPTION = "a grey cat 🐈‍⬛ on a roof\nin “Zürich”"


def save_photo(path: Path, width=70, height=50) -> Path:
    make_photo(width, height).save(path)
    return path


@pytest.fixture(scope="module")
def codec(tiny_weights):
    return loading.load_codec(str(tiny_weights), "cpu")


@pytest.fixture
def perco(perco, codec, monkeypatch):
    """Run the command in this process, its weights already loaded: (exit code, stdout, stderr)."""
    monkeypatch.setattr(loading, "load_codec", lambda weights=None, device=None, dtype=None: codec)
    return perco


def fresh(*arguments) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "perco_lite.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, encoding="utf-8")


def pixels(path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# --- in a fresh process ---


def test_a_file_alone_is_enough_for_another_process(perco, tiny_weights, tmp_path, codec):
    photo = save_photo(tmp_path / "a.jpg", 100, 70)
    code, out, err = perco("compress", photo, "--caption", CAPTION, "--rate", "0.0313")
    (tmp_path / "elsewhere").mkdir()
    file = (tmp_path / "a.perco").rename(tmp_path / "elsewhere" / "b.perco")
    assert (code, out.count("\n")) == (0, 1)
    assert err.startswith("note: the model hears the first 32 tokens") and err.count("\n") == 1
    assert out.startswith(f"{tmp_path / 'a.perco'}: {file.stat().st_size} bytes (header 8, ")
    assert unpack(file.read_bytes()).caption == CAPTION
    options = ("--steps", 2, "--seed", 3, "--weights", tiny_weights, "--device", "cpu")
    done = fresh("decompress", file, *options)
    assert (done.returncode, done.stderr) == (0, ""), "no warnings, no progress bars"
    assert done.stdout.startswith(f"{file.with_suffix('.png')}: 100×70, ")
    here = codec.decompress(file.read_bytes(), 2, seed=3)
    assert here.size == (100, 70)
    assert np.abs(pixels(file.with_suffix(".png")) - np.asarray(here)).max() <= 1
    assert sorted(f.name for f in file.parent.iterdir()) == ["b.perco", "b.png"]


@pytest.mark.parametrize("arguments", [["--help"], ["compress", "--help"], ["inspect", "FILE"]])
def test_what_needs_no_torch_does_not_wait_for_it(codec, tmp_path, arguments):
    file = tmp_path / "a.perco"
    file.write_bytes(codec.compress(Image.new("RGB", (9, 9)), "dot"))
    arguments = [str(file) if a == "FILE" else a for a in arguments]
    code = (
        "import sys; from perco_lite.cli.main import app\n"
        f"try: app({arguments!r})\n"
        "except SystemExit as end: code = end.code\n"
        "print(sorted({'torch', 'diffusers', 'matplotlib'} & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.splitlines()[-1] == "[] 0", done.stderr


def test_help_loads_only_what_it_prints():
    """It is as fast as in 0.1.0: each of these costs some milliseconds more."""
    code = (
        "import sys; from perco_lite.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'PIL', 'sqlite3', 'concurrent.futures'}\n"
        "slow |= {'perco_lite.cli.train', 'perco_lite.training.settings'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert "  train " in done.stdout and "  compress " in done.stdout


# --- compress ---


def test_a_folder_with_captions(perco, tmp_path):
    save_photo(tmp_path / "a.png")
    save_photo(tmp_path / "b.webp", 9, 200)
    (tmp_path / "captions.json").write_text('{"a.png": ["a ramp", "second"]}', encoding="utf-8")
    out = tmp_path / "out"
    code, printed, err = perco(
        "compress", tmp_path, "--captions", tmp_path / "captions.json", "-o", out
    )
    assert code == 0 and len(printed.splitlines()) == 2
    assert err.startswith("note: ") and "no caption for b.webp" in err
    files = {path.name: unpack(path.read_bytes()) for path in out.iterdir()}
    assert sorted(files) == ["a.perco", "b.perco"], "and no .part"
    assert files["a.perco"].caption == "a ramp" and files["b.perco"].caption == ""
    assert (files["b.perco"].width, files["b.perco"].height) == (9, 200)


def test_the_format_is_chosen(perco, tmp_path):
    photo, said = save_photo(tmp_path / "a.png", 100, 70), {}
    for options in ((), ("--format", 1), ("--format", 2)):
        code, out, err = perco("compress", photo, "--caption", "A red barn.", *options)
        data = (tmp_path / "a.perco").read_bytes()
        assert (code, err) == (0, "") and f": {len(data)} bytes (header 8, " in out
        said[options] = data
    first, second = said[("--format", 1)], said[("--format", 2)]
    assert said[()] == second and (first[0] & 0b111, second[0] & 0b111) == (1, 2)
    assert len(second) < len(first) and unpack(second).caption == "A red barn."
    assert (unpack(second).indices == unpack(first).indices).all()
    code, out, err = perco("compress", photo, "--format", 3)
    assert code == 2 and "Invalid value for '--format'" in err


@pytest.mark.parametrize("caption", ["", "日本語", "\udcff", "e\u0301", "-starts with a dash"])
def test_any_caption_is_kept_as_it_is(perco, tmp_path, caption):
    photo = save_photo(tmp_path / "a.png")
    assert perco("compress", photo, f"--caption={caption}")[0] == 0
    assert unpack((tmp_path / "a.perco").read_bytes()).caption == caption
    code, out, err = perco("inspect", tmp_path / "a.perco", "--json")
    assert (code, err) == (0, "") and json.loads(out)[0]["caption"] == caption
    code, out, err = perco("inspect", tmp_path / "a.perco")
    assert (code, err) == (0, "") and f"caption: {caption!r}" in out


def test_a_terminal_that_knows_few_letters(codec, tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.perco")  # a name that is no UTF-8
    file.write_bytes(codec.compress(Image.new("RGB", (9, 9)), CAPTION))
    command = [sys.executable, "-m", "perco_lite.cli", "inspect", str(file)]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, encoding="latin-1", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "9×9 pixels" in done.stdout and "caf\\udce9" in done.stdout and "\\U0001f408" in done.stdout
    )


def test_bytes_printed_are_bytes_on_disk(perco, tmp_path):
    photo = save_photo(tmp_path / "a.png", 64, 64)
    _, out, _ = perco("compress", photo, "--caption", "a cat", "--rate", "0.1250")
    size = (tmp_path / "a.perco").stat().st_size
    assert f"{size} bytes (header 8, caption " in out and f", {8 * size / 64**2:.4f} bpp" in out
    assert f" at rate 0.1250, 1/{3 * 64**2 / size:,.0f} of its pixels, caption: 'a cat'" in out
    assert perco("compress", photo, "--caption", "")[1].endswith(", no caption\n")


def test_json_says_what_was_made(perco, tmp_path):
    photo, target = save_photo(tmp_path / "a.png", 64, 48), tmp_path / "b.perco"
    code, out, err = perco("compress", photo, "--caption", "a cat", "--json", "-o", target)
    (row,) = json.loads(out)
    assert (code, err) == (0, "")
    size = target.stat().st_size
    assert row | {"file": str(photo), "output": str(target), "bytes": size} == row
    assert row | {"rate": "0.0019", "width": 64, "height": 48, "caption": "a cat"} == row
    assert sum(row["ledger"].values()) == size
    assert row["ratio"] == pytest.approx(3 * 64 * 48 / size)
    assert row["bits_per_pixel"] * row["ratio"] == pytest.approx(24)
    code, out, err = perco("compress", tmp_path / "none.png", "--json")
    assert code == 2 and json.loads(out) == [] and "none.png" in err


# --- shell completion ---


def test_the_shell_completes_commands_and_options(tmp_path):
    def complete(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        environment = {**os.environ, **words, "_PERCO_COMPLETE": "complete_bash"}
        code = "from perco_lite.cli.main import app; app(prog_name='perco')"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert {"compress", "compare"} <= set(complete("perco comp"))
    assert "--seed" in complete("perco decompress --se")
    assert "codec" in complete("perco train co"), "commands whose module is imported late, too"


# --- decompress ---


def test_several_seeds_several_pictures(perco, codec, tmp_path):
    files = [tmp_path / "a.perco", tmp_path / "b.perco"]
    for file in files:
        file.write_bytes(codec.compress(Image.new("RGB", (40, 30)), file.name))
    options = ("--steps", 2, "--seed", 3, "--seed", 0, "--seed", 3)
    code, out, err = perco("decompress", tmp_path, *options)
    assert (code, err, len(out.splitlines())) == (0, "", 4)
    made = sorted(path.name for path in tmp_path.glob("*.png"))
    assert made == ["a_seed0.png", "a_seed3.png", "b_seed0.png", "b_seed3.png"]
    zero, three = pixels(tmp_path / "a_seed0.png"), pixels(tmp_path / "a_seed3.png")
    assert np.abs(zero - three).mean() > 1
    assert perco("decompress", files[0], "--steps", 2, "--seed", 3)[0] == 0
    assert np.abs(pixels(tmp_path / "a.png") - three).max() <= 1, "alone as in the batch"


def test_json_rows_name_what_was_made(perco, codec, tmp_path):
    for name, width in (("a", 40), ("b", 200), ("c", 40)):
        file = tmp_path / f"{name}.perco"
        file.write_bytes(codec.compress(Image.new("RGB", (width, 30)), name))
    out_folder = tmp_path / "out"
    code, out, err = perco("decompress", tmp_path, "--steps", 1, "--json", "-o", out_folder)
    rows = sorted(json.loads(out), key=lambda row: row["file"])
    assert (code, err) == (0, "")
    assert [row["file"] for row in rows] == [str(tmp_path / f"{n}.perco") for n in "abc"]
    assert [row["output"] for row in rows] == [str(out_folder / f"{n}.png") for n in "abc"]
    assert [row["width"] for row in rows] == [40, 200, 40] and rows[0]["height"] == 30
    assert all(row["seconds"] >= 0 and row["seed"] == 0 for row in rows)
    assert len(out.splitlines()) == 3, "a line each, for whoever reads along"


def test_the_original_is_not_painted_over(perco, tmp_path):
    photo = save_photo(tmp_path / "a.png")
    before = photo.read_bytes()
    assert perco("compress", photo)[0] == 0
    for _ in range(2):  # our own picture may be made again
        code, out, err = perco("decompress", tmp_path / "a.perco", "--steps", 1)
        assert (code, err) == (0, "") and "a_decoded.png" in out
    assert photo.read_bytes() == before
    assert Image.open(tmp_path / "a_decoded.png").info["Software"] == "perco_lite"


def test_sampler_steps_and_guidance_reach_the_decoder(perco, codec, tmp_path):
    file = tmp_path / "a.perco"
    file.write_bytes(codec.compress(Image.effect_noise((64, 64), 60), "a cat", "0.0313"))
    variants = {
        "plain": (),
        "dpm": ("--sampler", "dpm++"),
        "steps": ("--steps", 3),
        "guidance": ("--guidance", 8),
        "default": ("--guidance", DEFAULT_GUIDANCE, "--seed", 0, "--sampler", "ddim"),
    }
    pictures = {}
    for name, options in variants.items():
        target = tmp_path / f"{name}.png"
        assert perco("decompress", file, "--steps", 2, *options, "-o", target)[0] == 0
        pictures[name] = pixels(target)
    assert (pictures["plain"] == pictures["default"]).all()
    for name in ("dpm", "steps", "guidance"):
        assert (pictures[name] != pictures["plain"]).any(), name


# --- inspect, rates, info ---


def test_inspect_accounts_for_every_byte(perco, codec, tmp_path):
    file = tmp_path / "a.perco"
    file.write_bytes(codec.compress(Image.effect_noise((300, 200), 60), "two dogs", "0.0098"))
    code, out, err = perco("inspect", tmp_path, "--json")
    (row,) = json.loads(out)
    assert (code, err) == (0, "")
    assert row["file"] == str(file) and row["bytes"] == file.stat().st_size
    assert sum(row["ledger"].values()) == row["bytes"]
    assert sum(row["bits_per_pixel_by_part"].values()) == pytest.approx(row["bits_per_pixel"])
    assert row["bits_per_pixel"] == pytest.approx(8 * row["bytes"] / 60000)
    parsed = unpack(file.read_bytes())
    assert row["indices"] == parsed.indices.tolist() and row["grid"] == [7, 10]
    assert row["model_id"] == f"{codec.model_id:#06x}" and row["caption"] == "two dogs"
    code, out, err = perco("inspect", file)
    assert "300×200 pixels at rate 0.0098" in out and f"{row['bytes']} bytes = " in out
    grid = out.splitlines()[-7:]
    assert all(len(line) == 4 + 10 for line in grid), "one character an index"


def test_rates_lists_all_and_marks_those_served(perco, tiny_weights):
    code, out, err = perco("rates", "--json", "--weights", tiny_weights)
    table = json.loads(out)
    assert (code, err) == (0, "") and [row["name"] for row in table] == [r.name for r in RATES]
    served = [row["name"] for row in table if row["served"]]
    assert served == ["0.0019", "0.0098", "0.0313", "0.1250"]
    assert table[0]["kodak_grid"] == [8, 12] and table[0]["kodak_index_bytes"] == 96
    code, out, err = perco("rates", "--weights", tiny_weights)
    assert all(rate.name in out for rate in RATES) and out.count(" yes") == 4


def test_info_names_the_weights(perco, tiny_weights, codec):
    code, out, err = perco("info", "--json", "--weights", tiny_weights)
    facts = json.loads(out)
    assert (code, err) == (0, "") and facts["weights"] == str(tiny_weights)
    assert facts["model id"] == f"{codec.model_id:#06x}" and len(facts["sha256"]) == 64
    assert facts["weights digest"] == weights_digest(codec)
    assert int(facts["parameters"].replace(",", "")) > 100_000
    assert {"python", "torch", "diffusers", "device", "machine", "size"} <= set(facts)
    assert f"sha256         {facts['sha256']}" in perco("info", "--weights", tiny_weights)[1]


def test_info_without_weights_says_so(perco, monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "BUNDLED", tmp_path)
    code, out, err = perco("info")
    assert (code, err) == (0, "") and f"weights        none in {tmp_path}" in out


def test_photos_of_every_suffix_are_found_in_a_folder(perco, tmp_path):
    for number, suffix in enumerate(sorted(data.PHOTO_SUFFIXES)):
        save_photo(tmp_path / f"p{number}{suffix}", 8, 8)
    code, out, err = perco("compress", tmp_path)
    assert (code, err) == (0, "") and len(out.splitlines()) == len(data.PHOTO_SUFFIXES)
