"""The rules of the house: which room imports which, how long anything is, and who teaches it."""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter

import nbformat
import pytest

import perco_lite
from tests.course.conftest import PROJECT, ROOT

PACKAGE = ROOT / "perco_lite"
PATHS = {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in PACKAGE.rglob("*.py")}
# names as in "coding.bitstream"; "cli" is cli/__init__.py, and "" the package's own
FILES = {name.removesuffix("__init__").strip("."): PATHS[name] for name in sorted(PATHS)}
# A room is a folder, "core" the files beside the folders. Who may import the core may import
# coding, which is a part of it that needs no torch.
MAY_IMPORT = {
    "coding": {"coding"},  # and TORCH_FREE
    "core": {"core", "coding"},
    "captioning": {"captioning", "core", "coding"},
    "course": {"course", "core", "coding"},  # notebooks import it, and nothing else
    "training": {"training", "captioning", "core", "coding"},
    "full_scale": {"full_scale", "training", "core", "coding"},
    "evaluation": {"evaluation", "captioning", "core", "coding"},
    "claims": {"claims", "evaluation", "training", "captioning", "core", "coding"},
    "app": {"app", "captioning", "evaluation", "core", "coding"},
    "cli": {"cli", "app", "claims", "evaluation", "full_scale", "training"}
    | {"captioning", "core", "coding"},
}
TORCH_FREE = {"rates", "files"}  # of the core
# PercoCodec.from_stable_diffusion is a public name: imported when it is called, and nothing else is
EXCEPTIONS = {("codec", "full_scale.stable_diffusion")}
# where pip's name is another
IMPORT_NAMES = {"IPython": "ipython", "PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}

each_module = pytest.mark.parametrize("module", FILES)


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imports(nodes) -> set[str]:
    """Dotted names of what ``nodes`` import; ``from a import b`` counts as ``a.b``."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(filter(None, ["perco_lite" if node.level else "", node.module]))
            names |= {f"{package}.{alias.name}" for alias in node.names}
    return names


def room(module: str) -> str:
    folder = module.partition(".")[0]
    return folder if (PACKAGE / folder).is_dir() and folder else "core"


def own_imports(module: str) -> set[str]:
    """Modules of this package that one imports, inside its functions too."""
    found = {name.removeprefix("perco_lite.") for name in imports(ast.walk(tree(module)))}
    found |= {name.rpartition(".")[0] for name in found}
    return {name for name in found & set(FILES) - {"", module} if (module, name) not in EXCEPTIONS}


@each_module
def test_imports_what_its_room_may(module):
    own = own_imports(module)
    wrong = {name for name in own if room(name) not in MAY_IMPORT[room(module)]} - TORCH_FREE
    assert not wrong, f"{module} imports {sorted(wrong)}: is there an arrow in the data flow?"
    foreign = {name.partition(".")[0] for name in imports(ast.walk(tree(module)))}
    assert "torch" not in foreign or not (room(module) == "coding" or module in TORCH_FREE)
    assert "typer" not in foreign or room(module) == "cli"


def test_no_circle():
    TopologicalSorter({module: own_imports(module) for module in FILES}).prepare()  # names it


@each_module
def test_is_short_and_explains_itself(module):
    lines = len(FILES[module].read_text(encoding="utf-8").splitlines())
    assert lines <= 300, f"{module} has {lines} lines, at most 300; it holds more than one idea"
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= 60, f"{module}.{node.name} has {lines} lines, at most 60; cut it in two"
    assert ast.get_docstring(tree(module)), f"{module} has no module docstring"
    name = module.rpartition(".")[2]
    assert name not in {"utils", "helpers", "common"}, "name the file after what it does"


def test_the_core_is_small():
    core = [module for module in FILES if room(module) == "core"]
    assert len(core) <= 20, "the core is what notebooks teach; is there another room for a file?"


@cache
def notebook_text(number: str) -> str:
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


@pytest.mark.parametrize("module", [m for m in FILES if m and room(m) in ("core", "coding")])
def test_is_taught_by_a_notebook(module):
    """Its docstring ends with the notebook, which imports the module, or names it in its text."""
    if module == "coding":
        return
    last = ast.get_docstring(tree(module)).splitlines()[-1]
    assert re.fullmatch(r"Taught in notebooks? \d\d(, \d\d)*( and \d\d)?\.", last), last
    name = module.rpartition(".")[2]
    public = [n for n, home in perco_lite._HOMES.items() if home == module]
    shown = rf"perco_lite\.{module}\b|`{name}\b|\b({'|'.join([f'{name}[.]py', *public])})\b"
    for number in re.findall(r"\d\d", last):
        assert re.search(shown, notebook_text(number)), f"notebook {number} does not show {module}"


@each_module
def test_imports_are_requirements(module):
    def names(requirements: list[str]) -> set[str]:
        return {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in requirements}

    def foreign(nodes) -> set[str]:
        roots = {name.split(".")[0] for name in imports(nodes)} - sys.stdlib_module_names
        return {IMPORT_NAMES.get(n, n).replace("_", "-") for n in roots - {"perco_lite"}}

    core = names(PROJECT["dependencies"])
    extras = names(sum(PROJECT["optional-dependencies"].values(), []))
    assert foreign(tree(module).body) <= core, "imported at the top, so it belongs in dependencies"
    inside = foreign(ast.walk(tree(module)))
    assert inside <= core | extras, "imported, but not in pyproject.toml"


def test_bytes_need_no_torch():
    """Nor do the package itself, and the commands that look at files."""
    modules = [m for m in FILES if room(m) == "coding" or m in TORCH_FREE] + ["cli.inspecting"]
    tries = (f"import perco_lite.{m}; assert 'torch' not in sys.modules, {m!r}" for m in modules)
    code = "import sys\n" + "\n".join(tries)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_readme_stays_a_page():
    size = len((ROOT / "README.md").read_bytes())
    assert size <= 9000, f"README.md has {size} bytes, at most 9,000; tables go to docs/"
