"""What the tests of the page share: a painter of tiny weights, and a server in its own process."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def painter(tiny_codec):
    from perco_lite.app.painting import Painter

    return Painter(tiny_codec)


@pytest.fixture(scope="session")
def answers(painter):
    from perco_lite.app.answers import Answers

    return Answers(painter)


class Server:
    """A page in a process of its own."""

    def __init__(self, folder: Path, *command: object, **environment: str):
        self.temporary, self.log = folder / "tmp", folder / "log"
        self.temporary.mkdir()
        places = {"TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=os.environ | places | environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        # none, where it ends before it serves
        lines = (re.findall(r"http://\S+", line) for line in self.process.stdout)
        self.address = next((found[0] for found in lines if found), "")

    def stop(self) -> int:
        """End it as a system does; its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def said(self) -> str:
        """What it wrote on stderr, but for the note that nobody writes captions."""
        lines = self.log.read_text().splitlines(keepends=True)
        return "".join(x for x in lines if not x.startswith("note: captions are typed"))


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Start ``perco app`` (or another command) with tiny weights; ended with the tests."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install 'perco_lite[app]'")
    started = []

    def start(*command, **environment):
        started.append(Server(tmp_path_factory.mktemp("server"), *command, **environment))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def server(start, tiny_weights):
    command = "-m perco_lite.cli app --no-browser --port 0 --weights".split()
    return start(*command, tiny_weights)
