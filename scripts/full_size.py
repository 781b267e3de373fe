"""Stable Diffusion 2.1's real sizes on this machine, with random weights: seconds and memory.

    python scripts/full_size.py                   real sizes: 24 GiB of memory, 25 GB of disk
    python scripts/full_size.py --sizes tiny      the same stages in seconds, to try them out
    python scripts/full_size.py --dtype bfloat16  half the memory; slow where a CPU has none

    build ──► sd/        a checkpoint in the hub's layout, random weights
    codec ──► codec/     PercoCodec.from_stable_diffusion, saved
    load, compress ──► one.perco, of 768×512
    denoise              one step with guidance (seconds), and the VAE's decoder (whole_seconds)
    train                one step of LoRA on a crop of 256×256, by the real training

Each stage is a process of its own, so that its peak memory is its own; what is finished is not run
again. Writes out/full_size/report.json; `python scripts/pages.py full_size` puts it into
docs/full_scale.md beside what `memory` computed. Random weights paint noise: nothing but seconds
and bytes is learned.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RATE, CAPTION = "0.0313", "a red barn beside a pond"
STAGES = ("build", "codec", "load", "compress", "denoise", "train")
GIB = 2**30


def sizes(name: str) -> dict[str, dict]:
    """Configs of the parts, as `memory.build_parts` and `random_stable_diffusion` take them."""
    from perco_lite.full_scale import memory, tiny_checkpoint

    if name == "full":
        return {"unet": memory.UNET, "vae": memory.VAE, "text": memory.TEXT, "conditioner": {}}
    small = {"width": 8, "features": 16}
    tiny = {"unet": tiny_checkpoint.UNET, "vae": tiny_checkpoint.VAE, "conditioner": small}
    return tiny | {"text": {**tiny_checkpoint.TEXT, "vocab_size": 128}}


def photo(width: int, height: int):
    """One of scikit-image's, cut to size."""
    from PIL import ImageOps

    from perco_lite.data import skimage_photos

    return ImageOps.fit(skimage_photos()[0].image, (width, height))


def load(work: Path, dtype: str):
    from perco_lite.loading import load_codec

    return load_codec(str(work / "codec"), "cpu", dtype)


def build(work: Path, name: str, dtype: str) -> dict:
    import torch

    from perco_lite.full_scale.tiny_checkpoint import random_stable_diffusion

    shutil.rmtree(work / "sd", ignore_errors=True)
    of = sizes(name)
    parts = of["unet"], of["vae"], of["text"]
    random_stable_diffusion(work / "sd", *parts, dtype=getattr(torch, dtype))
    return {"on_disk_gib": on_disk(work / "sd")}


def codec(work: Path, name: str, dtype: str) -> dict:
    import torch

    from perco_lite.full_scale.stable_diffusion import build_sd_codec

    shutil.rmtree(work / "codec", ignore_errors=True)
    options = {"dtype": getattr(torch, dtype), "conditioner": sizes(name)["conditioner"]}
    build_sd_codec(work / "sd", (RATE,), **options).save_pretrained(work / "codec")
    return {"on_disk_gib": on_disk(work / "codec")}


def load_stage(work: Path, name: str, dtype: str) -> dict:
    from perco_lite.full_scale.memory import count_parameters

    parts = load(work, dtype).components.values()
    return {"parameters": sum(count_parameters(p) for p in parts if hasattr(p, "parameters"))}


def compress(work: Path, name: str, dtype: str) -> dict:
    codec = load(work, dtype)
    started = time.perf_counter()
    data = codec.compress(photo(768, 512), CAPTION, RATE)
    seconds = time.perf_counter() - started
    (work / "one.perco").write_bytes(data)
    return {"seconds": seconds, "bytes": len(data)}


def denoise(work: Path, name: str, dtype: str) -> dict:
    codec = load(work, dtype)
    passes, run = [], codec.unet.forward

    def timed(*arguments, **options):
        started = time.perf_counter()
        result = run(*arguments, **options)
        passes.append(time.perf_counter() - started)
        return result

    codec.unet.forward = timed
    started = time.perf_counter()
    picture = codec.decompress((work / "one.perco").read_bytes(), num_inference_steps=1)
    whole = time.perf_counter() - started
    assert picture.size == (768, 512) and len(passes) == 1  # guidance: both halves in one pass
    return {"seconds": passes[0], "whole_seconds": whole, "computed_gib": computed(name, dtype)}


def computed(name: str, dtype: str) -> float:
    """What ``memory`` says of decoding."""
    from perco_lite.full_scale import memory

    parts = memory.build_parts((RATE,), **sizes(name))
    return memory.decoding_need(parts, 512, 768, 2 if dtype == "bfloat16" else 4).gib


def train(work: Path, name: str, dtype: str) -> dict:
    from perco_lite.full_scale import memory, training
    from perco_lite.training import loop

    step_peaks, save = [], loop._Run.save
    loop._Run.save = lambda run: step_peaks.append(peak_gib()) or save(run)
    training.preview_sheet = lambda codec, path: None  # pictures of noise, for many minutes
    shutil.rmtree(work / "train", ignore_errors=True)
    (work / "photos").mkdir(exist_ok=True)
    photo(256, 256).save(work / "photos" / "one.png")
    small = {"crop": 32, "batch_size": 1, "steps": 1, "warmup_steps": 0, "lora_rank": 16}
    how = {"layers": "lora", "rates": RATE, "perceptual_weight": 0.0, "text_dropout": 1.0}
    how |= {"gradient_checkpointing": True}
    how |= {"mixed_precision": "bf16" if dtype == "bfloat16" else "no"}
    where = str(work / "sd"), str(work / "photos"), work / "train"
    try:
        made = training.train_base_recipe(*where, **small, **how)
    finally:
        loop._Run.save = save
    parts = memory.build_parts((RATE,), **sizes(name))
    need = memory.training_need(parts, "lora", 16, 1, 32, gradient_checkpointing=True)
    peak = {"step_peak_gib": step_peaks[0]}  # before weights are saved, which copies them
    return {"seconds": made["seconds"], "computed_gib": need.gib, **peak}


def on_disk(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / GIB


def run_stage(stage: str, work: Path, name: str, dtype: str) -> dict:
    """Run one stage in this process: seconds (its own, or of what it timed) and peak memory."""
    function = {"load": load_stage}.get(stage) or globals()[stage]
    import torch  # noqa: F401 - its seconds are nobody's

    import perco_lite.full_scale.stable_diffusion  # noqa: F401

    started = time.perf_counter()
    result = function(work, name, dtype)
    whole = time.perf_counter() - started
    return {"seconds": whole, "whole_seconds": whole, **result, "peak_gib": peak_gib()}


def peak_gib() -> float:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / GIB if sys.platform == "darwin" else peak * 1024 / GIB


def text(report: dict) -> str:
    """The report as lines for a terminal."""
    lines = [f"{report['machine']}, {report['sizes']} sizes, {report['dtype']}"]
    for stage, row in report["stages"].items():
        beside = f", computed {row['computed_gib']:.1f}" if "computed_gib" in row else ""
        lines.append(f"{stage:9}{row['seconds']:9.1f} s   peak {row['peak_gib']:.1f} GiB{beside}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 1 where a stage failed; its last words are told."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", choices=("full", "tiny"), default="full")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("-o", "--output", type=Path, default=Path("out/full_size"))
    parser.add_argument("--keep", action="store_true", help="leave the weights on disk")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)  # in a child process
    options = parser.parse_args(arguments)
    how = options.sizes, options.dtype
    if options.stage:
        result = run_stage(options.stage, options.output, *how)
        (options.output / f"{options.stage}.json").write_text(json.dumps(result))
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    path, report = options.output / "report.json", {}
    if path.exists():
        report = json.loads(path.read_text(encoding="utf-8"))
    if (report.get("sizes"), report.get("dtype")) != how:
        from perco_lite.loading import device_name

        report = {"sizes": how[0], "dtype": how[1], "machine": device_name(), "stages": {}}
    for stage in STAGES:
        if stage in report["stages"]:
            continue
        command = [sys.executable, __file__, "-o", str(options.output), "--stage", stage]
        done = subprocess.run([*command, "--sizes", how[0], "--dtype", how[1]])
        if done.returncode:
            print(f"{stage} failed (exit code {done.returncode})", file=sys.stderr)
            return 1
        made = options.output / f"{stage}.json"
        report["stages"][stage] = json.loads(made.read_text(encoding="utf-8"))
        made.unlink()
        path.write_text(json.dumps(report, indent=1), encoding="utf-8")
    if not options.keep:
        for name in ("sd", "codec", "train"):
            shutil.rmtree(options.output / name, ignore_errors=True)
    print(text(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
