"""scripts/pages.py: places between marks are filled from what was measured, and no others."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer

from perco_lite.claims.dated import load_list
from perco_lite.claims.evidence import read_evidence
from perco_lite.claims.report import markdown
from perco_lite.cli.main import app
from perco_lite.evaluation.results import load_results
from perco_lite.full_scale.memory import GIB, Need
from perco_lite.full_scale.pretrained import MIRRORS

ROOT = Path(__file__).parents[2]
PLACES = (".", "docs", "data", "data/results", "perco_lite/weights")
PAGES = [page for place in PLACES for page in sorted((ROOT / place).glob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
PAGE = (ROOT / "docs" / "full_scale.md").read_text(encoding="utf-8")


@pytest.fixture
def pages(load_script):
    return load_script("pages")


@pytest.fixture
def page(tmp_path):
    """A page with a place of that name, and the page around it."""

    def make(name, path="page.md"):
        page = tmp_path / path
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"before\n<!-- {name} -->\nold\nold\n<!-- end -->\nafter\n")
        return page

    return make


def filled(page, name) -> str:
    """What a page has in its place now; all else must be as it was."""
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n<!-- {name} -->\n") and "old" not in text
    assert text.endswith("\n<!-- end -->\nafter\n")
    return text


def test_a_page_without_its_place_is_left_alone(pages, page):
    target = page("one")
    with pytest.raises(SystemExit, match="0 places for the figures, expected one place: <!-- two"):
        pages.fill(target, "two", "text")
    assert "old" in target.read_text()
    pages.fill(target, "one", "a \\1 b")  # as it is, no pattern
    assert "\na \\1 b\n" in filled(target, "one")


# --- perco bench ---

REPORT = {
    "machine": "a laptop, 2 threads",
    "settings": "20 steps",
    "kodak_photos": 24,
    "autoencoder_psnr": 25.456,
    **{f"{n}_{r}": i for i, n in enumerate(("bytes", "psnr", "ms_ssim"), 1) for r in ("a", "b")},
    "lpips": "not measured: no weights",
}


def test_rows_are_rates_and_columns_what_was_measured(pages):
    lines = pages.bench_text(REPORT).splitlines()
    assert lines[0] == "| rate | bytes | PSNR | MS-SSIM |"
    assert lines[2] == "| `a` | 1.0 | 2.00 dB | 3.000 |" and lines[3].startswith("| `b` |")
    assert "25.46 dB" in lines[-1] and "LPIPS: not measured" in lines[-1]
    assert "cold start" not in lines[-1] and "v-loss" not in lines[-1]


def test_bench_goes_into_both_pages(pages, page, tmp_path, monkeypatch):
    both = [page("perco bench", name) for name in ("docs/bench.md", "card.md")]
    monkeypatch.setattr(pages, "BENCH_PAGES", both)
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "bench.json").write_text(json.dumps(REPORT))
    pages.bench(tmp_path / "bench.json")
    pages.bench(tmp_path / "bench.json")
    for one in both:
        assert filled(one, "perco bench").count("| rate |") == 1
    (tmp_path / "alone.json").write_text(json.dumps({"autoencoder_psnr": 30.0}))
    pages.bench(tmp_path / "bench.json", tmp_path / "alone.json")
    text = both[0].read_text()
    assert "30.00 dB" in text and "25.46 dB" not in text and "| `a` | 1.0 |" in text
    kept = json.loads((tmp_path / "results" / "bench.json").read_text())
    assert kept == REPORT | {"autoencoder_psnr": 30.0}


def test_both_pages_show_the_figures_that_are_kept(pages):
    kept = pages.bench_text(json.loads((pages.RESULTS / "bench.json").read_text()))
    for page in pages.BENCH_PAGES:
        assert f"<!-- perco bench -->\n{kept}\n<!-- end -->" in page.read_text("utf-8")


# --- sizes ---


def test_the_page_shows_the_sizes_that_are_kept(pages):
    rows = pages.read_rows(ROOT / "data" / "results" / "kodak_sizes.csv")
    kept = pages.BENCH_PAGES[0].read_text(encoding="utf-8")
    assert f"<!-- kodak sizes -->\n{pages.sizes_text(rows)}\n<!-- end -->" in kept


def test_sizes_are_filled_in(pages, page, monkeypatch):
    target = page("kodak sizes")
    monkeypatch.setattr(pages, "BENCH_PAGES", (target,))
    pages.sizes()
    assert "| rate | bytes, mean (from to) | header |" in filled(target, "kodak sizes")


# --- claims ---


def test_a_run_of_the_dated_list_is_kept_whole_or_not(pages, page, tmp_path, monkeypatch):
    listed = load_list()
    about = {"made_by": "perco claims", "dated": listed.dated, "claims_sha256": listed.sha256}
    about |= {"weights": "w", "commit": "c", "command": "perco claims", "draws": 800, "missing": {}}
    about |= {"photos": {"kodak": 24}, "limit": 0, "crop": 0}
    folder, target = tmp_path / "out", page("dated list")
    monkeypatch.setattr(pages, "CLAIMS_PAGE", target)
    monkeypatch.setattr(pages, "DATED", tmp_path / "dated")
    folder.mkdir()
    (folder / "rows.csv").write_text("photo\n")
    np.savez(folder / "effects.npz", bytes=np.linspace(5, 6, 801))

    def verdicts(**changes):
        (folder / "claims.json").write_text(json.dumps(about | changes))
        pages.verdicts(folder)

    for changes, reason in (
        ({"limit": 2}, "is a short run"),
        ({"crop": 256}, "is a short run"),
        ({"claims_sha256": "another"}, "made with the list 'another'"),
    ):
        with pytest.raises(ValueError, match=reason):
            verdicts(**changes)
    assert not (tmp_path / "dated").exists()
    verdicts()
    text = target.read_text()
    assert "| +5 [5.03, 5.98] bytes | ≥ 1 bytes | **holds** |" in text
    assert "1 holds, 18 not measured" in text
    assert {path.name for path in (tmp_path / "dated").iterdir()} == set(pages.KEPT)


def test_the_page_shows_the_verdicts_that_are_kept(pages):
    shown = markdown(read_evidence(pages.DATED, load_list()))
    kept = pages.CLAIMS_PAGE.read_text(encoding="utf-8")
    assert f"<!-- dated list -->\n{shown}\n<!-- end -->" in kept


# --- perco evaluate ---


@pytest.fixture
def kept(pages, tmp_path, monkeypatch):
    """Keep a table with these changes to its summary; the JSON kept."""
    monkeypatch.setattr(pages, "RESULTS", tmp_path / "results")

    def kept(**changes):
        about = {
            "made_by": "perco evaluate",
            "finished": True,
            "skipped": [],
            "command": "/home/me/.venv/bin/perco evaluate 'my photos' -o out/k.csv",
            "machine": "a laptop",
            "photos": 3,
            "settings": {"dataset": "my photos"},
        }
        (tmp_path / "k.csv").write_text("photo,codec\na.png,jpeg\n")
        (tmp_path / "k.json").write_text(json.dumps(about | changes))
        pages.keep(tmp_path / "k.csv")
        return json.loads((tmp_path / "results" / "k.json").read_text())

    return kept


def test_a_table_is_kept_with_its_command_and_listed(kept, pages, page, tmp_path):
    about, results = kept(), tmp_path / "results"
    assert about["command"] == "perco evaluate 'my photos' -o out/k.csv"
    assert (results / "k.csv").read_text() == "photo,codec\na.png,jpeg\n"
    (results / "others.json").write_text('{"made_by": "another command"}')
    readme = page("perco evaluate", "results/README.md")
    pages.evaluate()
    text = filled(readme, "perco evaluate")
    row = "| `k.csv`, `k.json` | 3 of my photos | `perco evaluate 'my photos' -o out/k.csv` |"
    assert f"{row} a laptop | {about['date']} |" in text and "others" not in text
    readme.write_text("no marks")
    with pytest.raises(SystemExit, match="expected one place"):
        pages.evaluate(tmp_path / "k.csv")


@pytest.mark.parametrize("changes", [{"finished": False}, {"skipped": [{"photo": "a.png"}]}])
def test_a_table_with_holes_is_not_kept(kept, changes, tmp_path):
    with pytest.raises(ValueError, match="is not whole"):
        kept(**changes)
    assert not (tmp_path / "results").exists()


def test_the_first_page_shows_what_the_table_of_rates_says(pages):
    shown = pages.rates_text(load_results("rates", pages.RESULTS))
    lines = shown.splitlines()
    assert len(lines) == 2 + 2 * 4 + 1 and lines[2].startswith("| **`0.0019`** | ")
    page = pages.FRONT_PAGE.read_text(encoding="utf-8")
    assert f"<!-- rates -->\n{shown}\n<!-- end -->" in page


# --- docs/full_scale.md ---


@pytest.fixture
def cards(load_script):
    return load_script("full_scale_page")


def test_a_row_by_hand(cards):
    need = Need(5 * GIB, GIB // 2)
    yes = ["yes" if need.fits(8) else "no", "yes", "yes", "yes"]
    assert cards.card_row("x", need) == ["x", "5.0", "0.5", "5.5", *yes]
    assert not need.fits(6) and cards.CARDS == (8, 16, 24, 80)


def test_the_table_has_a_row_for_every_job(cards):
    rows = PAGE.split("<!-- memory table -->\n")[1].split("<!-- end -->")[0].splitlines()[2:]
    assert [line.split(" | ")[0].removeprefix("| ") for line in rows] == list(cards.JOBS)


@pytest.mark.parametrize("name", ["decode 768×512, `--dtype float16`", "train `single-gpu`"])
def test_the_table_is_what_the_script_computes(cards, name):
    (stored,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    fresh = " | ".join(cards.card_row(name, cards.JOBS[name]()))
    numbers = [[float(x) for x in re.findall(r"\d+\.\d", line)] for line in (stored, fresh)]
    # another release of torch or diffusers may hold a tensor more or less
    assert numbers[0] == pytest.approx(numbers[1], rel=0.1), "run scripts/pages.py memory"


def test_the_memory_table_is_filled_in(cards, page, monkeypatch):
    target = page("memory table")
    monkeypatch.setattr(cards, "MEMORY_PAGE", target)
    monkeypatch.setattr(cards, "JOBS", {"a job": lambda: Need(GIB, GIB)})
    cards.memory()
    head = "| job | weights | pass | GiB in all | 8 GB | 16 GB | 24 GB | 80 GB |\n|---|---|"
    assert head in filled(target, "memory table") and "| a job | 1.0 | 1.0 |" in target.read_text()


def code(page) -> str:
    """What stands between backticks, a piece a line."""
    text = page.read_text(encoding="utf-8")
    return "\n".join(sum(re.findall(r"```\w*\n(.*?)```|`([^`\n]+)`", text, re.S), ()))


@each_page
def test_commands_of_a_page_have_these_options(page):
    commands = typer.main.get_command(app).commands
    lines = re.findall(r"^perco (?:train )?[a-z]+\b[^#\n]*", code(page).replace("&& ", "\n"), re.M)
    assert len(lines) > 12 or page.name != "full_scale.md"
    for line in lines:
        words = line.split()
        command = commands[words[1]]
        if words[1] == "train":
            command = command.commands[words[2]]
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        used = {word for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known, f"{line}: {used - known}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z-]+)", code(page), re.M):
        assert re.search(rf"^{target}:", makefile, re.M), f"no make {target}"


@each_page
def test_files_that_a_page_names_exist(page):
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8"))
    assert all((page.parent / link).exists() for link in links)
    rooms = "perco_lite|scripts|tests|docs|data|notebooks|coding|cli|training|evaluation|claims"
    paths = re.findall(rf"(?<![\w/.*-])((?:{rooms}|full_scale)/[\w./-]*\w)", code(page))
    made = {"notebooks/NN_name.ipynb"}  # by make, and by the reader
    for path in set(paths) - made:
        places = ROOT, ROOT / "perco_lite", page.parent
        assert any((folder / path).exists() for folder in places), f"{page} names {path}"


def test_every_mirror_is_listed():
    for name, mirrors in MIRRORS.items():
        (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}`")]
        assert all(f"`{mirror}`" in line for mirror in mirrors)
