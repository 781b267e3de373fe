"""What `perco info` says: versions, device, and the weights with their hash."""

import hashlib
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from perco_lite import __version__, loading
from perco_lite.captioning.captioner import BUNDLED, FILE
from perco_lite.files import PARTS
from perco_lite.loading import device_name, find_device, weights_digest
from perco_lite.sampling import choose_steps

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "Pillow")


def describe_installation(weights: str | None = None) -> dict[str, str]:
    """Versions, device, and the weights: folder, size, parameters, SHA-256, model id."""
    facts = {"python": platform.python_version(), "machine": device_name()}
    facts |= {"perco_lite": __version__} | {name: version(name) for name in PACKAGES}
    facts |= {"device": str(find_device()), "threads": str(torch.get_num_threads())}
    folder = loading.BUNDLED if weights is None else Path(weights)
    own = {part: folder / part for part in PARTS}  # the captioner beside them is none of these
    files = sorted(file for part in own.values() for file in part.glob("*.safetensors"))
    if weights is None and not files:
        return facts | {"weights": f"none in {folder}"}
    codec = loading.load_codec(weights, "cpu")
    facts["weights"] = str(weights or folder)
    if files:  # weights from the hub are in its cache
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
        everything = [file for part in own.values() for file in part.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in [*everything, *folder.glob("*.*")])
        facts |= {"size": f"{size / 2**20:.1f} MiB", "sha256": digest.hexdigest()}
    modules = [m for m in codec.components.values() if isinstance(m, torch.nn.Module)]
    facts["parameters"] = f"{sum(p.numel() for m in modules for p in m.parameters()):,}"
    facts["weights digest"] = weights_digest(codec)
    facts["model id"] = f"{codec.model_id:#06x}"
    steps = {name: choose_steps(codec.config.few_steps, name) for name in codec.rates}
    few = {name: f"fast, {len(own)}" for name, own in steps.items() if not isinstance(own, int)}
    facts["steps"] = ", ".join(
        f"{name}: {few.get(name, f'paper, {steps[name]}')}" for name in steps
    )
    captioner = BUNDLED / FILE
    size = f"{captioner.stat().st_size / 2**20:.1f} MiB" if captioner.is_file() else "none"
    return facts | {"rates": ", ".join(codec.rates), "captioner": size}
