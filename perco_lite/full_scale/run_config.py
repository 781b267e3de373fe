"""Settings of a training run from a YAML file; options on the command line win over it.

    t4 | single-gpu | paper | FILE.yaml ──► {"batch_size": 160, …} ──► click's default_map

The files in ``configs`` hold the options of `perco train codec`, dashes or underscores.

Paper: Sec. 4.1 and the table in PerCo (SD)'s README are where paper.yaml's numbers come from.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

from perco_lite.files import explain
from perco_lite.training.settings import current_name

FOLDER = Path(__file__).parent / "configs"


def config_names() -> list[str]:
    """Names of the configs that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_run_config(config: str | Path, known: Iterable[str]) -> dict:
    """Options of a YAML file, or of one of ``config_names``, by their names with underscores.

    Values stay as they are written, for click to read: YAML reads no as False, 0.1250 as 0.125 and
    010 as 8. Raises FileNotFoundError for a file that is not there, ValueError for one that is no
    mapping, a value that is no number, text or list of texts, and an option not among ``known``.
    """
    import yaml

    path = FOLDER / f"{config}.yaml" if str(config) in config_names() else Path(config)
    if not path.is_file():
        raise FileNotFoundError(
            f"no config {config}; give a YAML file, or one of {', '.join(config_names())}"
        )
    try:
        options = yaml.load(path.read_text(encoding="utf-8-sig"), yaml.BaseLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML file: {explain(error):.200}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{path} holds {options!r:.40}, expected lines of `option: value`")
    known = sorted(set(known) - {"config"})
    return {_name(path, key, known): _value(path, key, value) for key, value in options.items()}


def _name(path: Path, key, known: list[str]) -> str:
    name = current_name(str(key).replace("-", "_"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise ValueError(
            f"{path} has an unknown option {key!r:.60}; "
            + (f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}")
        )
    return name


def _value(path: Path, key, value):
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ",".join(value)
    if not isinstance(value, str) or value in ("", "~", "null"):
        raise ValueError(
            f"{path}: {key} is {value!r:.60}, expected a number, text or list of texts"
        )
    return value
