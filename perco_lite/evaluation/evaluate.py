"""Photos × codecs × rates → one table, one row at a time, and a summary of how and what.

    names, weights, rates ──build_methods──► [method, …], {name: why it cannot run here}
    PhotoSet ──a few photos──► method.run ──► Attempt ──┬─► out_pictures/CODEC/RATE/PHOTO.png
                                                        └─ metrics ─► a row of the table
    all rows ──summary──► out.json: settings, protocols, means, intervals, deltas

A row is written when its picture is, and is not made again by the next run; a table made with
other settings is refused. Under ``accelerate launch`` each process takes every n-th handful of
photos, so that what is decoded together, and with it the table, is the same for any n.
One run at a time may write to one output.

Paper: PerCo, Sec. 4: VTM, BPG, HiFiC, MS-ILLM and others.
Differs from the paper: everything is measured on the file that would be sent; what cannot run is
named, and nothing takes its place.
"""

import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from pathlib import Path

from tqdm import tqdm

from perco_lite.codec import PercoCodec
from perco_lite.coding.bitstream import WRITTEN_VERSION
from perco_lite.coding.entropy_coding import caption_table_id
from perco_lite.coding.index_prior import find_prior, prior_table_id
from perco_lite.evaluation.codecs.ours import Decoding
from perco_lite.evaluation.datasets import PhotoSet
from perco_lite.evaluation.methods import build_methods
from perco_lite.evaluation.rows import (
    RowMaker,
    columns,
    load_photos,
    rates_to_do,
    refuse_others,
    skip,
)
from perco_lite.evaluation.scoring import PHOTO_METRICS, SetScorer, check_names, load_photo_metrics
from perco_lite.evaluation.summary import group_rows, score_sets, write_summary
from perco_lite.evaluation.table import EvaluationFiles, ResultTable
from perco_lite.files import explain, printable, save_png
from perco_lite.loading import weights_digest

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
    strict: bool = False,
) -> dict:
    """Measure every photo with every codec at every rate; return the summary, also at out.json.

    Args:
        output: CSV to make or go on with; the JSON and the folder of pictures are beside it.
        codecs: see ``build_methods``; ``metrics``: see ``scoring``.
        rates: of perco; classical codecs get its bytes for each photo.
        codec: loaded weights; needed for perco, perco-estimate and autoencoder. Without them
            classical codecs get the bytes of perco's file with no index prior.
        ladder: bits per pixel to measure classical codecs at, besides.
        decoding: how perco paints; default: as suits the weights.
        rounds: of perco's closed-loop encoding; None = its own number, 0 = nearest codes.
        keep: leave the pictures on disk; set metrics need them.
        batch: photos to hold in memory at a time.
        say: gets what a reader should know, a line each.
        strict: a photo or metric that is missing is an error, before anything is measured.
    Returns:
        the summary; in processes other than the first an empty dict.
    Raises:
        OSError, ValueError: before any work, if the output cannot be written or is another
            table, or a name is unknown. What fails for one photo alone is in the summary.
    """
    started = time.perf_counter()
    if batch < 1:
        raise ValueError(f"got batch {batch}, expected at least 1 photo at a time")
    if rounds is not None and rounds < 0:
        raise ValueError(f"got {rounds} rounds, expected 0 (nearest code) or more")
    names = tuple(dict.fromkeys(codecs)), check_names(metrics), tuple(dict.fromkeys(rates))
    decoding = decoding or Decoding()
    run = _Run(dataset, Path(output), *names, codec, tuple(ladder), decoding, rounds, keep)
    if run.state.is_main_process:
        run.tell(say)
    if strict:
        run.refuse_gaps()
    run.open()
    skipped = run.measure(batch, quiet)
    run.share_sets()
    if not run.state.is_main_process:
        run.table.close()
        return {}
    first = next(iter(names[2]), None)
    told = decoding.of(codec, first) if codec and first else decoding  # each row has its own
    about = {"decoding": asdict(told), "batch": batch, "skipped": skipped}
    about["device"] = "cpu" if codec is None else str(codec.device)
    return run.finish(about, started, quiet)


class _Run:
    """An evaluation of which everything that can be known beforehand is known to work."""

    def __init__(
        self, dataset, output, codecs, metrics, rates, codec, ladder, decoding, rounds, keep
    ):
        self.codecs, self.metrics, self.keep = codecs, metrics, keep
        self.files = EvaluationFiles(output)
        self.files.check()
        self.methods, self.missing = build_methods(
            codecs, codec, rates, ladder, decoding, rounds, dataset
        )
        self.dataset, self.unreadable = dataset.without_unreadable()
        if not self.dataset.photos:
            first = self.unreadable[0][1]
            raise ValueError(f"none of these photos can be read; the first: {first}")
        self.state = processes("cpu" if codec is None else codec.device.type)
        self.loaded = load_photo_metrics(metrics)
        self.scorer = SetScorer(metrics, self.dataset, self.files.pictures, keep)
        protocols = self.loaded.protocols
        self.settings = {
            "dataset": dataset.name,
            "resize": dataset.resize_rule,
            "captions": dataset.captions,
            "metrics": {name: protocols.get(name) for name in metrics if name in PHOTO_METRICS},
            "file_format": file_format(codec, rates),
            "weights": weights_digest(codec) if codec else "none",
        }
        if rounds is not None:
            self.settings["closed_loop_rounds"] = rounds
        self.maker = RowMaker(self.loaded.functions, self.settings)
        self.table = ResultTable(self.files.table, columns(metrics))
        self.table.check()

    def tell(self, say: Callable[[str], None]) -> None:
        """What a reader should know before hours are spent."""
        for line in self.dataset.notes:
            say(f"note: {line}")
        for name, reason in (self.loaded.missing | self.scorer.missing | self.missing).items():
            say(f"not measured: {name} ({reason})")
        for photo, error in self.unreadable:
            say(f"left out: {photo.name} ({explain(error)})")
        if self.unreadable:
            whole = len(self.dataset.photos) + len(self.unreadable)
            say(f"left out: {len(self.unreadable)} of {whole} photos")

    def refuse_gaps(self) -> None:
        """Raise ``ValueError`` that names all photos and metrics that are not here."""
        missing = self.loaded.missing | self.scorer.missing
        gaps = [f"{name} ({reason})" for name, reason in missing.items()]
        gaps += [f"{photo.name} ({explain(error)})" for photo, error in self.unreadable]
        gaps += [f"photos: {note}" for note in self.dataset.gaps]
        if gaps:
            raise ValueError(
                f"{len(gaps)} things are missing, and nothing was measured: {'; '.join(gaps)}"
            )

    def open(self) -> None:
        """Open the table in every process, or in none; one that is refused stays as it was."""
        self.state.wait_for_everyone()  # nobody writes while another still looks
        if self.state.is_main_process:
            self.table.open()
        self.state.wait_for_everyone()
        refused = None
        try:
            refuse_others(self.table, self.files, self.dataset, self.methods, self.maker)
        except ValueError as error:
            refused = error
        self.state.wait_for_everyone()  # nobody adds rows while another still reads
        if refused is not None:
            self.table.close(remove=self.table.made)
            raise refused
        if self.state.is_main_process:
            self.files.start(self.settings)
            before = self.files.previous.get("commits", [])
            self.commits = list(dict.fromkeys([*before, code_commit() or "unknown"]))

    def measure(self, batch: int, quiet: bool) -> list[dict]:
        """Make the rows that are not there yet, of this process's photos; what failed, of all."""
        state, dataset, table = self.state, self.dataset, self.table
        unreadable = self.unreadable if state.is_main_process else ()
        skipped = [skip(photo.name, "", "", error) for photo, error in unreadable]
        chunks = [dataset.photos[i : i + batch] for i in range(0, len(dataset.photos), batch)]
        chunks = chunks[state.process_index :: state.num_processes]
        missing = (rates_to_do(table, self.methods, photo) for chunk in chunks for photo in chunk)
        count = sum(len(rates) for to_do in missing for rates in to_do.values())
        hidden = quiet or not state.is_main_process
        with tqdm(total=count, desc=printable(dataset.name, 60), unit="row", disable=hidden) as bar:
            for chunk in chunks:
                jobs = load_photos(table, self.methods, dataset, chunk, skipped)
                for row, image in self.maker.rows(self.methods, jobs, skipped, bar):
                    if self.keep:
                        path = self.files.picture(row["codec"], row["rate"], row["photo"])
                        save_png(image, path)
                    table.append(row)
        if state.num_processes > 1:
            from accelerate.utils import gather_object

            skipped = gather_object(skipped)  # waits for all of them
        return skipped

    def share_sets(self) -> None:
        """Of several processes, each scores some of the sets; the summary finds them scored."""
        number, count = self.state.process_index, self.state.num_processes
        if count == 1:
            return
        groups = group_rows(self.table.rows(), self.loaded.functions)[number::count]
        score_sets(groups, self.scorer, self.dataset, self.files, self.table, quiet=True)
        self.state.wait_for_everyone()

    def finish(self, about: dict, started: float, quiet: bool) -> dict:
        """Write the CSV and the summary."""
        self.table.write()
        about |= {
            "settings": self.settings,
            "codecs": {name: self.missing.get(name, "measured") for name in self.codecs},
            "processes": self.state.num_processes,
            "commits": self.commits,  # of all runs that made rows of this table
        }
        parts = self.files, self.table, self.dataset, self.loaded, self.scorer, self.metrics
        summary = write_summary(*parts, about, started, quiet)
        self.table.close(remove=True)
        return summary


def file_format(codec: PercoCodec | None, rates: Iterable[str]) -> dict:
    """What perco's bytes depend on besides weights; the prior that its files use, or "none"."""
    used = codec is not None and any(find_prior(codec.model_id, rate) for rate in rates)
    return {
        "version": WRITTEN_VERSION,
        "caption_table": f"{caption_table_id():#06x}" if WRITTEN_VERSION > 1 else "none",
        "index_prior": f"{prior_table_id():#06x}" if used and WRITTEN_VERSION > 1 else "none",
    }


def code_commit() -> str | None:
    """Commit of the code that runs, "… and changes" where files differ from it; None without git.

    Of an installed package, too, nobody knows.
    """
    here = Path(__file__).resolve().parents[2]
    try:
        if not (here / ".git").exists():
            return None
        git = partial(subprocess.run, cwd=here, capture_output=True, text=True, check=True)
        commit = git(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = git(["git", "status", "--porcelain", "-uno", "--", "perco_lite"]).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit} and changes" if changed.strip() else commit


def processes(device: str | None = None):
    """The processes of this run, of which there is one without ``accelerate launch``."""
    import torch
    from accelerate import PartialState

    # told that it is no CPU, accelerate takes processes without a GPU for strangers to each other
    cpu = device == "cpu" if device else not torch.cuda.is_available()
    # one process may wait for another that has hours to go
    return PartialState(cpu=cpu, timeout=timedelta(days=7))
