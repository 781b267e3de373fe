"""The metrics of an evaluation by name: which can be computed here, and how each is.

    names ──load_photo_metrics──► {name: function (original, reconstruction, caption) -> Score}
                                  protocols, reasons of what is missing
    originals, reconstructions on disk ──SetScorer──► {name: Score}, photos read one at a time

Every metric is tried on a made-up photo before the first real one, so that what does not work is
known before hours are spent, and its protocol is known even if no photo is left to do.

Paper: PerCo, Sec. 4.1.
Differs from the paper: see each metric's own module.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perco_lite import metrics
from perco_lite.metrics import Score

PhotoMetric = Callable[[Image.Image, Image.Image, str | None], Score]

PHOTO_METRICS = ("psnr", "ms_ssim", "lpips_alex", "lpips_vgg", "flat_colour_error")
SET_METRICS = ("fid", "kid", "patch_frechet")
LOWER_IS_BETTER = ("lpips_alex", "lpips_vgg", "flat_colour_error", "fid", "kid", "patch_frechet")
_PROBE_SIDE = 192  # enough for MS-SSIM


class Loaded(NamedTuple):
    """Metrics that work here, and what a reader should know of all that were asked for."""

    functions: dict[str, PhotoMetric]
    protocols: dict[str, str]
    missing: dict[str, str]  # name -> reason


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Metric names without repetition; ``ValueError`` for one that does not exist."""
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in (*PHOTO_METRICS, *SET_METRICS):
            known = ", ".join((*PHOTO_METRICS, *SET_METRICS))
            raise ValueError(f"got metric {name!r}, expected some of {known}")
    return names


def load_photo_metrics(names: Iterable[str]) -> Loaded:
    """Load those of ``names`` that score one photo, and try each once."""
    loaded = Loaded({}, {}, {})
    original, reconstruction = _made_up_pair()
    for name in names:
        if name not in PHOTO_METRICS:
            continue
        function, reason = _load(name)
        if function is not None:
            score = function(original, reconstruction, "coloured squares")
            if score.value is not None:
                loaded.functions[name] = function
                loaded.protocols[name] = score.protocol
                continue
            reason = score.protocol
        loaded.missing[name] = reason
    return loaded


def _made_up_pair() -> tuple[Image.Image, Image.Image]:
    """Flat squares, which every metric can score, and the same a little off."""
    squares = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    side = (_PROBE_SIDE, _PROBE_SIDE)
    original = Image.fromarray(squares).resize(side, Image.Resampling.NEAREST)
    return original, Image.blend(original, Image.new("RGB", side), 0.1)


def _load(name: str) -> tuple[PhotoMetric | None, str]:
    if name == "psnr":
        return lambda a, b, caption: metrics.psnr(a, b), ""
    if name == "ms_ssim":
        return lambda a, b, caption: metrics.ms_ssim(a, b), ""
    if name == "flat_colour_error":
        return lambda a, b, caption: _flat(a, b), ""
    lpips, reason = metrics.load_lpips(name.removeprefix("lpips_"))
    return (None, reason) if lpips is None else (lambda a, b, caption: lpips(a, b)), reason


def _flat(original: Image.Image, reconstruction: Image.Image) -> Score:
    value, _ = metrics.flat_colour_error(original, reconstruction)
    protocol = "mean colour error of flat 32x32 squares, of 255 (perco_lite's own)"
    return Score(value, protocol)


class SetScorer:
    """Scores sets of pictures; what the networks see in the originals is computed once.

    Features are kept in temporary files in ``folder``, so that memory does not grow with photos.
    """

    def __init__(self, names: Iterable[str], folder: Path, pictures_kept: bool = True):
        self.folder = folder
        self.missing: dict[str, str] = {}
        self._families: list[tuple[Callable, dict]] = []
        self._originals: list[FeatureFile] = []
        names = set(names)
        for family, load in _FAMILIES.items():
            if not names & set(family):
                continue
            extract, functions = load() if pictures_kept else (None, "the pictures are not kept")
            if extract is None:
                self.missing.update({name: functions for name in family if name in names})
                continue
            functions = {name: score for name, score in functions.items() if name in names}
            self._families.append((extract, functions))
        self.names = tuple(name for _, functions in self._families for name in functions)

    def score(
        self,
        names: list[str],
        original: Callable[[str], Image.Image],
        reconstruction: Callable[[str], Image.Image],
    ) -> dict[str, Score]:
        """Score the photos called ``names``; the functions read one photo each.

        A metric that these photos do not allow has the value None and the reason.
        """
        scores = {}
        if not self._originals:
            self._originals = [FeatureFile(self.folder) for _ in self._families]
        for (extract, functions), originals in zip(self._families, self._originals, strict=True):
            try:
                with FeatureFile(self.folder) as others:
                    for name in names:
                        if name not in originals:
                            originals.add(name, extract(original(name)))
                        others.add(name, extract(reconstruction(name)))
                    for metric, function in functions.items():
                        scores[metric] = function(originals.read(names), others.read(names))
            except (ValueError, OSError) as error:
                scores.update(dict.fromkeys(functions, Score(None, str(error))))
        return scores


class FeatureFile:
    """Feature vectors (P,F) by name, in a temporary file."""

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder)
        self._places: dict[str, tuple[int, tuple[int, int]]] = {}

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def add(self, name: str, rows: Tensor) -> None:
        """Keep the vectors (P,F) of a photo, as float32."""
        place = self._file.seek(0, 2)
        self._file.write(rows.float().contiguous().numpy().tobytes())
        self._places[name] = place, tuple(rows.shape)

    def read(self, names: Iterable[str]) -> Iterator[Tensor]:
        """Yield the vectors of photos, one photo at a time."""
        for name in names:
            place, shape = self._places[name]
            self._file.seek(place)
            array = np.frombuffer(self._file.read(4 * shape[0] * shape[1]), np.float32)
            yield torch.from_numpy(array.copy()).reshape(shape)


def _inception() -> tuple[Callable | None, dict | str]:
    """What Inception sees in a photo, and the metrics that compare it; or None and the reason."""
    from perco_lite import realism

    network, reason = realism.load_inception()
    if network is None:
        return None, reason
    functions = {
        "fid": lambda a, b: realism.fid(a, b, network),
        "kid": lambda a, b: realism.kid(a, b, network),
    }
    return (lambda photo: realism.photo_features(photo, network)), functions


def _patches() -> tuple[Callable | None, dict | str]:
    """The same for what our own encoder sees in patches."""
    from perco_lite import patch_distance

    encoder, reason = patch_distance.load_patch_encoder()
    if encoder is None:
        return None, reason
    functions = {"patch_frechet": lambda a, b: patch_distance.patch_frechet_distance(a, b)}
    return (lambda photo: patch_distance.patch_features(photo)), functions


_FAMILIES = {("fid", "kid"): _inception, ("patch_frechet",): _patches}
