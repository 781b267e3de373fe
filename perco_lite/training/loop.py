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

import csv
import importlib.util
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, send_to_device
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from perco_lite import __version__
from perco_lite.files import explain
from perco_lite.training.muon import build_optimizer
from perco_lite.training.settings import OPTIMIZERS, SCHEDULES, TrainingSettings


class Stage(Protocol):
    """What a stage brings: a module, its batches, and what to write for people to use and see."""

    module: nn.Module  # module(**batch) -> losses; "loss" is what is minimised

    # ``number``: which pass of the step; what a loss wants to know of the step is in its batch
    def batch(self, step: int, count: int, generator: torch.Generator, number: int) -> dict: ...

    def export(self, folder: Path) -> None: ...

    def preview(self, path: Path) -> None: ...


def learning_rate_factor(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then half a cosine down to 0 at the last step, or 1; in [0,1]."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.lr_schedule == "constant":
        return 1.0
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def step_seed(seed: int, step: int, part: int) -> int:
    """One seed per (run, step, part of the batch); the primes keep neighbours far apart."""
    return (seed * 1_000_003 + step * 7919 + part * 104_729 + 1) % (2**63)


def train(stage: Stage, settings: TrainingSettings) -> dict:
    """Run or resume one stage; returns the summary that is also written to ``summary.json``.

    Writes under ``settings.output``: ``log.csv`` (every step's losses), ``checkpoint/`` (model,
    optimizer, EMA), ``weights/`` (EMA weights, what one uses), ``preview.png``. Raises ValueError
    for settings that do not go together and for a checkpoint of another training,
    FloatingPointError for a loss that is not finite.
    """
    _check(settings)
    run = _Run(stage, settings)
    run.resume()
    first, before = run.counter.step, run.counter.seconds
    log = TrainingLog(run.output / "log.csv", first, run.accelerator)
    started = saved = time.monotonic()
    with tqdm(
        total=settings.steps,
        initial=first,
        unit="step",
        dynamic_ncols=True,
        disable=not run.accelerator.is_main_process,
        mininterval=2,
    ) as bar:
        for row in run.steps():
            elapsed = time.monotonic() - started
            run.counter.seconds = before + elapsed
            log.write({"step": 0, "seconds": round(run.counter.seconds, 2), **row})
            bar.update()
            speed = settings.batch_size * (run.counter.step - first) / elapsed
            bar.set_postfix(loss=f"{row['loss']:.4f}", per_s=f"{speed:.1f}", refresh=False)
            out_of_time = settings.minutes and elapsed > 60 * settings.minutes
            due = time.monotonic() - saved > 60 * settings.checkpoint_minutes
            # rank 0's clock decides, or one rank would save while another waits for gradients
            due, out_of_time = broadcast_object_list([due, out_of_time])
            if due or out_of_time or run.counter.step == settings.steps:
                run.save()
                saved = time.monotonic()
            if out_of_time:
                break
    return run.finish()


class _Run:
    """One training: what is trained and averaged, how far it is, and where it is kept."""

    def __init__(self, stage: Stage, settings: TrainingSettings):
        self.stage, self.settings, self.output = stage, settings, Path(settings.output)
        self.output.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.output / "checkpoint"
        self.accelerator = Accelerator(
            mixed_precision=settings.mixed_precision,
            cpu=not torch.cuda.is_available(),
            log_with="tensorboard" if settings.tensorboard else None,
            project_dir=str(self.output),
            # the codec's first steps leave the U-Net out
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.parts = self.accelerator.num_processes * settings.accumulation
        if settings.accumulation < 1 or settings.batch_size % self.parts:
            raise ValueError(
                f"batch_size {settings.batch_size} does not divide over "
                f"{self.accelerator.num_processes} processes with accumulation "
                f"{settings.accumulation}; choose a multiple of both"
            )
        self.trained = [p for p in stage.module.parameters() if p.requires_grad]
        optimizer = build_optimizer(self.trained, settings)
        stage.module.to(memory_format=torch.channels_last)  # a CPU's convolutions gain an eighth
        self.module, self.optimizer = self.accelerator.prepare(stage.module, optimizer)
        ema = {"decay": settings.ema_decay, "use_ema_warmup": True, "power": 0.75, "foreach": True}
        self.ema = EMAModel(self.trained, **ema)
        self.counter = _Counter()
        self.accelerator.register_for_checkpointing(self.ema, self.counter)

    def resume(self) -> None:
        """Go on where the checkpoint is, if there is one; ValueError where it does not fit."""
        if self.checkpoint.exists():
            try:
                self.accelerator.load_state(str(self.checkpoint))
            except (RuntimeError, KeyError, ValueError) as error:
                # the counter is the second; 0.1.0's did not say who wrote it
                state = torch.load(self.checkpoint / "custom_checkpoint_1.pkl", weights_only=True)
                version = state.get("version", "0.1.0")
                raise ValueError(
                    f"{self.checkpoint} does not fit ({explain(error):.200}): it was written by "
                    f"perco_lite {version}, or with other options; go on with those, or with "
                    f"pip install perco_lite=={version}, or name another output with -o"
                ) from error
        self.ema.to(self.accelerator.device)  # its state comes back on the CPU
        # the steps after the checkpoint are about to be repeated
        purge = {"tensorboard": {"purge_step": self.counter.step + 1}}
        options = {"init_kwargs": purge} if self.settings.tensorboard else {}
        self.accelerator.init_trackers("tensorboard", **options)
        self.module.train()

    def steps(self) -> Iterator[dict]:
        """The training itself: takes a step, then yields its losses, and again."""
        settings, counter = self.settings, self.counter
        while counter.step < settings.steps:
            rate = settings.learning_rate * learning_rate_factor(counter.step, settings)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            passes = [self._learn(number) for number in range(settings.accumulation)]
            norm = self.accelerator.clip_grad_norm_(self.trained, settings.gradient_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.ema.step(self.trained)
            counter.step += 1
            # every process learns of a loss that is not finite, or one would wait for the others
            means = torch.stack([torch.stack([*losses.values()]) for losses in passes]).mean(0)
            means = self.accelerator.reduce(means, reduction="mean").tolist()
            losses = dict(zip(passes[0], means, strict=True))
            if not math.isfinite(losses["loss"]):
                raise FloatingPointError(
                    f"loss is {losses['loss']} at step {counter.step}; lower the learning rate and "
                    f"run again: training resumes from {self.checkpoint}"
                )
            yield {"step": counter.step, "lr": rate, "grad_norm": float(norm), **losses}

    def _learn(self, number: int) -> dict[str, Tensor]:
        """Gradients of one pass of a step, and its losses."""
        accelerator, settings, step = self.accelerator, self.settings, self.counter.step
        part = number * accelerator.num_processes + accelerator.process_index
        seed = step_seed(settings.seed, step, part)
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        batch = self.stage.batch(step, settings.batch_size // self.parts, generator, number)
        batch = send_to_device(batch, accelerator.device)
        last = number == settings.accumulation - 1
        # what learns by moving averages, and not by gradients, waits for the whole batch
        for module in self.stage.module.modules():
            if hasattr(module, "hold"):
                module.hold = not last
        with nullcontext() if last else accelerator.no_sync(self.module):
            with accelerator.autocast():
                losses = self.module(**batch)
            accelerator.backward(losses["loss"] / settings.accumulation)
        return {name: value.detach().float() for name, value in losses.items()}

    def save(self) -> None:
        """Write everything beside its place first, then rename: a cut never leaves half a file."""
        fresh, module = self.checkpoint.with_name("checkpoint.new"), self.stage.module
        module.to(memory_format=torch.contiguous_format)  # safetensors writes no other
        self.accelerator.save_state(str(fresh))
        self.accelerator.wait_for_everyone()  # each process has written its part
        if self.accelerator.is_main_process:
            _replace_folder(fresh, self.checkpoint)
            self.ema.store(self.trained)
            self.ema.copy_to(self.trained)
            module.eval()
            weights = self.output / "weights.new"
            self.stage.export(weights)
            _replace_folder(weights, self.output / "weights")
            self.stage.preview(self.output / "preview.png")
            module.train()
            self.ema.restore(self.trained)
        module.to(memory_format=torch.channels_last)
        self.accelerator.wait_for_everyone()

    def finish(self) -> dict:
        """Write what the run came to, and return it."""
        summary = {
            "steps": self.counter.step,
            "samples": self.counter.step * self.settings.batch_size,
            "seconds": round(self.counter.seconds, 1),
            "device": str(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "settings": {
                n: str(v) if isinstance(v, Path) else v for n, v in asdict(self.settings).items()
            },
        }
        if self.accelerator.is_main_process:
            (self.output / "summary.json").write_text(json.dumps(summary, indent=1))
        self.accelerator.end_training()
        return summary


class TrainingLog:
    """``log.csv``, one row a step, and the trackers of an accelerator; silent but on rank 0.

    Steps after ``step`` are about to be repeated, so their rows are dropped first.
    """

    def __init__(self, path: Path, step: int, accelerator: Accelerator):
        self.accelerator, self.path = accelerator, path
        if accelerator.is_main_process and path.exists() and path.stat().st_size:
            header, *rows = path.read_text().splitlines()
            kept = [row for row in rows if int(row.split(",")[0]) <= step]
            path.write_text("\n".join([header, *kept]) + "\n")

    def write(self, row: dict) -> None:
        """Append a row; the first one's names are the header."""
        self.accelerator.log({n: v for n, v in row.items() if n != "step"}, step=row["step"])
        if not self.accelerator.is_main_process:
            return
        fresh = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(row)
            writer.writerow(f"{v:.6g}" if isinstance(v, float) else v for v in row.values())


def _check(settings: TrainingSettings) -> None:
    for name, known in (("lr_schedule", SCHEDULES), ("optimizer", OPTIMIZERS)):
        if (value := getattr(settings, name)) not in known:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "TensorBoard is not installed: pip install 'perco_lite[train]', or leave --tensorboard "
            "out; log.csv has the same numbers"
        )


def _replace_folder(fresh: Path, place: Path) -> None:
    old = place.with_name(place.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


class _Counter:
    """Steps and seconds so far, saved with the checkpoint, and the version that counted."""

    def __init__(self):
        self.step, self.seconds = 0, 0.0

    def state_dict(self) -> dict:
        return {"step": self.step, "seconds": self.seconds, "version": __version__}

    def load_state_dict(self, state: dict) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
