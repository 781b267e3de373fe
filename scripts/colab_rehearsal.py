"""What a Colab user does, from end to end, in a clean environment; minutes, so only when asked for.

PERCO_LITE_COLAB=1 python -m pytest scripts/colab_rehearsal.py -x -s

A stand-in for the hub on this machine serves tiny random models under the real ids, broken off once
on the way; the last commit is installed by pip as the notebook's first cell does. torch and the
other libraries are those of the environment that runs the test, by a .pth file. The tests are one
story: each goes on where the last one stopped.
"""

import csv
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from conftest import SETTINGS, with_settings
from perco_lite.full_scale.captioning import CAPTIONER
from perco_lite.full_scale.pretrained import MIRRORS, STABLE_DIFFUSION
from perco_lite.full_scale.tiny_checkpoint import tiny_blip, tiny_stable_diffusion

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "16_stable_diffusion.ipynb"
MIRROR = MIRRORS[STABLE_DIFFUSION][0]
UNET = "diffusion_pytorch_model.safetensors"
SHRUNK = {"steps": 4, "batch-size": 4, "crop": 8, "lora-rank": 2, "mixed-precision": "no"}

pytestmark = pytest.mark.skipif(
    not os.environ.get("PERCO_LITE_COLAB"), reason="takes minutes: set PERCO_LITE_COLAB=1"
)


class Hub(http.server.ThreadingHTTPServer):
    """Serves folders as owner/name, as far as the hub's client asks."""

    def __init__(self, folders: dict[str, Path]):
        super().__init__(("127.0.0.1", 0), Answer)
        self.folders, self.broken, self.asked = folders, None, []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0].strip("/")
        self.server.asked.append(path)
        if path.startswith("api/models/"):
            name = "/".join(path.split("/")[2:4])
            folder = self.server.folders.get(name)
            if folder is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            paths = {file.relative_to(folder).as_posix(): file.stat().st_size for file in files}
            siblings = [{"rfilename": file} for file in paths]
            about = {"id": name, "sha": "0" * 40, "siblings": siblings}
            if "/tree/" in path:
                kind = {"type": "file", "oid": "0" * 40}
                about = [{**kind, "path": file, "size": size} for file, size in paths.items()]
            return self._send(200, json.dumps(about).encode(), {})
        owner, name, _, _, *rest = path.split("/")
        file = self.server.folders[f"{owner}/{name}"].joinpath(*rest)
        data = file.read_bytes()
        tag = hashlib.sha256(data).hexdigest()
        self._send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": "0" * 40}, file.name)

    do_HEAD = do_GET

    def _send(self, code: int, body: bytes, headers: dict, name: str = "") -> None:
        self.send_response(code)
        for key, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            cut = name and name == self.server.broken
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = True


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("colab")


@pytest.fixture(scope="module")
def hub(place):
    models = {MIRROR: tiny_stable_diffusion(place / "sd"), CAPTIONER: tiny_blip(place / "blip")}
    return Hub(models)


@pytest.fixture(scope="module")
def environment(place, hub):
    """Variables of a fresh shell that finds the stand-in for the hub."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PERCO", "HF_"))}
    kept["PATH"] = f"{place / 'venv' / 'bin'}{os.pathsep}{kept['PATH']}"
    kept |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(place / "cache")}
    return kept | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture(scope="module")
def shell(place, environment):
    def run(*words, code=0):
        result = subprocess.run(
            [str(word) for word in words],
            cwd=place,
            env=environment,
            capture_output=True,
            encoding="utf-8",
        )
        print(f"$ {' '.join(map(str, words))}\n{result.stdout[-600:]}{result.stderr[-600:]}")
        assert result.returncode == code, result.stderr[-3000:]
        return result

    return run


def training(place) -> list[str]:
    options = {"config": "t4", "data": place / "photos", "output": place / "run", **SHRUNK}
    return ["perco", "train", "codec", *(str(w) for k, v in options.items() for w in (f"--{k}", v))]


def rows(place) -> list[dict]:
    log = place / "run" / "log.csv"
    return list(csv.DictReader(log.open(newline=""))) if log.exists() else []


def test_the_install_cell_installs_the_command(place, shell):
    venv.create(place / "venv", with_pip=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = place / "venv" / "lib" / version / "site-packages"
    (packages / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    (line,) = [line for c in cells for line in c.source.splitlines() if "%pip" in line]
    words = re.sub(r"git\+https://[^\"]+", f"git+file://localhost{ROOT}", line).replace('"', "")
    start, requirement = words.split(" -q ")
    assert start.strip() == "%pip install"
    shell("python", "-m", "pip", "install", "-q", requirement)
    where = shell("python", "-c", "import perco_lite; print(perco_lite.__file__)").stdout
    assert str(packages) in where, "not the checkout, nor what the .pth brings"


def test_captions_come_from_the_hub(place, shell):
    (place / "photos").mkdir()
    for number in range(6):
        ramp = Image.linear_gradient("L").rotate(60 * number).resize((120 + number, 90))
        ramp.convert("RGB").save(place / "photos" / f"{number}.png")
    shell("perco", "caption", "photos", "--batch-size", 4)
    captions = json.loads((place / "photos" / "captions.json").read_text())
    assert len(captions) == 6 and all(captions.values())


def test_an_interrupted_download_is_one_line(place, hub, shell):
    hub.broken = UNET
    error = shell(*training(place), code=2).stderr.strip().splitlines()[-1]
    hub.broken = None
    assert error.startswith(f"error: found no model; tried {STABLE_DIFFUSION} (not on the hub")
    assert f"{MIRROR} (" in error and "run it again" in error


def test_training_is_killed_and_goes_on(place, environment, shell):
    command = [*training(place), "--checkpoint-minutes", "0"]
    process = subprocess.Popen(command, cwd=place, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 400
    while not (place / "run" / "preview.png").exists() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(rows(place))
    assert 1 <= done < SHRUNK["steps"], "killed in the middle"
    result = shell(*training(place))
    assert json.loads(result.stdout[result.stdout.index("{\n") :])["steps"] == SHRUNK["steps"]
    assert [row["step"] for row in rows(place)] == list("1234")


def test_what_was_trained_compresses_and_paints(place, shell):
    options = ("--weights", place / "run" / "weights")
    shell("perco", "compress", "photos/3.png", "--captions", "photos/captions.json",
          "--rate", "0.0313", *options)  # fmt: skip
    for dtype in ("float32", "bfloat16"):
        target = place / f"{dtype}.png"
        shell("perco", "decompress", "photos/3.perco", "-o", target, "--steps", 2, *options,
              "--dtype", dtype)  # fmt: skip
        assert Image.open(target).size == (123, 90)
    caption = json.loads((place / "photos" / "captions.json").read_text())["3.png"]
    about = json.loads(shell("perco", "inspect", "photos/3.perco", "--json").stdout)[0]
    assert about["caption"] == caption
    shell("perco", "train", "pack", "run/weights", "half")
    noise = shell("perco", "decompress", "photos/3.perco", "-o", "half.png", "--weights", "half")
    assert not noise.stderr


def test_the_notebook_takes_the_path_of_the_real_one(place, environment, shell):
    """As on Colab, but for the GPU and the length of what it trains and paints."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (settings,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    short = json.loads(SETTINGS.read_text(encoding="utf-8"))[NOTEBOOK.stem]["short"]
    settings.source = with_settings(settings.source, short)
    swaps = {
        "BASE = None ": f'BASE = "{MIRROR}" ',
        "if not REAL:\n    options": "if True:\n    options",
        "STEPS = 20 if REAL": "STEPS = 2 if REAL",
    }
    for old, new in swaps.items():
        (cell,) = [c for c in notebook.cells if old in c.source]
        cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, place / "16.ipynb")
    shell("python", "-m", "nbconvert", "--to", "notebook", "--execute", "--inplace", "16.ipynb")
    text = json.dumps(nbformat.read(place / "16.ipynb", as_version=4))
    assert f"This run: {MIRROR}, on cpu" in text and "BLIP:" in text
    shutil.rmtree(place / "venv")
