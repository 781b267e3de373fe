"""The image's recipe: what it copies is there, its commands are, and `decode` decodes.

The image itself is built where Docker runs and may fetch things: PERCO_LITE_DOCKER=1 asks for it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import make_photo, pixels

ROOT = Path(__file__).parents[2]
RECIPE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DECODE = ROOT / "docker" / "decode"


@pytest.fixture
def path(tmp_path):
    """PATH with a `perco` that is this package's."""
    program = tmp_path / "bin" / "perco"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m perco_lite.cli "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def run(*command, **options):
    command = [str(part) for part in command]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_what_is_copied_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1:-1] for line in RECIPE.splitlines() if line.startswith("COPY ")]
    sources = [source for line in copied for source in line]
    assert {"perco_lite", "pyproject.toml", "docker/decode"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f"{source} is not sent to the builder"
    assert "data/checkpoints" in ignored, "a hundred megabytes that nothing loads"


def test_it_is_the_torch_that_ci_tests_and_runs_as_nobody_special():
    version = re.search(r'TORCH="(torch==[^"]+)"', RECIPE)[1]
    assert f"TORCH:-{version}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\nUSER decoder\n" in RECIPE
    assert '\nENTRYPOINT ["decode"]\nCMD ["/in", "/out"]\n' in RECIPE
    assert os.access(DECODE, os.X_OK) and DECODE.read_text().startswith("#!/bin/sh\n")


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_decode_makes_a_picture_of_each_file(path, tiny_codec, tiny_weights, tmp_path):
    (tmp_path / "in").mkdir()
    expected = {}
    for seed in range(2):
        data = tiny_codec.compress(make_photo(seed=seed), "two dogs", "0.0313")
        (tmp_path / "in" / f"{seed}.perco").write_bytes(data)
        expected[f"{seed}.png"] = tiny_codec.decompress(data, 2)
    out = tmp_path / "out"
    command = DECODE, tmp_path / "in", out, "--weights", tiny_weights, "--steps", 2
    done = run(*command, env=path)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in out.iterdir()} == {"0.png", "1.png", "decoder.txt"}
    for name, picture in expected.items():
        assert abs(pixels(Image.open(out / name)) - pixels(picture)).max() <= 1
    told = (out / "decoder.txt").read_text()
    assert re.search(r"weights digest\s+[0-9a-f]{16}", told) and "torch" in told


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_decode_says_how_it_is_used():
    done = run(DECODE, "only-one")
    assert done.returncode == 2 and "usage: decode IN OUT" in done.stderr


def test_the_image_decodes_without_a_network(tmp_path):
    if os.environ.get("PERCO_LITE_DOCKER") != "1":
        pytest.skip("set PERCO_LITE_DOCKER=1 to build the image: minutes, and a network")
    if shutil.which("docker") is None or run("docker", "version").returncode:
        pytest.skip("no Docker here, or its daemon does not answer")
    done = run("docker", "build", "-t", "perco_lite:test", ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    from perco_lite.codec import PercoCodec

    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir(mode=0o777)
    (tmp_path / "out").chmod(0o777)
    data = PercoCodec.from_pretrained().compress(make_photo(128, 96), "", "0.0313")
    (tmp_path / "in" / "one.perco").write_bytes(data)
    folders = ["-v", f"{tmp_path / 'in'}:/in:ro", "-v", f"{tmp_path / 'out'}:/out"]
    done = run("docker", "run", "--rm", "--network", "none", *folders, "perco_lite:test")
    assert done.returncode == 0, done.stderr[-3000:]
    assert Image.open(tmp_path / "out" / "one.png").size == (128, 96)
