"""The `perco` command.

    perco compress PHOTO…  ──► PHOTO.perco        perco inspect | rates | info
    perco decompress FILE… ──► FILE.png           perco demo | bench
    train: train_cli.py    evaluate: evaluate_cli.py    caption, convert: pretrained_cli.py
    download: download_cli.py    claims: claims_cli.py

Every command imports what it needs when it runs: `perco --help` must not wait for torch.
"""

import json
import logging
import math
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from perco_lite.cli.claims import claims
from perco_lite.cli.download import download
from perco_lite.cli.evaluate import evaluate_command
from perco_lite.cli.files import Batch, expand, plan_outputs
from perco_lite.cli.pretrained import caption, convert
from perco_lite.cli.train import train_app
from perco_lite.files import explain, read_perco, write_whole

app = typer.Typer(
    help="Photos in a hundred bytes or so: PerCo, small enough for a laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # errors in plain lines
)
app.add_typer(train_app, name="train")

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Weights = Annotated[
    str | None, typer.Option(help="Folder or hub id of other weights than the bundled ones.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, mps; default: cuda where there is one.")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32 (default), bfloat16 or float16: half the memory, faster on a GPU."),
]
Files = Annotated[list[Path], typer.Argument(help=".perco files or folders of them.")]
PERCO = frozenset({".perco"})


@app.callback()
def main() -> None:
    # a caption may hold what the terminal's encoding does not
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # told us what a CPU lacks


def _fail(error: Exception | str) -> NoReturn:
    typer.echo(f"error: {error if isinstance(error, str) else explain(error)}", err=True)
    raise typer.Exit(2)


def _load_codec(weights: str | None, device: str | None, dtype: str | None):
    from perco_lite.loading import load_codec

    try:
        return load_codec(weights, device, dtype)
    except (OSError, ValueError) as error:
        _fail(error)


@app.command()
def compress(
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders of photos.")],
    caption: Annotated[str | None, typer.Option(help="Caption for all of them.")] = None,
    captions: Annotated[Path | None, typer.Option(help='JSON: {"photo.png": "caption"}.')] = None,
    rate: Annotated[str, typer.Option(help="Name of a rate; see `perco rates`.")] = "0.0019",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="NAME.perco or a folder.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(
            "--format",
            min=1,
            max=2,
            help="2 (default), or 1: uniform indices and deflate; mostly more bytes, same photo.",
        ),
    ] = None,
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Compress photos to .perco files."""
    from perco_lite.coding.bitstream import ledger, pack, unpack
    from perco_lite.data import PHOTO_SUFFIXES, load_captions, load_photo

    if caption is not None and captions is not None:
        _fail("got --caption and --captions; give one of them")
    try:
        table = {} if captions is None else load_captions(captions)
    except (OSError, ValueError) as error:
        _fail(error)
    batch = Batch()
    plan = plan_outputs(expand(photos, PHOTO_SUFFIXES, batch), output, ".perco", batch)
    codec = _load_codec(weights, device, dtype) if plan else None
    for path, (target,) in plan:
        try:
            served = codec.rate(rate)
        except ValueError as error:
            _fail(error)
        try:
            image = load_photo(path)
            text = table.get(path.name, "") if caption is None else caption
            data = codec.compress(image, text, served.name)
            data = data if version is None else pack(unpack(data), version)
            write_whole(target, data)
        except (OSError, ValueError, MemoryError, RuntimeError) as error:
            batch.fail(path, error)
            continue
        parts = ", ".join(f"{name} {count}" for name, count in ledger(data).items() if count)
        bpp = 8 * len(data) / (image.width * image.height)
        typer.echo(f"{target}: {len(data)} bytes ({parts}), {bpp:.4f} bpp")
        if captions is not None and path.name not in table:
            typer.echo(f"note: {captions} has no caption for {path.name}; used none", err=True)
    batch.finish()


@app.command()
def decompress(
    files: Files,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="NAME.png or a folder.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)] = 20,
    guidance: Annotated[
        float | None, typer.Option(help="Weight of the caption; 1 = off, twice as fast.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Default 0; repeat for several pictures a file.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="ddim or dpm++.")] = "ddim",
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Paint photos back from .perco files, as PNG."""
    seeds = tuple(dict.fromkeys(seed or [0]))
    if not all(0 <= s < 2**63 for s in seeds):
        _fail(f"got --seed {', '.join(map(str, seeds))}; give numbers from 0 to 2^63 - 1")
    if guidance is not None and not math.isfinite(guidance):
        _fail(f"got --guidance {guidance}; give a number, such as 2")
    batch = Batch()
    tags = tuple(f"_seed{s}" for s in seeds) if len(seeds) > 1 else ("",)
    plan = plan_outputs(expand(files, PERCO, batch), output, ".png", batch, tags)
    rows = iter(())
    if plan:
        from perco_lite.loading import decompress_files, set_sampler

        codec = _load_codec(weights, device, dtype)
        try:
            set_sampler(codec, sampler)
        except ValueError as error:
            _fail(error)
        rows = decompress_files(codec, plan, steps, guidance, seeds, batch.fail)
    before = "["  # each row at once, and all together one JSON list
    for row in rows:
        if as_json:
            typer.echo(before + json.dumps(row), nl=False)
        else:
            typer.echo(f"{row['output']}: {row['width']}×{row['height']}, {row['seconds']:.1f} s")
        before = ",\n"
    if as_json:
        typer.echo("[]" if before == "[" else "]")
    batch.finish()


@app.command()
def inspect(files: Files, as_json: Json = False) -> None:
    """Show a file's header, caption, where its bytes went, and its indices as a map."""
    from perco_lite.cli.inspecting import describe, describe_text

    batch = Batch()
    rows = []
    for path in expand(files, PERCO, batch):
        try:
            rows.append({"file": str(path), **describe(read_perco(path))})
        except (OSError, ValueError) as error:
            batch.fail(path, error)
            continue
        if not as_json:
            typer.echo(describe_text(rows[-1]))
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    batch.finish()


@app.command()
def rates(as_json: Json = False, weights: Weights = None) -> None:
    """List the paper's rates, what they cost on a Kodak photo, and which these weights serve."""
    from perco_lite.cli.inspecting import rate_table, rate_text

    try:
        table = rate_table(weights)
    except (OSError, ValueError) as error:
        _fail(error)
    typer.echo(json.dumps(table, indent=1) if as_json else rate_text(table))


@app.command()
def info(as_json: Json = False, weights: Weights = None) -> None:
    """Show versions, device, and the weights with their hash."""
    from perco_lite.loading import describe_installation

    try:
        facts = describe_installation(weights)
    except (OSError, ValueError) as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        typer.echo("\n".join(f"{name:14} {value}" for name, value in facts.items()))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("out/demo"),
    photos: Annotated[
        int, typer.Option(help="At most this many; 0 = all that are found.", min=0)
    ] = 6,
    steps: Annotated[int, typer.Option(help="Denoising steps.", min=1, max=1000)] = 20,
    weights: Weights = None,
) -> None:
    """Compress the sample photos at every rate, decode them in another process, compare."""
    from perco_lite.cli.demo import run_demo

    try:
        run_demo(output, photos, steps, weights)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        _fail(error)


@app.command()
def bench(
    as_json: Json = False,
    speed: Annotated[bool, typer.Option(help="Measure seconds and memory.")] = True,
    quality: Annotated[bool, typer.Option(help="Measure quality where photos are found.")] = True,
    photos: Annotated[
        int, typer.Option(help="At most this many Kodak photos; 0 = all.", min=0)
    ] = 0,
    weights: Weights = None,
) -> None:
    """Measure speed, memory and quality on this machine, against the project's targets."""
    from perco_lite.evaluation.bench import run_bench

    try:
        report = run_bench(speed, quality, photos, weights, quiet=as_json)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        _fail(error)
    if as_json:
        typer.echo(json.dumps(report, indent=1))


app.command("evaluate")(evaluate_command)
app.command()(caption)
app.command()(convert)
app.command()(download)
app.command()(claims)

if __name__ == "__main__":
    sys.exit(app())
