"""The `perco` command.

    perco compress PHOTO…  ──► PHOTO.perco        perco inspect | rates | info
    perco decompress FILE… ──► FILE.png           perco demo | bench | train

Every command imports what it needs when it runs: `perco --help` must not wait for torch.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Photos in a hundred bytes or so: PerCo, small enough for a laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train your own weights.", no_args_is_help=True)
app.add_typer(train_app, name="train")

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Weights = Annotated[
    str | None, typer.Option(help="Folder or hub id of other weights than the bundled ones.")
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, mps; default: cuda where there is one.")
]


class _Batch:
    """Runs one thing per file; a failure is one line on stderr, the other files still run."""

    def __init__(self):
        self.failed = False

    def fail(self, path, error: Exception) -> None:
        self.failed = True
        message = " ".join(str(error).split()) or type(error).__name__
        named = message if str(path) in message else f"{path}: {message}"
        typer.echo(f"error: {named}", err=True)

    def finish(self) -> None:
        if self.failed:
            raise typer.Exit(2)


def _write(path: Path, data: bytes) -> None:
    """Write beside the place, then rename: nobody ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".part")
    fresh.write_bytes(data)
    fresh.replace(path)


def _fail(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)


def _load_codec(weights: str | None, device: str | None):
    from perco_lite.loading import load_codec

    try:
        return load_codec(weights, device)
    except (OSError, ValueError, RuntimeError) as error:
        _fail(" ".join(str(error).split()))


def _expand(paths: list[Path], suffixes: frozenset[str], batch: _Batch) -> list[Path]:
    """Folders become their files; what is missing is reported and left out."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes)
            if not inside:
                batch.fail(
                    path, FileNotFoundError(f"no {' '.join(sorted(suffixes))} in this folder")
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            batch.fail(path, FileNotFoundError("no such file; check the path"))
    return found


def _outputs(paths: list[Path], output: Path | None, suffix: str) -> list[Path]:
    """Where results go: beside each input, or -o as a file (one input) or a folder."""
    if output is None:
        return [path.with_suffix(suffix) for path in paths]
    if len(paths) == 1 and output.suffix and not output.is_dir():
        return [output]
    return [output / (path.stem + suffix) for path in paths]


@app.command()
def compress(
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders of photos.")],
    caption: Annotated[str | None, typer.Option(help="Caption for all of them.")] = None,
    captions: Annotated[Path | None, typer.Option(help='JSON: {"photo.png": "caption"}.')] = None,
    rate: Annotated[str, typer.Option(help="Name of a rate; see `perco rates`.")] = "0.0019",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File or folder.")] = None,
    weights: Weights = None,
    device: Device = None,
) -> None:
    """Compress photos to .perco files."""
    from perco_lite.bitstream import ledger
    from perco_lite.data import PHOTO_SUFFIXES, load_captions, load_photo

    if caption is not None and captions is not None:
        _fail("got --caption and --captions; give one of them")
    try:
        table = load_captions(captions) if captions else {}
    except (OSError, ValueError) as error:
        _fail(str(error))
    codec = _load_codec(weights, device)
    if rate not in codec.rates:
        _fail(f"unknown rate {rate!r}; these weights serve {', '.join(codec.rates)}")
    batch = _Batch()
    paths = _expand(photos, PHOTO_SUFFIXES, batch)
    for path, target in zip(paths, _outputs(paths, output, ".perco"), strict=True):
        try:
            text = caption if caption is not None else table.get(path.name, "")
            image = load_photo(path)
            data = codec.compress(image, text, rate)
            _write(target, data)
        except (OSError, ValueError, MemoryError) as error:
            batch.fail(path, error)
            continue
        parts = ", ".join(f"{name} {count}" for name, count in ledger(data).items() if count)
        bpp = 8 * len(data) / (image.width * image.height)
        typer.echo(f"{target}: {len(data)} bytes ({parts}), {bpp:.4f} bpp")
        if captions and path.name not in table:
            typer.echo(f"note: {captions} has no caption for {path.name}; used none", err=True)
    batch.finish()


@app.command()
def decompress(
    files: Annotated[list[Path], typer.Argument(help=".perco files or folders of them.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File or folder.")] = None,
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
    as_json: Json = False,
) -> None:
    """Paint photos back from .perco files, as PNG."""
    from perco_lite.loading import decompress_files, set_sampler

    codec = _load_codec(weights, device)
    try:
        set_sampler(codec, sampler)
    except ValueError as error:
        _fail(str(error))
    batch = _Batch()
    paths = _expand(files, frozenset({".perco"}), batch)
    targets = _outputs(paths, output, ".png")
    rows = []
    for row in decompress_files(codec, paths, targets, steps, guidance, seed or [0], batch.fail):
        rows.append(row)
        if not as_json:
            typer.echo(f"{row['output']}: {row['width']}×{row['height']}, {row['seconds']:.1f} s")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    batch.finish()


@app.command()
def inspect(
    files: Annotated[list[Path], typer.Argument(help=".perco files or folders of them.")],
    as_json: Json = False,
) -> None:
    """Show a file's header, caption, where its bytes went, and its indices as a map."""
    from perco_lite.inspecting import describe, describe_text

    batch = _Batch()
    rows = []
    for path in _expand(files, frozenset({".perco"}), batch):
        try:
            rows.append({"file": str(path), **describe(path.read_bytes())})
        except (OSError, ValueError) as error:
            batch.fail(path, error)
            continue
        if not as_json:
            typer.echo(describe_text(rows[-1]))
    if as_json:
        typer.echo(json.dumps(rows, indent=1, ensure_ascii=False))
    batch.finish()


@app.command()
def rates(as_json: Json = False, weights: Weights = None) -> None:
    """List the paper's rates, what they cost on a Kodak photo, and which these weights serve."""
    from perco_lite.inspecting import rate_table, rate_text

    table = rate_table(weights)
    typer.echo(json.dumps(table, indent=1) if as_json else rate_text(table))


@app.command()
def info(as_json: Json = False, weights: Weights = None) -> None:
    """Show versions, device, and the weights with their hash."""
    from perco_lite.loading import describe_installation

    facts = describe_installation(weights)
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
    else:
        typer.echo("\n".join(f"{name:14} {value}" for name, value in facts.items()))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("out/demo"),
    photos: Annotated[int, typer.Option(help="At most this many; 0 = all that are found.")] = 6,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = 20,
) -> None:
    """Compress the sample photos at every rate, decode them in another process, compare."""
    from perco_lite.demo import run_demo

    try:
        run_demo(output, photos, steps)
    except (OSError, ValueError) as error:
        _fail(" ".join(str(error).split()))


@app.command()
def bench(
    as_json: Json = False,
    speed: Annotated[bool, typer.Option(help="Measure seconds and memory.")] = True,
    quality: Annotated[bool, typer.Option(help="Measure quality where photos are found.")] = True,
    photos: Annotated[int, typer.Option(help="At most this many Kodak photos; 0 = all.")] = 0,
    weights: Weights = None,
) -> None:
    """Measure speed, memory and quality on this machine, against the project's targets."""
    from perco_lite.bench import run_bench

    report = run_bench(speed, quality, photos, weights, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(report, indent=1))


@train_app.command("autoencoder")
def train_autoencoder(
    data: Annotated[Path | None, typer.Option(help="Shards or a folder of photos.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("out/train/autoencoder"),
    steps: Annotated[int, typer.Option(help="Length of the schedule.")] = 3000,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after a slice; run again to go on.")
    ] = None,
    batch_size: int = 16,
    learning_rate: float = 1e-3,
    perceptual_weight: float = 0.05,
    seed: int = 0,
    mixed_precision: str = "no",
    decoder_of: Annotated[
        str | None, typer.Option(help="Weights whose decoder is trained on; the encoder stays.")
    ] = None,
) -> None:
    """Stage 1: photos to latents and back."""
    from perco_lite.recipes import train_autoencoder_recipe

    _train(train_autoencoder_recipe, locals())


@train_app.command("codec")
def train_codec(
    data: Annotated[Path | None, typer.Option(help="Shards or a folder of photos.")] = None,
    autoencoder: Annotated[
        Path, typer.Option(help="Weights of stage 1, or of a whole codec.")
    ] = Path("out/train/autoencoder/weights"),
    output: Annotated[Path, typer.Option("-o", "--output")] = Path("out/train/codec"),
    steps: Annotated[int, typer.Option(help="Length of the schedule.")] = 4000,
    alone: Annotated[int, typer.Option(help="First steps, without the U-Net.")] = 600,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after a slice; run again to go on.")
    ] = None,
    batch_size: int = 32,
    learning_rate: float = 6e-4,
    perceptual_weight: float = 0.0,
    crop: Annotated[int, typer.Option(help="Latents a side.")] = 32,
    rates: Annotated[
        str, typer.Option(help="Comma-separated rates.")
    ] = "0.0019,0.0098,0.0313,0.1250",
    seed: int = 0,
    mixed_precision: str = "no",
) -> None:
    """Stage 2: hyper-encoders, codebooks, U-Net and text encoder, for all rates at once."""
    from perco_lite.recipes import train_codec_recipe

    _train(train_codec_recipe, locals())


def _train(recipe, options: dict) -> None:
    options = {k: v for k, v in options.items() if not callable(v)}
    try:
        summary = recipe(**options)
    except (OSError, ValueError, FloatingPointError) as error:
        _fail(" ".join(str(error).split()))
    typer.echo(json.dumps(summary, indent=1))


if __name__ == "__main__":
    sys.exit(app())
