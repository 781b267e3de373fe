"""The `perco train` commands: their options, and the recipes that run.

    perco train autoencoder ──► out/train/autoencoder/weights ──► perco train codec ──► a codec

As in ``cli``, what a command needs is imported when it runs.
"""

import json
import re
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from perco_lite.files import explain

train_app = typer.Typer(help="Train your own weights.", no_args_is_help=True, rich_markup_mode=None)

LESS_MEMORY = (
    "not enough memory for this training. In this order: raise --accumulation (fewer photos at a "
    "time, the same step), --mixed-precision bf16, --gradient-checkpointing, --optimizer "
    "adamw8bit, --layers lora, a smaller --crop"
)
# text, for a Path would lose a slash of a URL
Data = Annotated[str | None, typer.Option(help="Shards, a folder of photos, or URLs of shards.")]
Output = Annotated[Path, typer.Option("-o", "--output")]
Steps = Annotated[int, typer.Option(help="Length of the schedule.")]
OPTIMIZER_HELP = "adamw, adamw8bit (less memory) or muon (fewer steps)."
Minutes = Annotated[float | None, typer.Option(help="Stop after a slice; run again to go on.")]


@train_app.command("autoencoder")
def train_autoencoder(
    data: Data = None,
    output: Output = Path("out/train/autoencoder"),
    steps: Steps = 3000,
    minutes: Minutes = None,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    optimizer: Annotated[str, typer.Option(help=OPTIMIZER_HELP)] = "adamw",
    crop: Annotated[int, typer.Option(help="Pixels a side, a multiple of 8.", min=16)] = 128,
    perceptual: Annotated[
        str, typer.Option(help="lpips, or squeezenet: features of a local file.")
    ] = "lpips",
    perceptual_weight: Annotated[
        float | None, typer.Option(help="Default: 1 of lpips, 0.02 of squeezenet.")
    ] = None,
    latent_noise: float = 0.03,
    seed: int = 0,
    mixed_precision: str = "no",
    start: Annotated[str | None, typer.Option(help="Weights to go on from.")] = None,
    hold_latents: Annotated[
        float, typer.Option(help="Weight of keeping to the latents of --start.", min=0)
    ] = 0.0,
    decoder_of: Annotated[
        str | None, typer.Option(help="Weights whose decoder is trained on; the encoder stays.")
    ] = None,
) -> None:
    """Stage 1: photos to latents and back."""
    from perco_lite.training.recipes import train_autoencoder_recipe

    _train(train_autoencoder_recipe, locals())


@train_app.command("text")
def train_text(
    data: Data = None,
    output: Output = Path("out/train/text"),
    steps: Steps = 500,
    photos: Annotated[int, typer.Option(help="Photos with captions, at most.")] = 6000,
    minutes: Minutes = None,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    mixed_precision: str = "no",
) -> None:
    """Tokenizer and text encoder, from photos and their captions (optional; for stage 2)."""
    from perco_lite.training.recipes import train_text_recipe

    _train(train_text_recipe, locals())


@train_app.command("captions")
def train_captions(
    data: Annotated[
        Path | None, typer.Option(help="Folder of *_train.txt, one caption a line.")
    ] = None,
    output: Output = Path("out/train/caption_model.npz"),
) -> None:
    """The table that codes captions; part of the file format, so a new one is a new format."""
    from perco_lite.training.caption_model import train_captions

    _train(train_captions, {"data": data, "output": output})


@train_app.command("prior")
def train_prior(
    data: Data = None,
    output: Output = Path("out/train/prior/index_prior.npz"),
    weights: Annotated[str | None, typer.Option(help="A codec; default: the bundled one.")] = None,
    photos: Annotated[int, typer.Option(help="Photos to learn from, at most.")] = 7_000,
    large: Annotated[int, typer.Option(help="Of these, seen a second time enlarged.")] = 6_500,
    steps: Annotated[int, typer.Option(help="Length of training, for each rate.")] = 6000,
    batch_size: Annotated[int, typer.Option(help="Codes a step.")] = 1024,
    width: Annotated[int, typer.Option(help="Numbers inside the network.")] = 32,
    learning_rate: float = 3e-3,
    weight_decay: float = 0.05,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """The index prior of every rate of a codec, so that its indices take fewer bits."""
    from perco_lite.training.prior_recipe import train_prior_recipe

    _train(train_prior_recipe, locals())


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
    from perco_lite.full_scale.run_config import read_config

    try:
        ctx.default_map = read_config(config, [param.name for param in ctx.command.params])
    except (OSError, ValueError) as error:
        typer.echo(f"error: {explain(error)}", err=True)
        raise typer.Exit(2) from error


# options that mean something to one of the two ways of training only
LITE_ONLY = {"autoencoder", "text", "start", "freeze_codes", "alone"}
BASE_ONLY = {"captions", "layers", "lora_rank", "text_dropout", "quantizer_init", "revive"}
BASE_ONLY |= {"per_shard", "convert_epsilon"}


@train_app.command("codec")
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
    data: Data = None,
    autoencoder: Annotated[
        Path, typer.Option(help="Weights of stage 1, or of a whole codec.")
    ] = Path("out/train/autoencoder/weights"),
    output: Output = Path("out/train/codec"),
    text: Annotated[Path | None, typer.Option(help="Weights of `perco train text`.")] = None,
    start: Annotated[Path | None, typer.Option(help="A codec to go on from.")] = None,
    freeze_codes: Annotated[
        bool, typer.Option(help="Leave hyper-encoders and codebooks as they are.")
    ] = False,
    steps: Steps = 4000,
    alone: Annotated[int, typer.Option(help="First steps, without the U-Net.")] = 600,
    minutes: Minutes = None,
    batch_size: Annotated[int, typer.Option(help="Over all processes and passes.")] = 16,
    accumulation: Annotated[int, typer.Option(help="Passes a step: less memory.", min=1)] = 1,
    learning_rate: float = 8e-4,
    warmup_steps: int = 200,
    decay: Annotated[str, typer.Option(help="cosine or constant.")] = "cosine",
    weight_decay: float = 0.01,
    gradient_clip: float = 1.0,
    optimizer: Annotated[str, typer.Option(help=OPTIMIZER_HELP)] = "adamw",
    ema_decay: float = 0.999,
    timesteps: Annotated[
        int | None, typer.Option(help="Noise levels to train on; default all, paper: 50.")
    ] = None,
    perceptual_weight: float = 0.0,
    crop: Annotated[int, typer.Option(help="Latents a side.")] = 24,
    rates: Annotated[
        str, typer.Option(help="Comma-separated rates.")
    ] = "0.0019,0.0098,0.0313,0.1250",
    captions: Annotated[
        Path | None, typer.Option(help="Of `perco caption`, for photos without.")
    ] = None,
    convert_epsilon: Annotated[
        bool, typer.Option(help="Take a base that predicts noise; it learns to predict v.")
    ] = False,
    layers: Annotated[str, typer.Option(help="Of the base: linear, all or lora.")] = "linear",
    lora_rank: int = 16,
    text_dropout: Annotated[float, typer.Option(min=0, max=1)] = 0.1,
    quantizer_init: Annotated[str, typer.Option(help="uniform, data or kmeans.")] = "uniform",
    revive: Annotated[
        float, typer.Option(help="Replace codes used less than this share of the mean.", min=0)
    ] = 0.0,
    per_shard: Annotated[int, typer.Option(help="Photos to take at a visit.", min=1)] = 1000,
    gradient_checkpointing: Annotated[
        bool, typer.Option(help="Less memory, a third more time.")
    ] = False,
    checkpoint_minutes: float = 12.0,
    tensorboard: bool = False,
    seed: int = 0,
    mixed_precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
) -> None:
    """Stage 2: hyper-encoders, codebooks, U-Net and text encoder, for all rates at once.

    With --base or a --config that has one: the paper's training around Stable Diffusion.
    """
    options = {name: value for name, value in ctx.params.items() if name != "config"}
    useless = LITE_ONLY if base else BASE_ONLY
    given = [n for n in sorted(useless) if ctx.get_parameter_source(n).name != "DEFAULT"]
    if given:
        flags = ", ".join("--" + name.replace("_", "-") for name in given)
        typer.echo(f"error: {flags}: {'not with' if base else 'only with'} --base", err=True)
        raise typer.Exit(2)
    for name in LITE_ONLY if base else BASE_ONLY | {"base"}:
        options.pop(name)
    if base:
        from perco_lite.full_scale.training import train_base_recipe as recipe
    else:
        from perco_lite.training.recipes import train_codec_recipe as recipe

    _train(recipe, options)


@train_app.command("pack")
def pack(
    source: Annotated[Path, typer.Argument(help="Weights that `perco train codec` wrote.")],
    target: Annotated[Path, typer.Argument(help="Folder to write, half the size.")],
) -> None:
    """Convert a codec's weights to float16, as they ship."""
    from perco_lite.loading import quiet_libraries
    from perco_lite.training.recipes import pack_weights

    quiet_libraries()
    try:
        size = pack_weights(source, target)
    except (OSError, ValueError) as error:
        typer.echo(f"error: {explain(error)}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{target}: {size / 2**20:.1f} MiB")


def _train(recipe, options: dict) -> None:
    from tqdm import tqdm

    from perco_lite.loading import quiet_libraries

    def say(kind: str, text) -> None:
        tqdm.write(f"{kind}: {text}", file=sys.stderr)  # on a line of its own, not behind the bar

    quiet_libraries()
    options = {k: v for k, v in options.items() if not callable(v)}
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where: say("warning", message)
        try:
            summary = recipe(**options)
        except (OSError, ValueError, ImportError) as error:
            say("error", explain(error))
            raise typer.Exit(2) from error
        except (FloatingPointError, RuntimeError, MemoryError) as error:
            short = isinstance(error, MemoryError) or re.search("out of memory|alloc", str(error))
            say("error", LESS_MEMORY if short else explain(error))
            raise typer.Exit(2) from error
    typer.echo(json.dumps(summary, indent=1))
