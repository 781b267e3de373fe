"""Fixtures shared by the tests, and what notebooks need: short runs, and no silent passes."""

import contextlib
import csv
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

# Tests must pass with no network and must not wait for one.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Under xdist (`make test`) a thread each, kernels and child processes too: threads that wait for
# work in a loop, as OpenMP's do, slow each other down tenfold where cores are few.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402

SENTENCES = [
    "a red barn beside a pond",
    "two dogs run across a green field",
    "a plate of food on a wooden table",
    "a man riding a wave on a surfboard",
]

TINY_AUTOENCODER = {
    "encoder_widths": (16, 16),
    "encoder_blocks": (1, 1),
    "decoder_widths": (16, 16),
    "decoder_blocks": (1, 1),
}


# What notebooks are run with here in place of what their cell "Settings" says: readers see none of
# it. "short" runs take seconds; "knobs" asks whether all holds for another photo, rate and seed.
SETTINGS = Path(__file__).parent / "tests" / "course" / "settings.json"


def pytest_addoption(parser):
    parser.addoption(
        "--settings",
        choices=("short", "knobs", "full"),
        default="short",
        help="what notebooks are run with: tests/course/settings.json; full: as they are",
    )


def with_settings(source: str, settings: dict[str, str]) -> str:
    """A cell of settings, and below it the values that take their place."""
    return "\n".join([source, *(f"{name} = {value}" for name, value in settings.items())])


def pytest_itemcollected(item):
    """Put the run's settings into the cell of a notebook that is tagged ``parameters``."""
    cell, run = getattr(item, "cell", None), item.config.getoption("--settings")
    if cell is None or run == "full":
        return
    if run == "knobs":
        item.options["check"] = "raises-exception" in cell.metadata.get("tags", [])
    if "parameters" in cell.metadata.get("tags", []):
        own = json.loads(SETTINGS.read_text(encoding="utf-8")).get(item.path.stem, {})
        cell.source = with_settings(cell.source, own.get(run, {}))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail the notebook cells that nbval would let pass.

    A mistyped magic prints ``UsageError`` and raises nothing; and a cell tagged
    ``raises-exception`` passes when nothing is raised any more.
    """
    result = yield
    outputs = getattr(item, "test_outputs", None)
    if outputs is None:  # an ordinary test, or a cell that was skipped
        return result
    stderr = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stderr")
    if "UsageError" in stderr:
        pytest.fail(f"IPython reported a usage error, which raises nothing:\n{stderr}")
    tagged = "raises-exception" in item.cell.metadata.get("tags", [])
    if tagged and not any(o.output_type == "error" for o in outputs):
        pytest.fail("the cell is tagged raises-exception, but nothing was raised")
    return result


TWO_PROCESSES = """
import os, sys
{imports}

rank = 0 if os.fork() else 1  # after the imports, which cost the most
os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
{code}
if rank == 0:
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def run_two_processes(imports: str, code: str, *arguments: object) -> None:
    """Run code, which knows its `rank`, as two processes of one accelerate run; both must pass.

    In a fresh interpreter, since a process that has computed with OpenMP cannot be forked: its
    children wait for ever for threads that only the parent has.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    root = Path(__file__).parent
    environment = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    environment |= {"PYTHONPATH": str(root)}
    program = TWO_PROCESSES.format(imports=imports, code=code)
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        assert process.wait(timeout=300) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # both, where one waits for the other


def read_table(path, seconds: bool = True) -> list[dict[str, str]]:
    """Rows of a CSV; without the columns that no two runs share, if not ``seconds``."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [{k: v for k, v in row.items() if seconds or "seconds" not in k} for row in rows]


def make_photo(width: int = 72, height: int = 48, seed: int = 0, cells=(5, 7)):
    """Smooth blobs of colour, others with every seed."""
    import numpy as np
    from PIL import Image

    small = np.random.default_rng(seed).integers(0, 256, (*cells, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image):
    """Whole numbers (H,W,3) that can be subtracted, of a PIL image or an array."""
    import numpy as np

    return np.asarray(image).astype(int)


def png_header(width, height):
    """The start of a PNG that claims a size and holds no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = b""
    for name, content in ((b"IHDR", header), (b"IDAT", b"")):
        checksum = zlib.crc32(name + content)
        chunks += struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
    return b"\x89PNG\r\n\x1a\n" + chunks


def build_tiny_codec():
    """A codec of 0.1 M random parameters that serves the four lite rates."""
    import torch

    from perco_lite.autoencoder import Autoencoder
    from perco_lite.captions import train_tokenizer
    from perco_lite.loading import build_codec

    torch.manual_seed(0)
    autoencoder = Autoencoder(encoder_widths=(16, 16), decoder_widths=(16, 16)).eval()
    autoencoder.latent_std.fill_(0.2)  # so that random latents are not all nearly zero
    codec = build_codec(
        autoencoder,
        train_tokenizer(SENTENCES, vocabulary=300),
        conditioner={"width": 8, "features": 16, "decoder_width": 8, "extra_channels": 4},
        unet={"widths": (16, 32), "norm_groups": 8, "heads": 2},
        text_encoder={"width": 32, "layers": 1, "heads": 2},
    )
    codec.set_progress_bar_config(disable=True)
    return codec


def build_telling_codec():
    """The same with codebooks drawn from blobs of colour, so that photos get unlike indices."""
    import torch

    codec = build_tiny_codec()
    blobs = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = torch.nn.functional.interpolate(blobs, scale_factor=16, mode="bilinear")
    codec.conditioner.train()
    with torch.no_grad():
        latents = codec.autoencoder.encode(images)
        for rate in codec.rates:
            codec.conditioner(latents, rate)
    codec.conditioner.eval()
    return codec


@pytest.fixture
def captioner():
    """An untrained captioner of six words."""
    import torch

    from perco_lite.captioning.captioner import Captioner
    from perco_lite.captioning.decoder import CaptionDecoder
    from perco_lite.captioning.photo_features import PhotoFeatures

    torch.manual_seed(0)
    eyes, words = PhotoFeatures(), [" a", " dog", " runs", " on", " grass", "'s"]
    for convolution in (m for m in eyes.modules() if isinstance(m, torch.nn.Conv2d)):
        torch.nn.init.kaiming_normal_(convolution.weight)  # else a photo fades on its way
    decoder = CaptionDecoder(len(words) + 2, width=16, heads=2, inner=24, longest=8)
    decoder.bias.data[0] = -3  # it says something before it ends
    return Captioner(eyes, decoder, words)


@pytest.fixture
def perco(capsys, monkeypatch):
    """Run the command in this process: (exit code, stdout, stderr); it writes no caption itself."""
    from perco_lite.cli import main
    from perco_lite.cli.main import app

    monkeypatch.setattr(main, "caption_writer", lambda: lambda photo: "")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            app([str(argument) for argument in arguments])
        return caught.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def tiny_codec():
    """The tiny codec; tests must not train or change it."""
    return build_telling_codec()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """Folder of the tiny codec's weights in diffusers' layout."""
    folder = tmp_path_factory.mktemp("weights")
    build_telling_codec().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_stable_diffusion(tmp_path_factory):
    """Folder of a tiny random Stable Diffusion with v-prediction; tests must not change it."""
    from perco_lite.full_scale import tiny_checkpoint

    return tiny_checkpoint.tiny_stable_diffusion(tmp_path_factory.mktemp("sd") / "v")


@pytest.fixture(scope="session")
def tiny_stable_diffusion_epsilon(tmp_path_factory):
    """The same, predicting noise."""
    from perco_lite.full_scale import tiny_checkpoint

    return tiny_checkpoint.tiny_stable_diffusion(tmp_path_factory.mktemp("sd") / "e", "epsilon")


@pytest.fixture(scope="session")
def browser():
    """Chromium, one for all tests of a process: Playwright allows no second."""
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium on this machine; Debian: apt install chromium")
    # without these it looks up its maker's hosts at every start
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with driver.sync_playwright() as playwright:
        flags += ["--use-fake-device-for-media-stream"]
        chromium = playwright.chromium.launch(executable_path=program, args=flags)
        yield chromium
        chromium.close()
