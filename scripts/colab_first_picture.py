"""Colab's first two minutes, on its versions: the install cell, then notebook 00 up to a picture.

    python3.12 scripts/colab_first_picture.py FOLDER

    scripts/colab_versions.txt ──pip──► FOLDER, an environment that is kept: gigabytes, not timed
    the last commit ──pip, as the notebook's first cell──► it; notebook 00 until a photo is painted

Prints seconds, and what pip replaced. Exit status 1 where torch, numpy or pillow were replaced (a
runtime would have to be started anew) or where it takes more than two minutes. A GPU's wheels are
installed, and the CPU is used: Colab's machine is another one.
"""

import argparse
import re
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ROOT / "scripts" / "colab_versions.txt"
KEPT = {
    "torch",
    "numpy",
    "pillow",
}  # loaded when a notebook begins: to replace them means a restart
LIMIT = 120  # seconds
# runs in the environment, whose nbclient and kernel are Colab's
UNTIL_A_PICTURE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
painted = next(i for i, cell in enumerate(notebook.cells) if "[photo, painted]" in cell.source)
notebook.cells = notebook.cells[: painted + 1]
NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
assert any("image/jpeg" in output.get("data", {}) for output in notebook.cells[painted].outputs)
"""


def versions(python: Path) -> dict[str, str]:
    command = [python, "-m", "pip", "list", "--format", "freeze"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(line.lower().split("==") for line in listed.splitlines() if "==" in line)


def seconds(*command: str | Path) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT.parent)  # from elsewhere: not the checkout's code
    return time.perf_counter() - started


def main(folder: Path) -> bool:
    """Whether a picture was there in time, and torch and numpy are Colab's still."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "-q"]
    subprocess.run([python, "-m", "pip", "uninstall", "-qy", "perco_lite"], check=False)
    subprocess.run([*install, "-r", VERSIONS], check=True)
    subprocess.run([python, "-m", "ipykernel", "install", "--sys-prefix"], check=True)
    before = versions(python)
    took = seconds(*install, f"perco_lite @ git+file://localhost{ROOT}")
    after = versions(python)
    replaced = {name for name, version in before.items() if after.get(name) != version}
    for name in sorted(replaced):
        print(f"pip replaced {name} {before[name]} by {after.get(name)}")
    notebook = ROOT / "notebooks" / "00_start_here.ipynb"
    painted = seconds(python, "-c", UNTIL_A_PICTURE, notebook)
    print(f"install {took:.0f} s, first picture {painted:.0f} s later: {took + painted:.0f} s")
    return not replaced & KEPT and took + painted <= LIMIT


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of the environment; kept")
    if re.match(r"3\.12\.", sys.version) is None:
        print(f"note: Colab has Python 3.12, this is {sys.version.split()[0]}", file=sys.stderr)
    sys.exit(not main(parser.parse_args().folder.resolve()))
