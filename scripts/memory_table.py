"""Write the table of docs/full_scale.md: what fits on which card, computed from shapes.

python scripts/memory_table.py    (a minute on a laptop; needs the extra train, no GPU, no download)
"""

from collections.abc import Callable
from pathlib import Path

import yaml

from perco_lite.full_scale import memory, run_config

FILE = Path(__file__).parents[1] / "docs" / "full_scale.md"
START, END = "<!-- memory table -->\n", "<!-- end -->\n"
CARDS = (8, 16, 24, 80)
PROCESSES = {"paper": 8}  # the others are for one GPU


def decoding(height: int, width: int, bytes_each: int) -> Callable[[], memory.Need]:
    return lambda: memory.decoding_need(memory.build_parts(), height, width, bytes_each)


def training(config: str, **changes) -> Callable[[], memory.Need]:
    """A shipped config, with changes, as one process of it sees it."""
    options = yaml.safe_load((run_config.FOLDER / f"{config}.yaml").read_text(encoding="utf-8"))
    options |= changes
    passes = options["accumulation"] * PROCESSES.get(config, 1)
    return lambda: memory.training_need(
        memory.build_parts(),
        options["layers"],
        options.get("lora_rank", 16),
        options["batch_size"] // passes,
        options["crop"],
        options["gradient_checkpointing"],
        options.get("optimizer", "adamw"),
    )


JOBS = {
    "decode 768×512, `--dtype float16`": decoding(512, 768, 2),
    "decode 768×512": decoding(512, 768, 4),
    "decode 1024×1024, or larger in tiles, `--dtype float16`": decoding(1024, 1024, 2),
    "decode 1024×1024, or larger in tiles": decoding(1024, 1024, 4),
    "train `t4`": training("t4"),
    "train `t4 --crop 64`": training("t4", crop=64),
    "train `single-gpu --optimizer adamw8bit`": training("single-gpu", optimizer="adamw8bit"),
    "train `single-gpu`": training("single-gpu"),
    "train `single-gpu --layers all`": training("single-gpu", layers="all"),
    "train `paper`, each of 8 GPUs": training("paper"),
    "train `paper --gradient-checkpointing`, each of 8": training(
        "paper", gradient_checkpointing=True
    ),
}


def row(name: str, need: memory.Need) -> str:
    """One line of the table."""
    fits = " | ".join("yes" if need.fits(card) else "no" for card in CARDS)
    gib = (need.weights / memory.GIB, need.working / memory.GIB, need.gib)
    return f"| {name} | " + " | ".join(f"{number:.1f}" for number in gib) + f" | {fits} |"


def main() -> None:
    head = ["| job | weights | pass | GiB in all | " + " | ".join(f"{c} GB" for c in CARDS) + " |"]
    head.append("|---" * (4 + len(CARDS)) + "|")
    table = "\n".join(head + [row(name, job()) for name, job in JOBS.items()]) + "\n"
    before, rest = FILE.read_text(encoding="utf-8").split(START)
    _, after = rest.split(END, 1)
    FILE.write_text(before + START + table + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
