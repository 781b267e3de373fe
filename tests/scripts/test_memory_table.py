"""docs/full_scale.md: its table is what the script computes, its commands and mirrors exist."""

import re
import sys
from pathlib import Path

import pytest
import typer

from perco_lite.cli.main import app
from perco_lite.full_scale.memory import GIB, Need
from perco_lite.full_scale.pretrained import MIRRORS

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))

from memory_table import CARDS, END, JOBS, START, row  # noqa: E402

PAGE = (ROOT / "docs" / "full_scale.md").read_text(encoding="utf-8")
ROWS = PAGE.split(START)[1].split(END)[0].splitlines()[2:]


def test_a_row_by_hand():
    need = Need(5 * GIB, GIB // 2)
    assert row("x", need) == "| x | 5.0 | 0.5 | 5.5 | yes | yes | yes | yes |".replace(
        "yes", "yes" if need.fits(8) else "no", 1
    )
    assert not need.fits(6) and CARDS == (8, 16, 24, 80)


def test_the_table_has_a_row_for_every_job():
    assert [line.split(" | ")[0].removeprefix("| ") for line in ROWS] == list(JOBS)


@pytest.mark.parametrize("name", ["decode 768×512, `--dtype float16`", "train `single-gpu`"])
def test_the_table_is_what_the_script_computes(name):
    (stored,) = [line for line in ROWS if line.startswith(f"| {name} |")]
    fresh = row(name, JOBS[name]())
    numbers = [[float(x) for x in re.findall(r"\d+\.\d", line)] for line in (stored, fresh)]
    # another release of torch or diffusers may hold a tensor more or less
    assert numbers[0] == pytest.approx(numbers[1], rel=0.1), "run scripts/memory_table.py"


def test_commands_of_the_page_have_these_options():
    commands = typer.main.get_command(app).commands
    lines = re.findall(r"perco (?:train )?[a-z]+ [^#`\n]*", PAGE)
    assert len(lines) > 12
    for line in lines:
        words = line.replace("&&", " ").split()
        command = commands[words[1]]
        if words[1] == "train":
            command = command.commands[words[2]]
        known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        used = {word for word in words if re.match(r"--?[a-z]", word)}
        if "&&" not in line:
            assert used <= known, f"{line}: {used - known}"


def test_every_mirror_is_listed():
    for name, mirrors in MIRRORS.items():
        (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}`")]
        assert all(f"`{mirror}`" in line for mirror in mirrors)
