"""The codecs of others in an evaluation: at perco's bytes for each photo, or on a ladder of bpp.

    (photo, image) ──perco's file, or bpp × pixels──► target ──encode_near──► Attempt

The file is the largest that is not above the target, or else the smallest the codec can make
(``reached`` is False). Without weights the target is ``uniform_bytes``: perco's file as it would be
if no index prior made it shorter. Learned codecs have a few qualities, and no search.

Paper: PerCo, Sec. 4: VTM, BPG, HiFiC, MS-ILLM, each at its own rates.
Differs from the paper: codecs are compared photo by photo at equal bytes.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from perco_lite.coding.bitstream import PercoFile, pack
from perco_lite.evaluation.codecs import classical as baselines
from perco_lite.evaluation.codecs.classical import BaselineResult
from perco_lite.evaluation.codecs.ours import PROBLEMS, Attempt, Job, PercoFiles
from perco_lite.evaluation.datasets import Photo
from perco_lite.rates import get_rate


class Classical:
    """One codec of ``baselines`` (or of that form), at perco's bytes and on a ladder of bpp."""

    def __init__(
        self,
        name: str,
        rates: Iterable[str],
        ladder: Iterable[float] = (),
        encode_near: Callable[..., BaselineResult] = baselines.encode_near,
        files: PercoFiles | None = None,
    ):
        """``files``: of perco, whose bytes are the targets; None: ``uniform_bytes``."""
        self.name, self.encode_near, self.files = name, encode_near, files
        self.ladder = {ladder_name(bpp): bpp for bpp in ladder}
        self.points = (*rates, *self.ladder)

    def run(self, jobs: list[Job]) -> Iterator[Attempt]:
        """Yield an attempt per photo and rate; no quality is encoded twice for one photo."""
        for photo, image, rates in jobs:
            tried: baselines.Tried = {}
            for rate in rates:
                try:
                    yield self._attempt(photo, image, rate, tried)
                except PROBLEMS as error:
                    yield Attempt(photo, self.name, rate, error=error)

    def _attempt(self, photo: Photo, image: Image.Image, rate: str, tried: dict) -> Attempt:
        if rate in self.ladder:
            target = max(1, int(self.ladder[rate] * image.width * image.height / 8))
        elif self.files is not None:
            target = len(self.files.get(photo, image, rate).data)
        else:
            target = uniform_bytes(rate, image.width, image.height, photo.caption or "")
        result = self.encode_near(image, self.name, target, tried)
        return Attempt(
            photo,
            self.name,
            rate,
            result.image,
            result.data,
            target_bytes=target,
            reached=result.reached,
            quality=result.quality,
            encode_seconds=tried[result.quality][1],
            decode_seconds=result.decode_seconds,
        )


class Learned:
    """One family of ``learned_codecs``, a network for each of its qualities."""

    def __init__(self, name: str, networks: dict[int, Callable[[Image.Image], BaselineResult]]):
        self.name, self.networks = name, {f"q{quality}": f for quality, f in networks.items()}
        self.points = tuple(self.networks)

    def run(self, jobs: list[Job]) -> Iterator[Attempt]:
        """Yield an attempt per photo and quality."""
        for photo, image, points in jobs:
            for point in points:
                try:
                    result = self.networks[point](image)
                except PROBLEMS as error:
                    yield Attempt(photo, self.name, point, error=error)
                    continue
                yield Attempt(
                    photo, self.name, point, result.image, result.data, quality=result.quality
                )


def load_learned_family(name: str) -> Learned | str:
    """All qualities there are of a learned codec, or why they do not load here."""
    from perco_lite.evaluation.codecs.learned import load_learned

    networks = {}
    for quality in range(1, 9):
        try:
            network, reason = load_learned(name, quality)
        except ImportError as error:
            return str(error)
        except ValueError:  # this codec has fewer
            break
        if network is None:
            return reason
        networks[quality] = network
    return Learned(name, networks)


def ladder_name(bpp: float) -> str:
    """Name of a rung in the table, which no rate of the paper can have."""
    return f"{bpp:g}bpp"


def uniform_bytes(rate: str, width: int, height: int, caption: str) -> int:
    """Size of perco's file with the uniform code for indices, the same for all weights."""
    indices = np.zeros(get_rate(rate).grid_shape(height, width), np.int64)
    return len(pack(PercoFile(get_rate(rate), width, height, caption, indices, model_id=0)))
