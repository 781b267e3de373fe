"""The `perco train` commands: their options, and the recipes that run.

    perco train autoencoder ──► out/train/autoencoder/weights ──► perco train codec ──► a codec

As in ``cli``, what a command needs is imported when it runs.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from perco_lite.batch import explain

train_app = typer.Typer(help="Train your own weights.", no_args_is_help=True, rich_markup_mode=None)

Data = Annotated[Path | None, typer.Option(help="Shards or a folder of photos.")]
Output = Annotated[Path, typer.Option("-o", "--output")]
Steps = Annotated[int, typer.Option(help="Length of the schedule.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after a slice; run again to go on.")]


@train_app.command("autoencoder")
def train_autoencoder(
    data: Data = None,
    output: Output = Path("out/train/autoencoder"),
    steps: Steps = 3000,
    minutes: Minutes = None,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    perceptual_weight: float = 0.02,
    latent_noise: float = 0.03,
    seed: int = 0,
    mixed_precision: str = "no",
    start: Annotated[str | None, typer.Option(help="Weights to go on from.")] = None,
    decoder_of: Annotated[
        str | None, typer.Option(help="Weights whose decoder is trained on; the encoder stays.")
    ] = None,
) -> None:
    """Stage 1: photos to latents and back."""
    from perco_lite.recipes import train_autoencoder_recipe

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
    from perco_lite.recipes import train_text_recipe

    _train(train_text_recipe, locals())


@train_app.command("codec")
def train_codec(
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
    batch_size: int = 16,
    learning_rate: float = 8e-4,
    perceptual_weight: float = 0.0,
    crop: Annotated[int, typer.Option(help="Latents a side.")] = 24,
    rates: Annotated[
        str, typer.Option(help="Comma-separated rates.")
    ] = "0.0019,0.0098,0.0313,0.1250",
    seed: int = 0,
    mixed_precision: str = "no",
) -> None:
    """Stage 2: hyper-encoders, codebooks, U-Net and text encoder, for all rates at once."""
    from perco_lite.recipes import train_codec_recipe

    _train(train_codec_recipe, locals())


@train_app.command("pack")
def pack(
    source: Annotated[Path, typer.Argument(help="Weights that `perco train codec` wrote.")],
    target: Annotated[Path, typer.Argument(help="Folder to write, half the size.")],
) -> None:
    """Convert a codec's weights to float16, as they ship."""
    from perco_lite.recipes import pack_weights

    try:
        size = pack_weights(source, target)
    except (OSError, ValueError) as error:
        typer.echo(f"error: {explain(error)}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{target}: {size / 2**20:.1f} MiB")


def _train(recipe, options: dict) -> None:
    options = {k: v for k, v in options.items() if not callable(v)}
    try:
        summary = recipe(**options)
    except (OSError, ValueError, FloatingPointError, RuntimeError, MemoryError) as error:
        typer.echo(f"error: {explain(error)}", err=True)
        raise typer.Exit(2) from error
    typer.echo(json.dumps(summary, indent=1))
