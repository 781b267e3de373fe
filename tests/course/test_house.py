"""The rules of the house: short files, one idea each, and who may import whom."""

import ast
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "perco_lite").rglob("*.py"))

IMPORT_NAMES = {
    "IPython": "ipython",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}  # where pip's name is another


def imports(nodes) -> set[str]:
    """Dotted names of the modules imported by ``nodes``; ``from a import b`` counts as ``a.b``."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(filter(None, ["perco_lite" if node.level else "", node.module]))
            names |= {f"{package}.{alias.name}" for alias in node.names}
    return names


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in requirements}


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def path(request) -> Path:
    return request.param


@pytest.fixture
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_is_short_and_explains_itself(path, tree):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 300, f"{path.name} has {lines} lines, at most 300; it holds more than one idea"
    assert ast.get_docstring(tree), f"{path.name} has no module docstring"


def test_is_named_after_its_idea(path):
    assert path.stem not in {"utils", "helpers", "common"}, "name the file after what it does"


def test_imports_are_requirements(path, tree):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = requirement_names(project["dependencies"])
    extras = requirement_names(sum(project["optional-dependencies"].values(), []))

    def foreign(nodes) -> set[str]:
        roots = {name.split(".")[0] for name in imports(nodes)} - sys.stdlib_module_names
        return {IMPORT_NAMES.get(n, n).replace("_", "-") for n in roots - {"perco_lite"}}

    assert foreign(tree.body) <= core, "imported at the top, so it belongs in dependencies"
    assert foreign(ast.walk(tree)) <= core | extras, "imported, but not in pyproject.toml"
