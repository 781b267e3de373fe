"""The `perco train` commands: settings as options, and the recipes that run.

    perco train autoencoder ──► out/train/autoencoder/weights ──► perco train codec ──► a codec
    training.settings: names, defaults, help ──options_of──► options

As in ``cli``, what a command needs is imported when it runs.
"""

import json
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, get_type_hints

import typer
from typer.core import TyperCommand

from perco_lite.cli.options import emit, fail, say
from perco_lite.files import explain, printable
from perco_lite.training.settings import (
    RENAMED,
    AutoencoderSettings,
    BaseCodecSettings,
    CaptionerSettings,
    CodecSettings,
    FewStepSettings,
    LiteCodecSettings,
    PriorSettings,
    TextSettings,
    current_name,
)

train_app = typer.Typer(rich_markup_mode=None)  # main.py names and describes the group

LESS_MEMORY = (
    "not enough memory for this training. In this order: raise --accumulation (fewer photos at a "
    "time, the same step), --mixed-precision bf16, --gradient-checkpointing, --optimizer "
    "adamw8bit, --layers lora, a smaller --crop"
)


def flag(name: str) -> str:
    """The option of a setting: ``batch_size`` is --batch-size."""
    return "--" + name.replace("_", "-")


OLD_NAMES = {new: flag(old) for old, new in RENAMED.items()}


class Renaming(TyperCommand):
    """A command that says which options have new names; the old ones still work."""

    def parse_args(self, ctx, args):
        for argument in args:
            if argument.startswith("--"):
                current_name(argument[2:].partition("=")[0].replace("-", "_"))
        return super().parse_args(ctx, args)


def options_of(*kinds: type, only: str = "") -> Callable:
    """Give a command the fields of settings (or those named in ``only``) as its options."""

    def give(command: Callable) -> Callable:
        own = [p for p in signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = {}
        for kind in kinds:
            hints = get_type_hints(kind)
            for one in fields(kind):
                if one.name in options or (only and one.name not in only.split()):
                    continue
                # only where there is more than one name: a flag's --no-… comes from having none
                also = "-o" if one.name == "output" else OLD_NAMES.get(one.name)
                about = typer.Option(*([flag(one.name), also] if also else []), **one.metadata)
                options[one.name] = Parameter(
                    one.name,
                    Parameter.KEYWORD_ONLY,
                    default=one.default,
                    annotation=Annotated[hints[one.name], about],
                )
        command.__signature__ = Signature([*own, *options.values()])
        command.__annotations__ = {p.name: p.annotation for p in [*own, *options.values()]}
        return command

    return give


@train_app.command("autoencoder")
@options_of(
    AutoencoderSettings,
    only="data output steps minutes batch_size learning_rate optimizer crop perceptual "
    "perceptual_weight latent_noise seed mixed_precision start hold_latents decoder_of teacher "
    "whole",
)
def train_autoencoder(**options) -> None:
    """Stage 1: photos to latents and back."""
    from perco_lite.training import autoencoder

    _train(autoencoder.train_autoencoder_recipe, options)


@train_app.command("text")
@options_of(
    TextSettings,
    only="data output steps photos minutes batch_size learning_rate seed mixed_precision",
)
def train_text(**options) -> None:
    """Tokenizer and text encoder, from photos and their captions (optional; for stage 2)."""
    from perco_lite.training import text_encoder

    _train(text_encoder.train_text_recipe, options)


@train_app.command("captions")
def train_captions(
    data: Annotated[
        Path | None, typer.Option(help="Folder of *_train.txt, one caption a line.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("out/train/caption_model.npz"),
) -> None:
    """The table that codes captions; part of the file format, so a new one is a new format."""
    from perco_lite.training.caption_model import train_captions

    _train(train_captions, {"data": data, "output": output})


@train_app.command("captioner")
@options_of(
    CaptionerSettings,
    only="data output steps minutes batch_size learning_rate seed mixed_precision reward_steps "
    "warmup_steps dropout label_smoothing rarest features start",
)
def train_captioner(**options) -> None:
    """What writes captions by itself: a small transformer, from photos and their captions."""
    from perco_lite.training import captioner

    _train(captioner.train_captioner_recipe, options)


@train_app.command("prior")
@options_of(PriorSettings)
def train_prior(**options) -> None:
    """The index prior of every rate of a codec, so that its indices take fewer bits."""
    from perco_lite.training import index_prior

    _train(index_prior.train_prior_recipe, options)


def _config(ctx: typer.Context, config: str | None) -> str | None:
    """Take the options of a config as defaults; called before the other options are read."""
    if config:
        _take_defaults(ctx, config)
    return config


def _base(ctx: typer.Context, base: str | None) -> str | None:
    """Without a config, a base model is trained by the paper's recipe."""
    if base and not ctx.default_map and not ctx.resilient_parsing:
        _take_defaults(ctx, "paper")
    return base


def _take_defaults(ctx: typer.Context, config: str) -> None:
    from perco_lite.full_scale.run_config import read_run_config

    ctx.default_map = read_run_config(config, [param.name for param in ctx.command.params])


SHARED = {one.name for one in fields(CodecSettings)}
# settings that mean something to one of the two ways of training only
LITE_ONLY = {one.name for one in fields(LiteCodecSettings)} - SHARED
BASE_ONLY = {one.name for one in fields(BaseCodecSettings)} - SHARED


@train_app.command("codec", cls=Renaming)
@options_of(CodecSettings, LiteCodecSettings, BaseCodecSettings)
def train_codec(
    ctx: typer.Context,
    config: Annotated[
        str | None,
        typer.Option(
            is_eager=True,
            callback=_config,
            help="t4, single-gpu, paper, or a YAML file; options here win over it.",
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            callback=_base,
            is_eager=True,
            help="Train around this Stable Diffusion (folder or hub id; auto: 2.1).",
        ),
    ] = None,
    **options,
) -> None:
    """Stage 2: hyper-encoders, codebooks, U-Net and text encoder, for all rates at once.

    With --base or a --config that has one: the paper's training around Stable Diffusion.
    """
    useless = LITE_ONLY if base else BASE_ONLY
    given = [n for n in sorted(useless) if ctx.get_parameter_source(n).name != "DEFAULT"]
    if given:
        fail(f"{', '.join(map(flag, given))}: {'not with' if base else 'only with'} --base")
    options = {name: value for name, value in options.items() if name not in useless}
    if base:
        from perco_lite.full_scale.training import train_base_recipe

        _train(train_base_recipe, {"base": base, **options})
    else:
        from perco_lite.training.codec import train_codec_recipe

        _train(train_codec_recipe, options)


@train_app.command("fast")
@options_of(
    FewStepSettings,
    only="data output steps minutes batch_size accumulation learning_rate optimizer crop seed "
    "mixed_precision start freeze_codes few_steps adversarial_weight adversarial_from "
    "caption_weight caption_data pattern_weight",
)
def train_fast(**options) -> None:
    """Stage 3: a codec of stage 2 learns to paint in one to four steps."""
    from perco_lite.training.few_steps import train_few_steps_recipe

    _train(train_few_steps_recipe, options)


@train_app.command("pack")
def pack(
    source: Annotated[Path, typer.Argument(help="Weights that `perco train codec` wrote.")],
    target: Annotated[Path, typer.Argument(help="Folder to write, half the size.")],
) -> None:
    """Convert a codec's weights to float16, as they ship."""
    from perco_lite.loading import quiet_libraries
    from perco_lite.training.codec import pack_weights

    quiet_libraries()
    size = pack_weights(source, target)
    say(f"{target}: {size / 2**20:.1f} MiB")


def _train(recipe: Callable, options: dict) -> None:
    from tqdm import tqdm

    from perco_lite.loading import quiet_libraries

    def tell(kind: str, text) -> None:
        # on a line of its own, not behind the bar
        tqdm.write(printable(f"{kind}: {text}"), file=sys.stderr)

    quiet_libraries()
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where: tell("warning", message)
        try:
            summary = recipe(**options)
        except Exception as error:  # of a library, too: its traceback helps nobody
            short = isinstance(error, RuntimeError) and re.search("out of memory|alloc", str(error))
            short = short or isinstance(error, MemoryError)
            tell("error", LESS_MEMORY if short else explain(error))
            raise typer.Exit(2) from error
    emit(json.dumps(summary, indent=1))
