"""docs/recipes.md does what it says: its code runs, top to bottom, with the bundled weights."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import make_photo, pixels
from perco_lite.loading import BUNDLED

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)


def test_each_recipe_has_its_code():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("\n## ") == 5 and len(BLOCKS) == 6


@pytest.mark.skipif(not (BUNDLED / "model_index.json").exists(), reason="no bundled weights")
def test_the_page_runs_from_top_to_bottom(tmp_path):
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(("a hill", "a lake", "a tree")):
        make_photo(96, 64, seed=number).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "page.py").write_text("\n".join(BLOCKS), encoding="utf-8")
    command = [sys.executable, "page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    batch, refused = done.stdout.splitlines()
    assert batch == "torch.Size([2, 3, 64, 96]) ('a hill', 'a lake')"
    assert "weights" in refused
    files = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert files == [f"a {n}.{s}" for n in ("hill", "lake", "tree") for s in ("perco", "png")]
    for name in ("files/a hill.png", "fast.png", "mine.png", "elsewhere.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (96, 64)
    here, there = (pixels(Image.open(tmp_path / n)) for n in ("files/a hill.png", "elsewhere.png"))
    assert abs(here - there).max() <= 1, "the same seed, the same picture, in another process"
