"""docs/full_scale.md: what fits on which card, and what a CPU was measured to need.

`python scripts/pages.py memory` and `full_size` fill it.
"""

from pathlib import Path

from page_parts import ROOT, fill, read_json, table

MEMORY_PAGE = ROOT / "docs" / "full_scale.md"

# --- what fits on which card ---

CARDS = (8, 16, 24, 80)
PROCESSES = {"paper": 8}  # the others are for one GPU


def decoding(height: int, width: int, bytes_each: int):
    from perco_lite.full_scale import memory

    return memory.decoding_need(memory.build_parts(), height, width, bytes_each)


def training(config: str, **changes):
    """A shipped config, with changes, as one process of it sees it."""
    import yaml

    from perco_lite.full_scale import memory, run_config

    options = yaml.safe_load((run_config.FOLDER / f"{config}.yaml").read_text(encoding="utf-8"))
    options |= changes
    passes = options["accumulation"] * PROCESSES.get(config, 1)
    batch, rank = options["batch_size"] // passes, options.get("lora_rank", 16)
    crop = options["crop"], options["gradient_checkpointing"], options.get("optimizer", "adamw")
    return memory.training_need(memory.build_parts(), options["layers"], rank, batch, *crop)


JOBS = {
    "decode 768×512, `--dtype float16`": lambda: decoding(512, 768, 2),
    "decode 768×512": lambda: decoding(512, 768, 4),
    "decode 1024×1024, or larger in tiles, `--dtype float16`": lambda: decoding(1024, 1024, 2),
    "decode 1024×1024, or larger in tiles": lambda: decoding(1024, 1024, 4),
    "train `t4`": lambda: training("t4"),
    "train `t4 --crop 64`": lambda: training("t4", crop=64),
    "train `single-gpu --optimizer adamw8bit`": lambda: training(
        "single-gpu", optimizer="adamw8bit"
    ),
    "train `single-gpu`": lambda: training("single-gpu"),
    "train `single-gpu --layers all`": lambda: training("single-gpu", layers="all"),
    "train `paper`, each of 8 GPUs": lambda: training("paper"),
    "train `paper --gradient-checkpointing`, each of 8": lambda: training(
        "paper", gradient_checkpointing=True
    ),
}


def card_row(name: str, need) -> list[str]:
    """One line of the table; ``need``: a ``memory.Need``."""
    numbers = (need.weights / 2**30, need.working / 2**30, need.gib)
    fits = ["yes" if need.fits(card) else "no" for card in CARDS]
    return [name, *(f"{number:.1f}" for number in numbers), *fits]


def memory() -> None:
    head = ["job", "weights", "pass", "GiB in all", *(f"{card} GB" for card in CARDS)]
    rows = [card_row(name, job()) for name, job in JOBS.items()]
    fill(MEMORY_PAGE, "memory table", table(head, rows))


# --- Stable Diffusion's real sizes, measured ---

MEASURED = {  # stage of scripts/full_size.py: what it is
    "build": "build a checkpoint with random weights, save it",
    "codec": "build the codec around it, save it",
    "load": "load the codec",
    "compress": "compress 768×512",
    "denoise": "one denoising step with guidance, 768×512",
    "train": "one LoRA step, 256×256, batch 1",
}


def full_size_text(report: dict) -> str:
    """Seconds and peak memory of each stage, beside what was computed."""
    rows = []
    for stage, row in report["stages"].items():
        computed = f"{row['computed_gib']:.1f}" if "computed_gib" in row else ""
        seconds = f"{row['seconds']:.1f}"
        peak = f"{row['peak_gib']:.1f}"
        if "step_peak_gib" in row:
            peak = f"{row['step_peak_gib']:.1f}; {peak} when it saves"
        rows.append([MEASURED[stage], seconds, peak, computed])
    head = ["job", "seconds", "peak GiB of the process, measured", "GiB computed"]
    whole = report["stages"].get("denoise", {}).get("whole_seconds")
    below = f"Measured on {report['machine']}, {report['sizes']} sizes, {report['dtype']}"
    below += f"; the whole of decoding in one step: {whole:.1f} s" if whole else ""
    return f"{table(head, rows)}\n\n{below}. The process's peak has Python and libraries in it."


def full_size(path: str | Path = ROOT / "out" / "full_size" / "report.json") -> None:
    fill(MEMORY_PAGE, "full size", full_size_text(read_json(path)))
