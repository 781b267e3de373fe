"""What the commands share around a codec: loading it, decoding many files, describing it.

weights, device ──► load_codec ──► PercoCodec ──► decompress_files ──► PNG files, one row each
"""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from perco_lite.bitstream import unpack
from perco_lite.codec import BUNDLED, DEFAULT_GUIDANCE, PercoCodec, group_by_size

SAMPLERS = ("ddim", "dpm++")


def load_codec(weights: str | None = None, device: str | None = None) -> PercoCodec:
    """Load bundled or other weights onto a device (default: CUDA where there is one), silently."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    codec = PercoCodec.from_pretrained(weights)
    codec.set_progress_bar_config(disable=True)
    return codec.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def set_sampler(codec: PercoCodec, name: str) -> None:
    """Swap the scheduler; ValueError for a name not in SAMPLERS."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}, expected one of {', '.join(SAMPLERS)}")
    kind = DDIMScheduler if name == "ddim" else DPMSolverMultistepScheduler
    codec.scheduler = kind.from_config(codec.scheduler.config)


def decompress_files(
    codec: PercoCodec,
    paths: list[Path],
    targets: list[Path],
    steps: int = 20,
    guidance: float | None = None,
    seeds: list[int] = (0,),
    on_error: Callable[[Path, Exception], None] | None = None,
) -> Iterator[dict]:
    """Decode files to PNGs, one per seed; files of equal size share U-Net calls.

    Yields a row per picture: file, output, seed, width, height, seconds (of its group, shared out
    evenly). A file that cannot be decoded goes to ``on_error`` and the others still run.
    """
    items = []
    for path, target in zip(paths, targets, strict=True):
        try:
            data = path.read_bytes()
            parsed = unpack(data, codec.model_id)
            codec.conditioner.branch(parsed.rate.name)
        except (OSError, ValueError) as error:
            if on_error is None:
                raise
            on_error(path, error)
            continue
        for seed in seeds:
            name = target if len(seeds) == 1 else target.with_stem(f"{target.stem}_seed{seed}")
            items.append((path, name, seed, data, parsed))
    for group in group_by_size([item[4] for item in items]):
        chosen = [items[i] for i in group]
        started = time.monotonic()
        try:
            images = codec.decompress(
                [item[3] for item in chosen],
                steps,
                DEFAULT_GUIDANCE if guidance is None else guidance,
                seed=[item[2] for item in chosen],
            )
        except (MemoryError, RuntimeError, ValueError) as error:
            if on_error is None:
                raise
            for item in chosen:
                on_error(item[0], error)
            continue
        seconds = (time.monotonic() - started) / len(group)
        for (path, name, seed, _, parsed), image in zip(chosen, images, strict=True):
            save_png(image, name)
            yield {
                "file": str(path),
                "output": str(name),
                "seed": seed,
                "width": parsed.width,
                "height": parsed.height,
                "seconds": round(seconds, 3),
            }


def save_png(image, path: Path) -> None:
    """Write a PNG beside its place, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".part")
    image.save(fresh, format="PNG")
    fresh.replace(path)


def describe_installation(weights: str | None = None) -> dict[str, str]:
    """Versions, device, and the weights: folder, size, parameters, SHA-256, model id."""
    facts = {"python": platform.python_version(), "machine": device_name()}
    for package in ("perco_lite", "torch", "diffusers", "transformers", "accelerate", "Pillow"):
        facts[package] = version(package)
    facts["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    facts["threads"] = str(torch.get_num_threads())
    folder = Path(weights) if weights else BUNDLED
    files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    if not files:
        facts["weights"] = f"none in {folder}"
        return facts
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    codec = load_codec(weights, "cpu")
    modules = (codec.autoencoder, codec.conditioner, codec.unet, codec.text_encoder)
    everything = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    facts["weights"] = str(folder)
    facts["size"] = f"{everything / 2**20:.1f} MiB"
    facts["parameters"] = f"{sum(p.numel() for m in modules for p in m.parameters()):,}"
    facts["sha256"] = digest.hexdigest()
    facts["model id"] = f"{codec.model_id:#06x}"
    facts["rates"] = ", ".join(codec.rates)
    return facts


def device_name() -> str:
    """Name of the processor or GPU, for every figure that depends on it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if cpuinfo.exists():
        names = [x.split(":")[1] for x in cpuinfo.read_text().splitlines() if "model name" in x]
        name = names[0].strip() if names else name
    return f"{name}, {torch.get_num_threads()} threads"
