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

import importlib.util
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, send_to_device
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from perco_lite.files import write_whole
from perco_lite.training.checkpoint import (
    Counter,
    TrainingLog,
    beside,
    candidates,
    fresh_folder,
    misfit,
    put_in_place,
    settle,
)
from perco_lite.training.muon import build_optimizer
from perco_lite.training.settings import CHOICES, TrainingSettings


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
    if first >= settings.steps and not run.finished():
        run.save()  # killed after its last checkpoint, before its weights
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
        self.counter = Counter(settings)
        self.accelerator.register_for_checkpointing(self.ema, self.counter)

    def resume(self) -> None:
        """Go on where the last whole checkpoint is, if any; ValueError where none of them fits."""
        used = problem = None
        for folder in candidates(self.checkpoint):
            try:
                self.accelerator.load_state(str(folder))
                used = folder
                break
            except Exception as error:  # of a file that was cut, a dozen kinds
                problem = problem or misfit(folder, self.counter, error)
        if problem and not used:
            raise problem
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            settle(self.checkpoint, used)
            settle(self.output / "weights")
            if problem:
                warnings.warn(f"{problem}; going on from the one before it", stacklevel=3)
            elif changed := self.counter.changed():
                warnings.warn(
                    f"going on at step {self.counter.step} with other options: {changed}; to begin "
                    "anew, name another output with -o",
                    stacklevel=3,
                )
        self.accelerator.wait_for_everyone()
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
        weights, module = self.output / "weights", self.stage.module
        module.to(memory_format=torch.contiguous_format)  # safetensors writes no other
        if self.accelerator.is_main_process:
            shutil.rmtree(beside(self.checkpoint, "old"), ignore_errors=True)  # two, never three
        with fresh_folder(self.checkpoint) as fresh:
            self.accelerator.save_state(str(fresh))
            self.accelerator.wait_for_everyone()  # each process has written its part
            if self.accelerator.is_main_process:
                put_in_place(self.checkpoint)
        if self.accelerator.is_main_process:
            self.ema.store(self.trained)
            self.ema.copy_to(self.trained)
            module.eval()
            with fresh_folder(weights) as fresh:
                self.stage.export(fresh)
                put_in_place(weights)
            shutil.rmtree(beside(weights, "old"), ignore_errors=True)
            self.stage.preview(self.output / "preview.png")
            module.train()
            self.ema.restore(self.trained)
        module.to(memory_format=torch.channels_last)
        self.accelerator.wait_for_everyone()

    def finished(self) -> bool:
        """Whether the last step was taken and its weights are written: the summary comes after."""
        steps = None
        with suppress(OSError, ValueError, TypeError, KeyError):
            steps = json.loads((self.output / "summary.json").read_bytes())["steps"]
        # rank 0 has the file, and all must agree
        return broadcast_object_list([steps == self.counter.step])[0]

    def finish(self) -> dict:
        """Write what the run came to, and return it."""
        summary = {
            "steps": self.counter.step,
            "samples": self.counter.step * self.settings.batch_size,
            "seconds": round(self.counter.seconds, 1),
            "device": str(self.accelerator.device),
            "processes": self.accelerator.num_processes,
            "settings": self.counter.settings,
        }
        if self.accelerator.is_main_process:
            write_whole(self.output / "summary.json", json.dumps(summary, indent=1).encode())
            if self.counter.step >= self.settings.steps:
                for suffix in ("old", "damaged"):
                    shutil.rmtree(beside(self.checkpoint, suffix), ignore_errors=True)
        self.accelerator.end_training()
        return summary


def _check(settings: TrainingSettings) -> None:
    for name, known in CHOICES.items():
        if (value := getattr(settings, name)) not in known:
            raise ValueError(f"{name} is {value!r:.60}, expected one of {', '.join(known)}")
    for one in fields(settings):
        least, value = one.metadata.get("min"), getattr(settings, one.name)
        if least is not None and value is not None and value < least:
            raise ValueError(f"{one.name} is {value}, expected at least {least}")
    if settings.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "TensorBoard is not installed: pip install 'perco_lite[train]', or leave --tensorboard "
            "out; log.csv has the same numbers"
        )
