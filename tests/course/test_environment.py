"""One list of requirements: environment.yml, Makefile, workflow keep in step with pyproject."""

import re

import pytest

from tests.course.conftest import PROJECT, PYPROJECT, ROOT

EXTRAS = set(PROJECT["optional-dependencies"])
# compressai wants numpy below 2, which has no wheels for newer Pythons: an environment of its own
APART = {"baselines"}
OLDEST_PYTHON = PROJECT["requires-python"].removeprefix(">=")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def conda_entries() -> list[tuple[str, str]]:
    """(entry, comment) of every list item in environment.yml."""
    items = re.findall(r"^ *- +([^#\n]*?) *(?:# *(.*))?$", read("environment.yml"), re.MULTILINE)
    return [(entry, comment) for entry, comment in items if entry != "pip:"]


def test_conda_leaves_the_requirements_to_pyproject():
    entries = [entry for entry, _ in conda_entries()]
    assert [re.match(r"-e|[\w-]+", entry)[0] for entry in entries] == [
        "conda-forge",
        "python",
        "pip",
        "-e",
    ]
    assert f"python>={OLDEST_PYTHON}" in entries


def test_conda_installs_every_extra():
    used = re.search(r"-e \.\[(.*)\]", read("environment.yml"))[1].split(",")
    missing = "an extra in one of environment.yml, pyproject.toml but not in both"
    assert set(used) == EXTRAS - APART, missing
    assert len(used) == len(set(used))


def test_conda_says_who_needs_each_line():
    for entry, comment in conda_entries():
        assert comment, f"environment.yml: who needs `{entry}`?"


def test_make_installs_extras_that_exist():
    stamps = set(re.findall(r"\.venv/\.(\w+)", read("Makefile"))) - {"core", "installing", "NAME"}
    assert stamps and stamps <= EXTRAS


def test_workflow_runs_the_oldest_python():
    assert f'"{OLDEST_PYTHON}"' in read(".github/workflows/test.yml")


@pytest.mark.parametrize("name", ["dependencies", *sorted(EXTRAS)])
def test_requirements_are_lower_bounds(name):
    every = {"dependencies": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    for requirement in every[name]:
        requirement = requirement.split(";")[0].strip()
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement) or requirement == "nbval==0.11.*", (
            f"{requirement}: a lower bound only, so that Colab keeps the versions it comes with"
        )


def test_a_wheel_brings_every_table():
    """What notebooks read of data/, so that nobody has to clone; checkpoints stay behind."""
    patterns = PYPROJECT["tool"]["setuptools"]["data-files"]
    brought = {file for each in patterns.values() for one in each for file in ROOT.glob(one)}
    files = (file for file in (ROOT / "data").rglob("*") if file.is_file())
    assert brought == {file for file in files if "checkpoints" not in file.parts}


def test_colabs_versions_of_what_is_loaded_first_are_enough():
    """Replaced by pip, they would want a restart of the runtime; scripts/colab_first_picture.py."""
    from packaging.requirements import Requirement

    lines = read("scripts/colab_versions.txt").splitlines()
    there = dict(line.split("==") for line in lines if not line.startswith("#"))
    asked = {r.name: r.specifier for r in map(Requirement, PROJECT["dependencies"])}
    for name in ("torch", "numpy", "pillow", "matplotlib", "scikit-image", "transformers"):
        assert asked[name].contains(there[name]), f"pip replaces Colab's {name} {there[name]}"
