"""The rules of the house: short files, one idea each, and who may import whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "perco_lite").rglob("*.py"))
MODULES = {path.stem for path in FILES}

TORCH_FREE = ("rates", "range_coder", "ngram_model", "caption_model", "entropy_coding")
TORCH_FREE += ("index_prior", "file_header", "bitstream", "inspecting")
# Four layers, each of which may import those above it: the parts, which know each other only along
# an arrow of the data flow; what puts parts together; what draws; what the command line runs.
ARROWS = {
    "caption_model": {"ngram_model", "range_coder"},
    "entropy_coding": {"caption_model", "rates"},
    "index_prior": {"range_coder"},
    "file_header": {"rates"},
    # where all the coders of a file meet
    "bitstream": {"caption_model", "entropy_coding", "file_header", "index_prior", "range_coder"}
    | {"rates"},
    "condition": {"autoencoder", "hyper_encoder", "rates", "vector_quantizer"},
    "unet": {"rates"},
    "tiling": {"autoencoder"},
    "refinement": {"condition", "rates"},
    "sampling": {"condition", "tiling", "unet"},
    "captioning": {"pretrained"},
    "perco_sd": {"condition", "pretrained", "rates", "stable_diffusion"},
    "stable_diffusion": {"autoencoder", "condition", "pretrained", "rates"},
    "memory": {"condition", "stable_diffusion", "trained_layers", "unet"},
    "shards": {"data"},
    "datasets": {"data"},
    "scoring": {"datasets", "metrics", "realism", "patch_distance", "semantics"},
    "photo_store": {"shards"},
    "photo_stream": {"data", "shards"},
    "latent_store": {"autoencoder", "photo_store"},
    "realism": {"frechet", "metrics"},
    "patch_distance": {"autoencoder", "frechet", "metrics"},
    "semantics": {"metrics"},
    "external_codecs": {"baselines"},
    "learned_codecs": {"baselines", "data"},
}
ASSEMBLERS = {"__init__", "codec", "training", "contenders", "classical", "muon"}
ASSEMBLERS |= {"autoencoder_stage", "text_stage", "codec_stage"}
DRAWING = {"plotting", "widgets"}
COMMANDS = {"batch", "bench", "cli", "demo", "inspecting", "loading", "recipes", "train_cli"}
COMMANDS |= {
    "evaluate_cli",
    "evaluation",
    "evaluation_files",
    "evaluation_rows",
    "evaluation_summary",
}
COMMANDS |= {"base_recipe", "download_cli", "run_config"}
COMMANDS |= {"pretrained_cli"}
COMMANDS |= {"claims", "claims_cli", "claim_bench", "claim_bits", "claim_captions"}
COMMANDS |= {"claim_experiments", "claim_list", "claim_measures", "claim_sets", "claim_sizes"}
COMMANDS |= {"claim_table", "claim_trainings", "claim_verdicts"}
COMMANDS |= {"pretrained_cli", "caption_training", "prior_recipe", "prior_training"}
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


def own_imports(tree: ast.Module) -> set[str]:
    """Modules of this package that are imported anywhere in a file, inside functions too."""
    parts = [name.split(".") for name in imports(ast.walk(tree))]
    return {p[1] for p in parts if p[0] == "perco_lite" and len(p) > 1} & MODULES


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
    assert path.parent == ROOT / "perco_lite", "the package is flat"


def test_imports_along_the_data_flow(path, tree):
    if path.stem in COMMANDS:
        allowed = MODULES
    elif path.stem in ASSEMBLERS | DRAWING:
        allowed = MODULES - COMMANDS - (DRAWING - {path.stem})
    else:
        allowed = ARROWS.get(path.stem, set())
    wrong = own_imports(tree) - allowed
    assert not wrong, f"{path.name} imports {sorted(wrong)}: is there an arrow in the data flow?"


def test_imports_are_requirements(path, tree):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = requirement_names(project["dependencies"])
    extras = requirement_names(sum(project["optional-dependencies"].values(), []))

    def foreign(nodes) -> set[str]:
        roots = {name.split(".")[0] for name in imports(nodes)} - sys.stdlib_module_names
        return {IMPORT_NAMES.get(n, n).replace("_", "-") for n in roots - {"perco_lite"}}

    assert foreign(tree.body) <= core, "imported at the top, so it belongs in dependencies"
    assert foreign(ast.walk(tree)) <= core | extras, "imported, but not in pyproject.toml"


@pytest.mark.parametrize("module", TORCH_FREE)
def test_needs_no_torch(module):
    code = f"import sys, perco_lite.{module}; sys.exit('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr or f"importing perco_lite.{module} imports torch"
    tree = ast.parse((ROOT / "perco_lite" / f"{module}.py").read_text(encoding="utf-8"))
    assert "torch" not in {name.split(".")[0] for name in imports(ast.walk(tree))}
