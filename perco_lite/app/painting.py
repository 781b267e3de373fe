"""Painting for several visitors at once: who waits sees how far it is, who leaves is left.

    Painter.compress(image, caption, rate) ──► bytes
    Painter.paint(file, steps, guidance, seeds) ──► (done, all), (done, all), …, [picture, …]

Work runs on a few threads of its own: a server's threads come and go, and each would keep the
memory and the OpenMP threads of what it once computed.
"""

import copy
import queue
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from perco_lite.captions import warn_of_unheard
from perco_lite.codec import PercoCodec
from perco_lite.coding.bitstream import PercoFile, unpack
from perco_lite.files import MAX_PAINTED

AT_ONCE = 2  # visitors whose pictures are painted at the same time; the others queue
MAX_SEEDS = 6


class Left(Exception):
    """Whoever asked for this is gone."""


@dataclass(frozen=True)
class Progress:
    """So many steps done, of so many."""

    done: int
    steps: int


class Painter:
    """One codec for all visitors; pictures do not depend on who else is there."""

    def __init__(self, codec: PercoCodec, max_pixels: int = MAX_PAINTED):
        """``max_pixels``: of a file that is painted."""
        self.codec, self.max_pixels = codec, max_pixels
        self.model_id = codec.model_id
        self._threads = ThreadPoolExecutor(AT_ONCE, "painter")
        self._warnings = threading.Lock()

    def warm_up(self) -> None:
        """Paint a picture nobody sees, so that the first visitor does not wait for imports."""
        grey = Image.new("RGB", (64, 64), "grey")
        file = unpack(self.compress(grey, "", self.codec.rates[0]))
        for _ in self.paint(file, 1, None, [0]):
            pass

    def compress(self, image: Image.Image, caption: str, rate: str) -> bytes:
        """As ``PercoCodec.compress``, on a thread for that."""
        return self._threads.submit(self.codec.compress, image, caption, rate).result()

    def paint(
        self, file: PercoFile, steps: int | None, guidance: float | None, seeds: list[int]
    ) -> Iterator[Progress | list[Image.Image]]:
        """Yield the progress of the painting and, last, a picture a seed.

        Steps and guidance None: what suits the weights. Closing the iterator stops the painting at
        its next step. Raises as ``PercoCodec.decompress``, before any step.
        """

        def work(report: Callable[[int, int], None]) -> list[Image.Image]:
            codec = copy.copy(self.codec)  # the networks are shared, the progress bar is not
            codec.progress_bar = lambda total: _Bar(report, total)
            options = {"guidance_scale": guidance, "max_pixels": self.max_pixels, "seed": seeds}
            return codec.decompress([file] * len(seeds), steps, **options)

        yield from self._watch(work)

    def unheard(self, caption: str) -> str:
        """What of a caption the model does not hear, in a sentence; "" if it hears all."""
        with self._warnings, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_unheard(self.codec.tokenizer, caption)
        return str(caught[0].message) if caught else ""

    def _watch(self, work) -> Iterator:
        """Run ``work(report)`` on a thread; yield what it reports, and last what it returns."""
        reports, left = queue.SimpleQueue(), threading.Event()

        def report(done: int, steps: int) -> None:
            if left.is_set():
                raise Left
            reports.put(Progress(done, steps))

        job = self._threads.submit(work, report)
        job.add_done_callback(lambda job: reports.put(None))
        try:
            while (progress := reports.get()) is not None:
                yield progress
            yield job.result()
        finally:
            left.set()
            job.cancel()  # if it has not begun


class _Bar:
    """In place of tqdm's: tells how many steps are done."""

    def __init__(self, report: Callable[[int, int], None], total: int):
        self.report, self.total, self.done = report, total, 0

    def __enter__(self) -> "_Bar":
        self.report(0, self.total)
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self) -> None:
        self.done += 1
        self.report(self.done, self.total)


def spread(pictures: list[Image.Image]) -> np.ndarray:
    """How far the pictures of several seeds differ: (H,W) float32, standard deviation of 0..255.

    At each pixel, the root of the channels' mean variance over the pictures.
    """
    if len(pictures) < 2:
        raise ValueError(f"got {len(pictures)} picture, expected 2 or more to compare")
    stack = np.stack([np.asarray(picture, np.float32) for picture in pictures])
    return np.sqrt(stack.var(axis=0).mean(axis=-1))
