"""The package as its users get it: wheel and sdist, installed without this repository, and used.

    git's files ──build──► .whl, .tar.gz ──check──► small enough, all in it
    each ──pip install, new environment──► compress, decompress, demo, imports of every notebook

`python scripts/try_wheel.py` (extra dev) installs all requirements anew, as CI does. With --borrow
the new environment takes them from this one: half a minute, and nothing is downloaded.
"""

import argparse
import ast
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 60_000_000  # bytes
NEEDED = (  # by whoever has the package alone
    "perco_lite/py.typed",
    "perco_lite/weights/unet/diffusion_pytorch_model.safetensors",
    "perco_lite/coding/caption_model.npz",
    "perco_lite/coding/index_prior.npz",
    "perco_lite/full_scale/configs/t4.yaml",
)
TRY = """
import sys
import perco_lite
assert "site-packages" in perco_lite.__file__, perco_lite.__file__
from skimage import data
from PIL import Image
from perco_lite.data import skimage_photos
assert all(sample.caption for sample in skimage_photos()), "captions.json came along"
Image.fromarray(data.astronaut()).resize((256, 256)).save("photo.png")
"""


def build(out: Path, isolated: bool = True) -> tuple[Path, Path]:
    """Wheel and sdist of the files that git knows, without what lies around."""
    source = out / "source"
    source.mkdir(parents=True)
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, names.decode().split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "-q", "-o", str(out)]
    run([*command, *([] if isolated else ["--no-isolation"]), str(source)])
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def check(file: Path) -> None:
    """Raise ``ValueError`` for a package that is too large, or has too much or too little in it."""
    if file.stat().st_size > LARGEST:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes, at most {LARGEST:,}")
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
    else:
        with tarfile.open(file) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise ValueError(f"{file.name} lacks {', '.join(missing)}")
    extra = [n for n in names if re.match(r"(tests|notebooks|scripts|docs)/|data/checkpoints", n)]
    if extra:
        raise ValueError(f"{file.name} holds {extra[0]}, which is the repository's")


def notebook_imports() -> str:
    """Every import of the notebooks, as a program."""
    found: dict[str, None] = {}
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "code" or "google.colab" in cell.source:
                continue
            source = re.sub(r"^(\s*)[!%].*$", r"\1pass", cell.source, flags=re.M)
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    found[ast.unparse(node)] = None
    return "\n".join(found) + "\n"


def install(file: Path, folder: Path, borrow: bool) -> Path:
    """A new environment with the package; its folder of programs."""
    venv.create(folder, with_pip=True, clear=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    options = shlex.split(os.environ.get("PIP_ARGS", ""))
    if borrow:
        (site,) = folder.glob("lib/python*/site-packages")
        ours = [sysconfig.get_path("purelib"), *(p for p in sys.path if "site-packages" in p)]
        (site / "borrowed.pth").write_text("\n".join(dict.fromkeys(ours)) + "\n")
        options += ["--no-deps", "--no-build-isolation"]
    target = str(file) if borrow else f"{file}[notebooks]"
    run([str(programs / "python"), "-m", "pip", "install", "-q", *options, target])
    return programs


def use(programs: Path, folder: Path) -> None:
    """What a user does first, in an empty folder; raises where anything fails."""
    folder.mkdir()
    (folder / "imports.py").write_text(notebook_imports(), encoding="utf-8")
    perco = [str(programs / "python"), "-m", "perco_lite.cli"]
    for command in (
        [str(programs / "python"), "-c", TRY],
        [str(programs / "perco"), "--help"],
        [*perco, "compress", "photo.png", "--caption", "an astronaut"],
        [*perco, "inspect", "photo.perco"],
        [*perco, "decompress", "photo.perco", "--steps", "2"],
        [*perco, "demo", "--photos", "1", "--steps", "2"],
        [*perco, "rates"],
        [str(programs / "python"), "imports.py"],
    ):
        run(command, cwd=folder)
    made = {path.name for path in folder.iterdir()}
    if not {"photo.perco", "photo_decoded.png", "out"} <= made:
        raise ValueError(f"expected a file, a picture and out/, got {sorted(made)}")


def run(command: list[str], cwd: Path | None = None) -> None:
    ours = ("PYTHONPATH", "PERCO_LITE_DATA")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    print("$", shlex.join(command)[:150], flush=True)
    subprocess.run(
        command, cwd=cwd, env=environment, check=True, stdin=subprocess.DEVNULL, timeout=1800
    )


def main(borrow: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        files = build(place / "built", isolated=not borrow)
        for number, file in enumerate(files):
            check(file)
            print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
            use(install(file, place / f"env{number}", borrow), place / f"empty{number}")
    print("wheel and sdist work without the repository")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--borrow", action="store_true", help="take requirements from here")
    main(parser.parse_args().borrow)
