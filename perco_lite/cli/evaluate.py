"""The `perco evaluate` command: its options.

    perco evaluate kodak -o out/kodak.csv ──► kodak.csv, kodak.json, kodak_pictures/
    accelerate launch --num_processes 8 -m perco_lite.cli evaluate …   the same, on several GPUs

As in ``cli``, what the command needs is imported when it runs.
"""

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from perco_lite.files import explain

CODECS = "perco,autoencoder,perco-estimate,jpeg,jpeg2000,webp,avif"
OURS = {"perco", "autoencoder", "perco-estimate"}
LADDER = "0.05,0.1,0.2,0.4,0.7,1"


def evaluate_command(
    dataset: Annotated[
        str,
        typer.Argument(
            help="A folder of photos, or kodak, coco30k (squashed to 512x512 as in the paper), "
            "coco30k-native, coco_eval, samples."
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="CSV; JSON and pictures go beside it.")
    ],
    rates: Annotated[
        str | None, typer.Option(help="Comma-separated; default: all that the weights serve.")
    ] = None,
    codecs: Annotated[
        str,
        typer.Option(
            help="Comma-separated; also jpegxl, bpg, vtm (by their programs), "
            "factorized, hyperprior, mbt2018-mean, mbt2018, cheng2020 (compressai)."
        ),
    ] = CODECS,
    metrics: Annotated[
        str, typer.Option(help="Comma-separated, or all; what cannot be computed stays empty.")
    ] = "all",
    ladder: Annotated[
        str | None,
        typer.Option(help=f"Bits per pixel for classical codecs, besides; usual: {LADDER}."),
    ] = None,
    photos: Annotated[int, typer.Option(help="The first so many photos; 0 = all.", min=0)] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Where the photos of a named set are.")
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help='{"photo.png": "caption"}, or a COCO captions file.')
    ] = None,
    names: Annotated[
        Path | None, typer.Option("--list", help="File names to use, one a line.")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="none, or squash to WIDTHxHEIGHT; default: the set's rule.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)] = 20,
    guidance: Annotated[float | None, typer.Option(help="Weight of the caption; 1 = off.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Scale of the first noise.")] = None,
    anchor: Annotated[float | None, typer.Option(help="0 = off, as in the paper.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    rounds: Annotated[
        int | None,
        typer.Option(help="Of closed-loop encoding; 0 = nearest codes, as in the paper."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Photos in memory at a time.", min=1)] = 4,
    keep: Annotated[bool, typer.Option(help="Leave the pictures; set metrics need them.")] = True,
    weights: Annotated[
        str | None, typer.Option(help="Folder or hub id of other weights than the bundled ones.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, mps; default: cuda where there is one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Measure codecs on photos: a table with a row per photo, codec and rate, and a summary.

    Run again after a crash, it goes on where it stopped.
    """
    try:
        summary = _evaluate(
            dataset,
            output,
            rates,
            codecs,
            metrics,
            ladder,
            {"folder": folder, "captions": captions, "names": names, "resize": resize},
            photos,
            {
                "steps": steps,
                "guidance": guidance,
                "temperature": temperature,
                "anchor": anchor,
                "seed": seed,
            },
            rounds,
            keep,
            batch,
            weights,
            device,
            as_json,
        )
    except (OSError, ValueError, RuntimeError, MemoryError, ImportError) as error:
        _fail(error)
    if not summary:  # another process of the same run tells
        return
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        typer.echo(_text_table(summary))
        for name, reason in summary["codecs"].items():
            if reason != "measured":
                typer.echo(f"not measured: {name} ({reason})")
        typer.echo(f"{output}, {output.with_suffix('.json')}")
    if summary["skipped"]:
        for one in summary["skipped"]:
            where = " ".join(filter(None, (one["photo"], one["codec"], one["rate"])))
            typer.echo(f"error: {where}: {one['error']}", err=True)
        raise typer.Exit(2)


def _evaluate(
    dataset,
    output,
    rates,
    codecs,
    metrics,
    ladder,
    about_photos,
    photos,
    decoding,
    rounds,
    keep,
    batch,
    weights,
    device,
    as_json,
) -> dict:
    from perco_lite.evaluation.table import check_writable

    check_writable(output)  # before torch is loaded

    from perco_lite.evaluation.datasets import open_dataset

    found = open_dataset(dataset, limit=photos, **about_photos)
    wanted = _split(codecs, "--codecs")

    from perco_lite.evaluation.codecs.ours import Decoding
    from perco_lite.evaluation.evaluate import evaluate
    from perco_lite.evaluation.scoring import PHOTO_METRICS, SET_METRICS, check_names
    from perco_lite.loading import load_codec
    from perco_lite.rates import RATES

    every = [*PHOTO_METRICS, *SET_METRICS]
    scores = every if metrics == "all" else _split(metrics, "--metrics", empty=True)
    check_names(scores)
    codec = load_codec(weights, device or _own_device()) if OURS & set(wanted) else None
    served = codec.rates if codec is not None else tuple(rate.name for rate in RATES)
    return evaluate(
        found,
        output,
        wanted,
        scores,
        served if rates is None else _split(rates, "--rates"),
        codec,
        [_number(text) for text in _split(ladder or "", "--ladder", empty=True)],
        Decoding(**{name: value for name, value in decoding.items() if value is not None}),
        rounds,
        keep,
        batch,
        quiet=as_json,
        say=lambda line: typer.echo(line, err=True),
    )


def _own_device() -> str | None:
    """This process's GPU where several processes share a machine, each with its own."""
    import os

    import torch

    rank = os.environ.get("LOCAL_RANK")
    if rank is None or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return None if rank is None else "cpu"
    return f"cuda:{rank}" if torch.cuda.is_available() else None


def _split(text: str, option: str, empty: bool = False) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words and not empty:
        raise ValueError(f"got nothing in {option}, expected names with commas between")
    return words


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"got {text!r} in --ladder, expected a number such as 0.1") from error


def _text_table(summary: dict) -> str:
    """Means per codec and rate, one a line; every figure with its interval is in the JSON."""
    skip = {"codec", "rate", "photos", "reached", "header_bytes", "caption_bytes", "index_bytes"}
    results = summary["results"]
    names = [n for n in dict.fromkeys(n for r in results for n in r) if n not in skip]
    lines = [["codec", "rate", "photos", "reached", *names]]
    for result in results:
        cells = [result["codec"], result["rate"], str(result["photos"])]
        cells.append(str(result.get("reached", "")))
        for name in names:
            figure = result.get(name, {})
            value = figure.get("mean", figure.get("value", ""))
            cells.append(f"{value:.4g}" if isinstance(value, float | int) else str(value))
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in lines
    )


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"error: {explain(error)}", err=True)
    raise typer.Exit(2) from error
