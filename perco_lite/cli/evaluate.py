"""The `perco evaluate` command: its options.

    perco evaluate kodak -o out/kodak.csv ──► kodak.csv, kodak.json, kodak_pictures/
    accelerate launch --num_processes 8 -m perco_lite.cli evaluate …   the same, on several GPUs
    torchrun --nproc_per_node 2 -m perco_lite.cli evaluate …             … or on two cores

As in ``main``, what the command needs is imported when it runs.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from perco_lite.cli.options import Device, Json, OwnSteps, Weights, emit, say, tell
from perco_lite.evaluation.codecs import DEFAULT_CODECS

CODECS = ",".join(DEFAULT_CODECS)
LADDER = "0.05,0.1,0.2,0.4,0.7,1"

Dataset = Annotated[
    str,
    typer.Argument(
        help="A folder of photos, or kodak, coco30k (squashed to 512x512 as in the paper), "
        "coco30k-native, coco_eval, val, large, samples. Photos may be in webdataset shards."
    ),
]
Output = Annotated[
    Path, typer.Option("-o", "--output", help="CSV; JSON and pictures go beside it.")
]
Rates = Annotated[
    str | None, typer.Option(help="Comma-separated; default: all that the weights serve.")
]
Codecs = Annotated[
    str,
    typer.Option(
        help="Comma-separated; also jpegxl, jpegxl-shrunk, bpg, vtm (by their programs), "
        "factorized, hyperprior, mbt2018-mean, mbt2018, cheng2020 (compressai), and perco with "
        "something changed: perco+steps=20, perco+guidance=3+seed=1, perco+caption=none."
    ),
]
Metrics = Annotated[
    str, typer.Option(help="Comma-separated, or all; what cannot be computed stays empty.")
]
Ladder = Annotated[
    str | None,
    typer.Option(help=f"Bits per pixel for classical codecs, besides; usual: {LADDER}."),
]
Photos = Annotated[int, typer.Option(help="The first so many photos; 0 = all.", min=0)]
Folder = Annotated[Path | None, typer.Option(help="Where the photos of a named set are.")]
Captions = Annotated[
    Path | None, typer.Option(help='{"photo.png": "caption"}, or a COCO captions file.')
]
Names = Annotated[Path | None, typer.Option("--list", help="File names to use, one a line.")]
Resize = Annotated[
    str | None,
    typer.Option(
        help="none, squash to WIDTHxHEIGHT, or shrink to long:SIDE, without smaller photos; "
        "default: the set's rule."
    ),
]
Guidance = Annotated[float | None, typer.Option(help="Weight of the caption; 1 = off.")]
Temperature = Annotated[float | None, typer.Option(help="Scale of the first noise.")]
Anchor = Annotated[float | None, typer.Option(help="0 = off, as in the paper.")]
Rounds = Annotated[
    int | None, typer.Option(help="Of closed-loop encoding; 0 = nearest codes, as in the paper.")
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Measure nothing unless every photo and metric that was asked for is here.",
    ),
]
Controls = Annotated[
    bool,
    typer.Option(
        "--controls",
        help="Measure pictures known to be wrong, too, and say which measures they fool.",
    ),
]


def evaluate_command(
    dataset: Dataset,
    output: Output,
    rates: Rates = None,
    codecs: Codecs = CODECS,
    metrics: Metrics = "all",
    ladder: Ladder = None,
    photos: Photos = 0,
    folder: Folder = None,
    captions: Captions = None,
    names: Names = None,
    resize: Resize = None,
    steps: OwnSteps = None,
    guidance: Guidance = None,
    temperature: Temperature = None,
    anchor: Anchor = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    rounds: Rounds = None,
    controls: Controls = False,
    strict: Strict = False,
    batch: Annotated[int, typer.Option(help="Photos in memory at a time.", min=1)] = 4,
    keep: Annotated[bool, typer.Option(help="Leave the pictures; set metrics need them.")] = True,
    weights: Weights = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure codecs on photos: a table with a row per photo, codec and rate, and a summary.

    Run again after a crash, it goes on where it stopped.
    """
    from perco_lite.evaluation.table import check_writable

    check_writable(output)  # before torch is loaded

    from perco_lite.evaluation.datasets import open_dataset

    found = open_dataset(dataset, folder, captions, names, resize, photos)
    wanted = _split(codecs, "--codecs")

    from perco_lite.evaluation.codecs.controls import CONTROLS
    from perco_lite.evaluation.codecs.ours import Decoding
    from perco_lite.evaluation.evaluate import evaluate
    from perco_lite.rates import RATES

    scores = _metrics(metrics)  # checked before weights are loaded
    wanted += CONTROLS if controls else ()
    codec = _load(weights, device, wanted)
    rungs = [_number(text) for text in _split(ladder or "", "--ladder", empty=True)]
    chosen = [rate.name for rate in RATES] if codec is None else codec.rates
    chosen = chosen if rates is None else _split(rates, "--rates")
    how = Decoding(steps, guidance, temperature, anchor, seed)
    common = found, output, wanted, scores, chosen, codec, rungs, how, rounds, keep, batch
    summary = evaluate(*common, quiet=as_json, say=lambda line: say(line, err=True), strict=strict)
    if summary:  # else another process of the same run tells
        if controls:
            summary["controls"] = _judged(output)
        _answer(summary, output, as_json)


def _metrics(text: str) -> tuple[str, ...]:
    from perco_lite.evaluation.scoring import PHOTO_METRICS, SET_METRICS, check_names

    every = (*PHOTO_METRICS, *SET_METRICS)
    return every if text == "all" else check_names(_split(text, "--metrics", empty=True))


def _judged(output: Path) -> list[str]:
    from perco_lite.evaluation.controls import judge_controls
    from perco_lite.evaluation.results import load_results

    return [verdict.text() for verdict in judge_controls(load_results(output.stem, output.parent))]


def _load(weights: str | None, device: str | None, codecs: list[str]):
    """The codec on ``device``, or on this process's own where several share a machine.

    None where no name among ``codecs`` needs weights.
    """
    from perco_lite.evaluation.codecs.controls import OTHER_TEXTURE
    from perco_lite.evaluation.codecs.variants import is_ours
    from perco_lite.evaluation.evaluate import processes
    from perco_lite.loading import load_codec

    if not any(name == OTHER_TEXTURE or is_ours(name) for name in codecs):
        return None
    state = processes(device)
    return load_codec(weights, device or (str(state.device) if state.num_processes > 1 else None))


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


def _answer(summary: dict, output: Path, as_json: bool) -> None:
    """Print the summary; what failed for one photo makes the exit code 2."""
    if as_json:
        emit(json.dumps(summary, indent=1))
    else:
        emit(_text_table(summary["results"]))
        for name, reason in summary["codecs"].items():
            if reason != "measured":
                say(f"not measured: {name} ({reason})")
        for line in summary.get("controls", ()):
            say(f"controls: {line}")
        say(f"{output}, {output.with_suffix('.json')}")
    for one in summary["skipped"]:
        tell(f"{' '.join(filter(None, (one['photo'], one['codec'], one['rate'])))}: {one['error']}")
    if summary["skipped"]:
        raise typer.Exit(2)


def _text_table(results: list[dict]) -> str:
    """Means per codec and rate, one a line; every figure with its interval is in the JSON."""
    first = ["codec", "rate", "photos", "reached"]
    skip = {*first, "header_bytes", "caption_bytes", "index_bytes"}
    names = [n for n in dict.fromkeys(n for r in results for n in r) if n not in skip]
    lines = [[*first, *names]]
    for result in results:
        figures = (result.get(name, {}) for name in names)
        values = [figure.get("mean", figure.get("value", "")) for figure in figures]
        cells = [f"{v:.4g}" if isinstance(v, float | int) else str(v) for v in values]
        lines.append([*(str(result.get(name, "")) for name in first), *cells])
    pattern = "  ".join(f"{{:{max(map(len, column))}}}" for column in zip(*lines, strict=True))
    return "\n".join(pattern.format(*line).rstrip() for line in lines)
