"""The `perco` command.

    perco compress PHOTO…  ──► PHOTO.perco        perco inspect | rates | info
    perco decompress FILE… ──► FILE.png           perco demo | bench
    app, train, evaluate, claims, compare, download: files of these names
    caption, convert: pretrained.py

Every command imports what it needs when it runs: `perco --help` must not wait for torch.
"""

import json
import logging
import math
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from perco_lite.cli.app import app_command
from perco_lite.cli.claims import claims
from perco_lite.cli.compare import compare
from perco_lite.cli.download import download
from perco_lite.cli.evaluate import evaluate_command
from perco_lite.cli.files import (
    Batch,
    check_replaced,
    decompress_files,
    expand,
    plan_outputs,
    without_painted,
)
from perco_lite.cli.late import TrainGroup
from perco_lite.cli.options import (
    Device,
    Dtype,
    Files,
    Json,
    MaxPixels,
    OneLine,
    Overwrite,
    OwnSteps,
    Weights,
    emit,
    fail,
    note,
    say,
)
from perco_lite.cli.pretrained import caption, caption_writer, convert
from perco_lite.files import MAX_PAINTED, printable, read_perco, write_whole

app = typer.Typer(
    cls=OneLine,
    help="Photos in a hundred bytes or so: PerCo, small enough for a laptop.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # errors in plain lines
)
app.add_typer(
    typer.Typer(
        cls=TrainGroup, help="Train your own weights.", no_args_is_help=True, rich_markup_mode=None
    ),
    name="train",
)

PERCO = frozenset({".perco"})
FormatVersion = Annotated[
    int | None,
    typer.Option(
        "--format",
        min=1,
        max=2,
        help="2 (default), or 1: uniform indices and deflate; mostly more bytes, same photo.",
    ),
]


@app.callback()
def main() -> None:
    # a caption may hold what the terminal's encoding does not
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # told us what a CPU lacks


@app.command()
def compress(
    photos: Annotated[
        list[Path], typer.Argument(help="Photos or folders of photos.", readable=False)
    ],
    caption: Annotated[
        str | None,
        typer.Option(help='Caption for all; "" = none. Default: one is written for each photo.'),
    ] = None,
    captions: Annotated[Path | None, typer.Option(help='JSON: {"photo.png": "caption"}.')] = None,
    rate: Annotated[str, typer.Option(help="Name of a rate; see `perco rates`.")] = "0.0019",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="NAME.perco or a folder.")
    ] = None,
    version: FormatVersion = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Compress photos to .perco files. A photo without a caption gets one, which is printed."""
    from perco_lite.cli.inspecting import describe_file, made_text
    from perco_lite.coding.bitstream import pack, unpack
    from perco_lite.data import PHOTO_SUFFIXES, load_captions, load_photo

    if caption is not None and captions is not None:
        fail("got --caption and --captions; give one of them")
    table = {} if captions is None else load_captions(captions)
    batch, rows = Batch(), []
    files = without_painted(expand(photos, PHOTO_SUFFIXES, batch))
    plan = plan_outputs(files, output, ".perco", batch)
    if plan:
        from perco_lite.loading import load_codec

        codec = load_codec(weights, device, dtype)
        codec.rate(rate)
        write = caption_writer() if caption is None and captions is None else None
    for path, (target,) in plan:
        with batch.item(path):
            image = load_photo(path)
            if not overwrite:
                check_replaced(codec, path, image, target)
            text = table.get(path.name, "") if caption is None else caption
            written = write(image) if write else ""
            data = codec.compress(image, text or written, rate)
            data = data if version is None else pack(unpack(data), version)
            write_whole(target, data)
            row = {"file": str(path), "output": str(target), **describe_file(data)}
            rows.append(row | {"caption_written": bool(written)})
            if not as_json:
                say(made_text(rows[-1]))
            if captions is not None and path.name not in table:
                note(f"{captions} has no caption for {path.name}; used none")
    if as_json:
        emit(json.dumps(rows, indent=1))
    batch.finish()


@app.command()
def decompress(
    files: Files,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="NAME.png or a folder.")
    ] = None,
    steps: OwnSteps = None,
    guidance: Annotated[
        float | None, typer.Option(help="Weight of the caption; 1 = off, twice as fast.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Default 0; repeat for several pictures a file.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="fast (few steps), paper (the same as ddim) or dpm++; default: by steps."
        ),
    ] = None,
    max_pixels: MaxPixels = MAX_PAINTED,
    weights: Weights = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Paint photos back from .perco files, as PNG."""
    seeds = tuple(dict.fromkeys(seed or [0]))
    if not all(0 <= s < 2**63 for s in seeds):
        fail(f"got --seed {', '.join(map(str, seeds))}; give numbers from 0 to 2^63 - 1")
    if guidance is not None and not math.isfinite(guidance):
        fail(f"got --guidance {guidance}; give a number, such as 2")
    batch = Batch()
    tags = tuple(f"_seed{s}" for s in seeds) if len(seeds) > 1 else ("",)
    plan = plan_outputs(expand(files, PERCO, batch), output, ".png", batch, tags)
    rows = iter(())
    if plan:
        from perco_lite.loading import load_codec, set_sampler

        codec = load_codec(weights, device, dtype)
        how = steps, guidance, seeds, batch.fail, max_pixels, set_sampler(codec, sampler)
        rows = decompress_files(codec, plan, *how)
    before = "["  # each row at once, and all together one JSON list
    for row in rows:
        if as_json:
            emit(before + json.dumps(row), end=False)
        else:
            say(f"{row['output']}: {row['width']}×{row['height']}, {row['seconds']:.1f} s")
        before = ",\n"
    if as_json:
        emit("[]" if before == "[" else "]")
    batch.finish()


@app.command()
def inspect(files: Files, as_json: Json = False) -> None:
    """Show a file's header, caption, where its bytes went, and its indices as a map."""
    from perco_lite.cli.inspecting import describe, describe_text

    batch = Batch()
    rows = []
    for path in expand(files, PERCO, batch):
        with batch.item(path):
            rows.append({"file": str(path), **describe(read_perco(path))})
            if not as_json:
                emit(describe_text(rows.pop()))
    if as_json:
        emit(json.dumps(rows, indent=1))
    batch.finish()


@app.command()
def rates(as_json: Json = False, weights: Weights = None) -> None:
    """List the paper's rates, what they cost on a Kodak photo, and which these weights serve."""
    from perco_lite.cli.inspecting import rate_table, rate_text

    table = rate_table(weights)
    emit(json.dumps(table, indent=1) if as_json else rate_text(table))


@app.command()
def info(as_json: Json = False, weights: Weights = None) -> None:
    """Show versions, device, and the weights with their hash."""
    from perco_lite.cli.info import describe_installation

    facts = describe_installation(weights)
    if as_json:
        emit(json.dumps(facts, indent=1))
    else:
        emit("\n".join(printable(f"{name:14} {value}") for name, value in facts.items()))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("out/demo"),
    photos: Annotated[
        int, typer.Option(help="At most this many; 0 = all that are found.", min=0)
    ] = 6,
    steps: OwnSteps = None,
    weights: Weights = None,
    as_json: Json = False,
) -> None:
    """Compress the sample photos at every rate, decode them in another process, compare."""
    from perco_lite.cli.demo import as_table, run_demo

    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        rows = run_demo(output, photos, steps, weights)
    if as_json:
        emit(json.dumps(as_table(rows), indent=1))


@app.command()
def bench(
    as_json: Json = False,
    speed: Annotated[bool, typer.Option(help="Measure seconds and memory.")] = True,
    quality: Annotated[bool, typer.Option(help="Measure quality where photos are found.")] = True,
    photos: Annotated[
        int, typer.Option(help="At most this many Kodak photos; 0 = all.", min=0)
    ] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="JSON of the figures, kept as they come.")
    ] = None,
    weights: Weights = None,
) -> None:
    """Measure speed, memory and quality on this machine, against the project's targets.

    With -o, run again after a crash, it goes on where it stopped.
    """
    from perco_lite.data import find_data
    from perco_lite.evaluation.bench import run_bench
    from perco_lite.training.shards import read_training_photos

    held_out = find_data("val")
    held_out = read_training_photos(held_out) if held_out else None
    report = run_bench(speed, quality, photos, weights, as_json, held_out, output)
    if as_json:
        emit(json.dumps(report, indent=1))


app.command("evaluate")(evaluate_command)
app.command("app")(app_command)
for command in (compare, caption, convert, download, claims):
    app.command()(command)
