"""The lowest releases that pyproject.toml allows, as pip's constraints."""

import pytest
from oldest import lowest, main


@pytest.mark.parametrize(
    ("requirement", "pinned"),
    [
        ("torch>=2.6", "torch==2.6"),
        ("numpy>=1.26,<3", "numpy==1.26"),
        ("nbval==0.11.*", "nbval==0.11.*"),
        ("tomli>=2; python_version >= '3.9'", "tomli==2; python_version >= '3.9'"),
    ],
)
def test_a_lower_bound_becomes_the_release(requirement, pinned):
    assert lowest(requirement) == pinned


def test_a_requirement_without_one_is_named():
    with pytest.raises(ValueError, match="'tqdm' names no lowest release; write tqdm>="):
        lowest("tqdm")


def test_all_of_pyproject(capsys):
    main()
    lines = capsys.readouterr().out.splitlines()
    names = [line.partition("==")[0] for line in lines]
    assert len(set(names)) == len(names), "two extras ask for different releases"
    assert {"torch", "diffusers", "peft", "ruff"} <= set(names)
