"""The figures in README and model card come from `perco bench`, by scripts/make_table.py."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def make_table():
    spec = importlib.util.spec_from_file_location("make_table", ROOT / "scripts/make_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REPORT = {
    "machine": "a laptop, 2 threads",
    "settings": "20 steps",
    "kodak_photos": 24,
    "autoencoder_psnr": 25.456,
    **{f"{n}_{r}": i for i, n in enumerate(("bytes", "psnr", "ms_ssim"), 1) for r in ("a", "b")},
    "lpips": "not measured: no weights",
}


def test_rows_are_rates_and_columns_what_was_measured(make_table):
    lines = make_table.text(REPORT).splitlines()
    assert lines[0] == "| rate | bytes | PSNR | MS-SSIM |"
    assert lines[2] == "| `a` | 1.0 | 2.00 dB | 3.000 |" and lines[3].startswith("| `b` |")
    assert "25.46 dB" in lines[-1] and "LPIPS: not measured" in lines[-1]
    assert "cold start" not in lines[-1] and "v-loss" not in lines[-1]


def test_pages_are_rewritten_between_their_marks(make_table, tmp_path, monkeypatch):
    monkeypatch.setattr(make_table, "ROOT", tmp_path)
    for name in make_table.FILES:
        page = tmp_path / name
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("before\n<!-- perco bench -->\nold\nold\n<!-- end -->\nafter\n")
    (tmp_path / "bench.json").write_text(json.dumps(REPORT))
    make_table.main(tmp_path / "bench.json")
    make_table.main(tmp_path / "bench.json")
    for name in make_table.FILES:
        page = (tmp_path / name).read_text()
        assert page.startswith("before\n<!-- perco bench -->\n| rate |") and "old" not in page
        assert page.endswith("\n<!-- end -->\nafter\n") and page.count("| rate |") == 1
    (tmp_path / "alone.json").write_text(json.dumps({"autoencoder_psnr": 30.0}))
    make_table.main(tmp_path / "bench.json", tmp_path / "alone.json")
    page = (tmp_path / "README.md").read_text()
    assert "30.00 dB" in page and "25.46 dB" not in page and "| `a` | 1.0 |" in page
    (tmp_path / "README.md").write_text("no place\n")
    with pytest.raises(SystemExit, match="0 places for the figures, expected one"):
        make_table.main(tmp_path / "bench.json")


def test_both_pages_show_the_same_figures():
    blocks = {
        re.search(r"<!-- perco bench -->\n(.*?)\n<!-- end -->", (ROOT / name).read_text(), re.S)[1]
        for name in ("README.md", "perco_lite/weights/README.md")
    }
    assert len(blocks) == 1 and "| `0.0019` |" in blocks.pop()
