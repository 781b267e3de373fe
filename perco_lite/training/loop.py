"""The training loop both stages share: accelerate, EMA, cosine decay, checkpoints, exact resume.

    stage.batch(step) ──► stage.module(**batch) ──► losses["loss"] ──► AdamW ──► EMA
                 every few minutes: checkpoint/ (to resume), weights/ (to use), preview.png, log.csv

Everything random in a step (photos, crops, noise) is drawn from a generator seeded by
(seed, step, part), so a resumed run repeats the uninterrupted one exactly without having to
save the state of a data loader. A batch has a part for every process and every pass of gradient
accumulation: two processes draw, and learn, what one process draws in two passes.

Paper: PerCo, Sec. 4.1 (AdamW, weight decay 0.01, linear warm-up).
Differs from the paper: cosine decay after the warm-up, since our runs are short.
"""

import json
import math
import shutil
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from perco_lite.training.muon import Muon
from perco_lite.training.training_log import TrainingLog, require_tensorboard

# "adamw8bit" keeps its averages in a quarter of the memory, "muon" needs fewer steps
OPTIMIZERS = ("adamw", "adamw8bit", "muon")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one run; ``steps`` fixes the schedule, ``minutes`` only a slice of it."""

    output: str
    steps: int = 1000
    minutes: float | None = None  # stop after this long with a checkpoint; run again to go on
    batch_size: int = 16  # over all processes and passes
    accumulation: int = 1  # passes a step: less memory, the same step
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    checkpoint_minutes: float = 5.0
    mixed_precision: str = "no"  # "bf16" on a GPU; most CPUs are slower in it than in float32
    decay: str = "cosine"  # after the warm-up; "constant" leaves the learning rate as it is
    optimizer: str = "adamw"  # or one of OPTIMIZERS
    tensorboard: bool = False


class Stage(Protocol):
    """What a stage brings: a module, its batches, and what to write for people to use and see."""

    module: nn.Module  # module(**batch) -> losses; "loss" is what is minimised

    def batch(self, step: int, count: int, generator: torch.Generator) -> dict[str, Tensor]: ...

    def export(self, folder: Path) -> None: ...

    def preview(self, path: Path) -> None: ...


def learning_rate_factor(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine down to 0 at the last step, or 1; in [0,1]."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return 1.0
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimizer(parameters: list[nn.Parameter], settings: TrainingSettings):
    """One of OPTIMIZERS; ImportError names the extra where 8-bit AdamW is not installed."""
    options = {"lr": settings.learning_rate, "betas": (0.9, 0.99)}
    options |= {"weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options)
    if settings.optimizer == "muon":
        return Muon(parameters, **options)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ImportError(
            "8-bit AdamW needs bitsandbytes: pip install 'perco_lite[train]', or train with "
            "--optimizer adamw, which takes six bytes more per trained weight"
        ) from error
    return AdamW8bit(parameters, **options)


def step_seed(seed: int, step: int, part: int) -> int:
    """One seed per (run, step, part of the batch); the primes keep neighbours far apart."""
    return (seed * 1_000_003 + step * 7919 + part * 104_729 + 1) % (2**63)


def train(stage: Stage, settings: TrainingSettings) -> dict:
    """Run or resume one stage; returns the summary that is also written to ``summary.json``.

    Writes under ``settings.output``: ``log.csv`` (every step's losses), ``checkpoint/`` (model,
    optimizer, EMA), ``weights/`` (EMA weights, what one uses), ``preview.png``.
    """
    _check(settings)
    output = Path(settings.output)
    output.mkdir(parents=True, exist_ok=True)
    precision = settings.mixed_precision
    accelerator = Accelerator(
        mixed_precision=precision,
        cpu=not torch.cuda.is_available(),
        log_with="tensorboard" if settings.tensorboard else None,
        project_dir=str(output),
        # the codec's first steps leave the U-Net out
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    parts = accelerator.num_processes * settings.accumulation
    if settings.accumulation < 1 or settings.batch_size % parts:
        raise ValueError(
            f"batch_size {settings.batch_size} does not divide over {accelerator.num_processes} "
            f"processes with accumulation {settings.accumulation}; choose a multiple of both"
        )
    trained = [p for p in stage.module.parameters() if p.requires_grad]
    optimizer = build_optimizer(trained, settings)
    stage.module.to(memory_format=torch.channels_last)  # a CPU's convolutions gain an eighth
    module, optimizer = accelerator.prepare(stage.module, optimizer)
    ema = EMAModel(trained, decay=settings.ema_decay, use_ema_warmup=True, power=0.75, foreach=True)
    ema.to(accelerator.device)
    # what learns by moving averages, and not by gradients, waits for the whole batch
    quantizers = [m for m in stage.module.modules() if hasattr(m, "hold")]
    counter = _Counter()
    accelerator.register_for_checkpointing(ema, counter)
    checkpoint = output / "checkpoint"
    if checkpoint.exists():
        accelerator.load_state(str(checkpoint))
        ema.to(accelerator.device)  # its state comes back on the CPU
    # the steps after the checkpoint are about to be repeated
    purge = {"tensorboard": {"purge_step": counter.step + 1}} if settings.tensorboard else {}
    accelerator.init_trackers("tensorboard", init_kwargs=purge)

    started = last_saved = time.monotonic()
    first_step, seconds_before = counter.step, counter.seconds
    module.train()
    bar = tqdm(
        total=settings.steps,
        initial=counter.step,
        unit="step",
        dynamic_ncols=True,
        disable=not accelerator.is_main_process,
        mininterval=2,
    )
    log = None
    if accelerator.is_main_process:
        log = TrainingLog(output / "log.csv", counter.step, accelerator)
    count = settings.batch_size // parts
    while counter.step < settings.steps:
        rate = settings.learning_rate * learning_rate_factor(counter.step, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        sums = 0.0
        for number in range(settings.accumulation):
            part = number * accelerator.num_processes + accelerator.process_index
            seed = step_seed(settings.seed, counter.step, part)
            torch.manual_seed(seed)
            batch = stage.batch(counter.step, count, torch.Generator().manual_seed(seed))
            batch = {k: v.to(accelerator.device) for k, v in batch.items()}
            last = number == settings.accumulation - 1
            for quantizer in quantizers:
                quantizer.hold = not last
            with nullcontext() if last else accelerator.no_sync(module):
                with accelerator.autocast():
                    losses = module(**batch)
                accelerator.backward(losses["loss"] / settings.accumulation)
            sums = sums + torch.stack([value.detach().float() for value in losses.values()])
        norm = accelerator.clip_grad_norm_(trained, settings.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(trained)
        counter.step += 1
        counter.seconds = seconds_before + time.monotonic() - started
        # every process learns of a loss that is not finite, or one would wait for the others
        means = accelerator.reduce(sums / settings.accumulation, reduction="mean").tolist()
        row = dict(zip(losses, means, strict=True))
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(
                f"loss is {row['loss']} at step {counter.step}; lower the learning rate and run "
                f"again: training resumes from {checkpoint}"
            )
        if log:
            log.write(
                {
                    "step": counter.step,
                    "seconds": round(counter.seconds, 2),
                    "lr": rate,
                    "grad_norm": float(norm),
                    **row,
                }
            )
        bar.update()
        elapsed = time.monotonic() - started
        speed = settings.batch_size * (counter.step - first_step) / elapsed
        bar.set_postfix(loss=f"{row['loss']:.4f}", per_s=f"{speed:.1f}", refresh=False)
        out_of_time = settings.minutes and elapsed > 60 * settings.minutes
        due = time.monotonic() - last_saved > 60 * settings.checkpoint_minutes
        # rank 0's clock decides, or one rank would save while another waits for its gradients
        due, out_of_time = broadcast_object_list([due, out_of_time])
        if due or out_of_time or counter.step == settings.steps:
            _save(accelerator, stage, ema, trained, checkpoint, output)
            last_saved = time.monotonic()
        if out_of_time:
            break
    bar.close()
    summary = {
        "steps": counter.step,
        "samples": counter.step * settings.batch_size,
        "seconds": round(counter.seconds, 1),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "settings": asdict(settings),
    }
    if accelerator.is_main_process:
        (output / "summary.json").write_text(json.dumps(summary, indent=1))
    accelerator.end_training()
    return summary


def _check(settings: TrainingSettings) -> None:
    for name, known in (("decay", ("cosine", "constant")), ("optimizer", OPTIMIZERS)):
        value = getattr(settings, name)
        if value not in known:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
    if settings.tensorboard:
        require_tensorboard()


def _save(accelerator, stage, ema, trained, checkpoint: Path, output: Path) -> None:
    """Write everything beside its place first, then rename: a cut never leaves half a file."""
    fresh = checkpoint.with_name("checkpoint.new")
    stage.module.to(memory_format=torch.contiguous_format)  # safetensors writes no other
    accelerator.save_state(str(fresh))
    accelerator.wait_for_everyone()  # each process has written its part
    if accelerator.is_main_process:
        _replace_folder(fresh, checkpoint)
        ema.store(trained)
        ema.copy_to(trained)
        stage.module.eval()
        weights = output / "weights.new"
        stage.export(weights)
        _replace_folder(weights, output / "weights")
        stage.preview(output / "preview.png")
        stage.module.train()
        ema.restore(trained)
    stage.module.to(memory_format=torch.channels_last)
    accelerator.wait_for_everyone()


def _replace_folder(fresh: Path, place: Path) -> None:
    old = place.with_name(place.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


class _Counter:
    """Steps and seconds so far, saved with the checkpoint."""

    def __init__(self):
        self.step, self.seconds = 0, 0.0

    def state_dict(self) -> dict:
        return {"step": self.step, "seconds": self.seconds}

    def load_state_dict(self, state: dict) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
