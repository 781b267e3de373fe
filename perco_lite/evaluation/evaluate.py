"""Photos × codecs × rates → one table, one row at a time, and a summary of how and what.

    PhotoSet ──a few photos──► contender.run ──► Attempt ──┬─► out_pictures/CODEC/RATE/PHOTO.png
                                                           └─ metrics ─► a row of out.csv
    all rows ──evaluation_summary──► out.json: settings, protocols, means, intervals, deltas

A row is written when its picture is, and is not made again by the next run; a table made with
other settings is refused. Under ``accelerate launch`` each process takes every n-th handful of
photos, so that what is decoded together, and with it the table, is the same for any n.
One run at a time may write to one output.

Paper: PerCo, Sec. 4.
Differs from the paper: everything is measured on the file that would be sent.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from tqdm import tqdm

from perco_lite.codec import PercoCodec
from perco_lite.coding.bitstream import WRITTEN_VERSION
from perco_lite.coding.entropy_coding import caption_table_id
from perco_lite.coding.index_prior import find_prior, prior_table_id
from perco_lite.evaluation.codecs import classical as baselines
from perco_lite.evaluation.codecs import external as external_codecs
from perco_lite.evaluation.codecs.families import Classical, load_learned_family
from perco_lite.evaluation.codecs.learned import LEARNED_CODECS
from perco_lite.evaluation.codecs.ours import OURS, Ceiling, Decoding, Estimate, Perco, PercoFiles
from perco_lite.evaluation.datasets import PhotoSet
from perco_lite.evaluation.evaluation_files import EvaluationFiles
from perco_lite.evaluation.rows import RowMaker, ToDo, columns, order, skip
from perco_lite.evaluation.scoring import PHOTO_METRICS, SetScorer, check_names, load_photo_metrics
from perco_lite.evaluation.summary import write_summary
from perco_lite.evaluation.table import ResultTable
from perco_lite.files import explain, save_png
from perco_lite.loading import weights_digest
from perco_lite.rates import get_rate

BATCH = 4  # photos in memory


def evaluate(
    dataset: PhotoSet,
    output: str | Path,
    codecs: Iterable[str],
    metrics: Iterable[str],
    rates: Iterable[str],
    codec: PercoCodec | None = None,
    ladder: Iterable[float] = (),
    decoding: Decoding | None = None,
    rounds: int | None = None,
    keep: bool = True,
    batch: int = BATCH,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> dict:
    """Measure every photo with every codec at every rate; return the summary, also at out.json.

    Args:
        output: CSV to make or go on with; the JSON and the folder of pictures are beside it.
        codecs: see ``contenders``; ``metrics``: see ``scoring``.
        rates: of perco; classical codecs get its bytes for each photo.
        codec: loaded weights; needed for perco, perco-estimate and autoencoder. Without them
            classical codecs get the bytes of perco's file with no index prior.
        ladder: bits per pixel to measure classical codecs at, besides.
        rounds: of perco's closed-loop encoding; None = its own number, 0 = nearest codes.
        keep: leave the pictures on disk; set metrics need them.
        batch: photos to hold in memory at a time.
        say: gets what a reader should know, a line each.
    Returns:
        the summary; in processes other than the first an empty dict.
    Raises:
        OSError, ValueError: before any work, if the output cannot be written or is another
            table, or a name is unknown. What fails for one photo alone is in the summary.
    """
    metrics = check_names(metrics)
    codecs, decoding = tuple(dict.fromkeys(codecs)), decoding or Decoding()
    if codec is not None:
        decoding = decoding.of(codec)
    if batch < 1:
        raise ValueError(f"got batch {batch}, expected at least 1 photo at a time")
    if rounds is not None and rounds < 0:
        raise ValueError(f"got {rounds} rounds, expected 0 (nearest code) or more")
    files = EvaluationFiles(Path(output))
    files.check()
    rates = tuple(dict.fromkeys(rates))
    contenders, missing = build_contenders(codecs, codec, rates, tuple(ladder), decoding, rounds)
    dataset, unreadable = dataset.without_unreadable()
    if not dataset.photos:
        raise ValueError(f"none of these photos can be read; the first: {unreadable[0][1]}")
    state = _processes(codec)
    main = state.is_main_process
    loaded = load_photo_metrics(metrics)
    scorer = SetScorer(metrics, dataset, files.pictures, keep)
    if main:
        for line in dataset.notes:
            say(f"note: {line}")
        for name, reason in (loaded.missing | scorer.missing | missing).items():
            say(f"not measured: {name} ({reason})")
        for photo, error in unreadable:
            say(f"left out: {photo.name} ({explain(error)})")
    settings = {
        "dataset": dataset.name,
        "resize": dataset.resize_rule,
        "captions": dataset.captions,
        "metrics": {name: loaded.protocols.get(name) for name in metrics if name in PHOTO_METRICS},
        "file_format": file_format(codec, rates),
        "weights": weights_digest(codec) if codec else "none",
    }
    if rounds is not None:
        settings["closed_loop_rounds"] = rounds
    maker = RowMaker(loaded.functions, codec, decoding, settings)
    table = ResultTable(
        files.table,
        columns(metrics),
        state.process_index if state.num_processes > 1 else None,
    )
    table.check()
    state.wait_for_everyone()  # nobody writes while another still looks
    if main:
        table.repair()
    state.wait_for_everyone()
    to_do = ToDo(table, files, dataset, contenders, maker)
    state.wait_for_everyone()  # nobody adds rows while another still reads
    if main:
        files.start(settings)
    chunks = [dataset.photos[i : i + batch] for i in range(0, len(dataset.photos), batch)]
    chunks = chunks[state.process_index :: state.num_processes]
    skipped = [skip(photo.name, "", "", error) for photo, error in unreadable] if main else []
    hidden = quiet or not main
    with tqdm(total=to_do.count(chunks), desc=dataset.name, unit="row", disable=hidden) as bar:
        for chunk in chunks:
            jobs = to_do.load(chunk, skipped)
            for row, image in maker.rows(contenders, jobs, skipped, bar):
                if keep:
                    save_png(image, files.picture(row["codec"], row["rate"], row["photo"]))
                table.append(row)
    if state.num_processes > 1:
        from accelerate.utils import gather_object

        skipped = gather_object(skipped)  # waits for all of them
    if not main:
        return {}
    table.repair()
    table.sort(order)
    context = {
        "codecs": {name: missing.get(name, "measured") for name in codecs},
        "decoding": asdict(decoding),
        "batch": batch,
        "processes": state.num_processes,
        "device": "cpu" if codec is None else str(codec.device),
        "skipped": skipped,
    }
    return write_summary(files, table, dataset, settings, loaded, scorer, metrics, context, quiet)


def file_format(codec: PercoCodec | None, rates: Iterable[str]) -> dict:
    """What perco's bytes depend on besides weights; the prior that its files use, or "none"."""
    used = codec is not None and any(find_prior(codec.model_id, rate) for rate in rates)
    return {
        "version": WRITTEN_VERSION,
        "caption_table": f"{caption_table_id():#06x}" if WRITTEN_VERSION > 1 else "none",
        "index_prior": f"{prior_table_id():#06x}" if used and WRITTEN_VERSION > 1 else "none",
    }


def _processes(codec: PercoCodec | None):
    """The processes of this run, of which there is one without ``accelerate launch``."""
    from accelerate import PartialState

    on_cpu = codec is None or codec.device.type == "cpu"
    # one process may wait for another that has hours to go
    return PartialState(cpu=on_cpu, timeout=timedelta(days=7))


def build_contenders(
    names: Iterable[str],
    codec: PercoCodec | None,
    rates: tuple[str, ...],
    ladder: tuple[float, ...],
    decoding: Decoding,
    rounds: int | None = None,
) -> tuple[list, dict[str, str]]:
    """Contenders in the order of their names, and for each that cannot run here, why.

    Raises ``ValueError`` for an unknown name or rate, or where none can run.
    """
    names = tuple(dict.fromkeys(names))
    for rate in rates:
        get_rate(rate) if codec is None else codec.rate(rate)
    for bpp in ladder:
        if not 0 < bpp <= 24:
            raise ValueError(f"got {bpp:g} bpp on the ladder, expected above 0 and at most 24")
    known = (*OURS, *baselines.CODECS, *external_codecs.EXTERNAL_CODECS, *LEARNED_CODECS)
    for name in names:
        if name not in known:
            raise ValueError(f"got codec {name!r}, expected some of {', '.join(known)}")
    files = PercoFiles(codec, rounds) if codec is not None else None
    here = baselines.available()
    contenders, missing = [], {}
    for name in names:
        if name in OURS:
            if codec is None:
                raise ValueError(f"got codec {name!r} but no weights; pass a PercoCodec")
            if name == "perco-estimate" and (reason := Estimate.why_not(codec)):
                missing[name] = reason
                continue
            ours = {
                "perco": lambda: Perco(files, rates, decoding),
                "perco-estimate": lambda: Estimate(files, rates, decoding),
                "autoencoder": lambda: Ceiling(codec),
            }
            contenders.append(ours[name]())
        elif name in external_codecs.EXTERNAL_CODECS:
            if reason := external_codecs.why_not(name):
                missing[name] = reason
            else:
                near = external_codecs.encode_near
                contenders.append(Classical(name, rates, ladder, near, files))
        elif name in LEARNED_CODECS:
            family = load_learned_family(name)
            if isinstance(family, str):
                missing[name] = family
            else:
                contenders.append(family)
        elif not here[name]:
            missing[name] = "this Pillow has no such codec; pip install --upgrade 'pillow>=11.3'"
        else:
            contenders.append(Classical(name, rates, ladder, files=files))
    if not contenders:
        raise ValueError(f"none of the codecs works here: {missing}")
    return contenders, missing
