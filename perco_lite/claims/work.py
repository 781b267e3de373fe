"""Jobs done, here or by several processes: rows to be stored come back as they are made.

    Job ──Bench──► (key, figures, features) …, or the error of one photo
    jobs ──work_through──► the same, of one process or of many; the caller alone writes

Every process has its own codec and networks; threads are shared out among them.

Paper: nothing of this.
"""

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from perco_lite.claims import trained
from perco_lite.claims.eyes import FEATURES, FIGURES, Eyes
from perco_lite.claims.makers import Studio
from perco_lite.claims.photos import find_photos
from perco_lite.claims.plan import Job, Photos
from perco_lite.claims.store import Key
from perco_lite.codec import PercoCodec
from perco_lite.evaluation.codecs.ours import PROBLEMS
from perco_lite.files import explain
from perco_lite.loading import load_codec

# what a short training is asked for its figure
_OF_TRAINED = {"v_loss": "text: own", "lpips_alex": "perco"}


class Row(NamedTuple):
    """What was made of one photo, to be stored; ``error`` where it was not."""

    key: Key
    figures: dict[str, float]
    features: dict[str, np.ndarray]
    error: str = ""


class Bench:
    """A codec, photos and networks to look with."""

    def __init__(self, codec: PercoCodec, photos: Photos, folder: Path, how: trained.ShortTraining):
        self.codec, self.photos, self.folder, self.how = codec, photos, folder, how
        self.eyes = Eyes()

    def rows(self, job: Job) -> Iterator[Row]:
        """A row a photo and task; what fails for one photo or training alone is in its rows."""
        codec = self.codec
        if job.training:
            try:
                codec = trained.train_short(codec, *job.training, self.folder, self.how)
            except PROBLEMS as error:
                for folder, number, tasks in job.photos:
                    for task in tasks:
                        key = self.photos[folder][number].name, *task[:2]
                        yield Row(key, {}, {}, explain(error))
                return
        studio = Studio(codec)
        for folder, number, tasks in job.photos:
            photo = self.photos[folder][number]
            for made, rate, names in tasks:
                key = photo.name, made, rate
                try:
                    if getattr(studio, "photo", None) is not photo:
                        studio.use(photo)
                    yield self._row(studio, key, names, job)
                except PROBLEMS as error:
                    yield Row(key, {}, {}, explain(error))

    def _row(self, studio: Studio, key: Key, names: tuple[str, ...], job: Job) -> Row:
        _, made, rate = key
        started = time.perf_counter()
        found = studio.make(_OF_TRAINED[names[0]] if job.training else made, rate)
        figures, features = dict(found.figures), {}
        looked = tuple(name for name in names if name in (*FIGURES, *FEATURES))
        if looked:
            seen, features = self.eyes.see(looked, studio.photo, found.original, found.picture)
            figures |= seen
        figures["seconds"] = round(time.perf_counter() - started, 3)
        return Row(key, figures, features)


_bench: dict[str, Bench] = {}  # of a process of its own


def _start(weights, device, chosen, folder, how, threads) -> None:
    torch.set_num_threads(threads)
    os.environ["TQDM_DISABLE"] = "1"  # the first process has the bar
    photos = find_photos(*chosen)
    _bench["own"] = Bench(load_codec(weights, device), photos, folder, how)


def _work(job: Job) -> list[Row]:
    return list(_bench["own"].rows(job))


def work_through(
    jobs: list[Job],
    bench: Bench,
    processes: int,
    weights: str | None,
    device: str | None,
    chosen: tuple,
) -> Iterator[tuple[Job, Iterable[Row]]]:
    """Yield each job with its rows as it is done; with one process in order, by ``bench``.

    ``weights``, ``device``, ``chosen``: what the others load themselves (``find_photos``).
    """
    if processes == 1:
        for job in jobs:
            yield job, bench.rows(job)
        return
    if any(job.training for job in jobs):  # once, before several want them
        trained.cached_latents(bench.codec, bench.folder, bench.how.photos)
    threads = max(1, (os.cpu_count() or 1) // processes)
    own = weights, device, chosen, bench.folder, bench.how, threads
    how = {"mp_context": get_context("spawn"), "initializer": _start, "initargs": own}
    with ProcessPoolExecutor(processes, **how) as pool:
        futures = {pool.submit(_work, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
