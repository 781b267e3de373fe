"""The metrics of an evaluation by name: which can be computed here, and how each is.

    names ──load_photo_metrics──► {name: function (original, reconstruction, caption) -> float}
                                  protocols, reasons of what is missing
    originals, reconstructions on disk ──SetScorer──► {name: Score}, photos read one at a time

Every metric is tried on a made-up photo before the first real one, so that what does not work is
known before hours are spent, and its protocol is known even if no photo is left to do.

Paper: PerCo, Sec. 4.1.
Differs from the paper: see each metric's own module.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perco_lite import metrics
from perco_lite.evaluation.datasets import PhotoSet, read_instances
from perco_lite.evaluation.metrics.intervals import Score
from perco_lite.evaluation.networks import fetch_networks
from perco_lite.metrics import Unavailable
from perco_lite.perceptual import may_download

PhotoMetric = Callable[[Image.Image, Image.Image, str | None], float | None]

PHOTO_METRICS = ("psnr", "ms_ssim", "lpips_alex", "lpips_vgg", "dists", "clip_score")
PHOTO_METRICS += ("flat_colour_error",)
DISTANCES = ("fid", "kid", "fid_256", "kid_256", "kid_512")  # of two sets
SET_METRICS = (*DISTANCES, "pattern", "miou", "miou_masks", "own_photo", "same_class")
LOWER_IS_BETTER = ("lpips_alex", "lpips_vgg", "dists", "flat_colour_error", *DISTANCES, "pattern")
_PROBE_SIDE = 256  # enough for MS-SSIM and for a patch of FID/256


class Loaded(NamedTuple):
    """Metrics that work here, and what a reader should know of all that were asked for."""

    functions: dict[str, PhotoMetric]
    protocols: dict[str, str]
    missing: dict[str, str]  # name -> reason


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Metric names without repetition; ``ValueError`` for one that does not exist."""
    names, known = tuple(dict.fromkeys(names)), (*PHOTO_METRICS, *SET_METRICS)
    for name in names:
        if name not in known:
            raise ValueError(f"got metric {name!r}, expected some of {', '.join(known)}")
    return names


def load_photo_metrics(names: Iterable[str]) -> Loaded:
    """Load those of ``names`` that score one photo, and try each once."""
    loaded = Loaded({}, {}, {})
    pair = _made_up_pair()
    for name in (name for name in names if name in PHOTO_METRICS):
        try:
            function, protocol = _load(name)
            function(*pair, "coloured squares")
        except Unavailable as error:
            loaded.missing[name] = str(error)
        else:
            loaded.functions[name], loaded.protocols[name] = function, protocol
    return loaded


def _made_up_pair() -> tuple[Image.Image, Image.Image]:
    """Flat squares, which every metric can score, and the same a little off."""
    squares = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    side = (_PROBE_SIDE, _PROBE_SIDE)
    original = Image.fromarray(squares).resize(side, Image.Resampling.NEAREST)
    return original, Image.blend(original, Image.new("RGB", side), 0.1)


def _load(name: str) -> tuple[PhotoMetric, str]:
    """A metric and its protocol; ``Unavailable`` where it does not work here."""
    if name in metrics.PROTOCOLS:
        compute = getattr(metrics, name)
        return lambda a, b, caption: compute(a, b), metrics.PROTOCOLS[name]
    if name == "clip_score":
        from perco_lite.evaluation.metrics.semantics import load_clip

        clip = load_clip()
        return lambda a, b, caption: clip(b, caption or ""), clip.protocol
    if name == "dists":
        from perco_lite.evaluation.metrics.dists import load_dists

        distance = load_dists()
    else:
        distance = metrics.load_lpips(name.removeprefix("lpips_"))
    return lambda a, b, caption: distance(a, b), distance.protocol


class SetScorer:
    """Scores sets of pictures; what the networks see in the originals is computed once.

    It is kept in temporary files in ``folder``, so that memory does not grow with photos.
    """

    def __init__(self, names: Iterable[str], dataset: PhotoSet, folder: Path, kept: bool = True):
        """``kept``: whether pictures stay on disk; without them no set can be scored."""
        self.folder = folder
        self.missing: dict[str, str] = {}
        self._families: list[Family] = []
        self._originals: list[ArrayFile] = []
        asked = set(names)
        for members, load in _FAMILIES.items():
            wanted = [name for name in members if name in asked]
            if not wanted:
                continue
            try:
                if not kept:
                    raise Unavailable("the pictures are not kept")
                family = load(dataset)
                family.of_reconstruction(_made_up_pair()[0])
            except (ImportError, ValueError, RuntimeError, OSError) as error:
                self.missing.update(dict.fromkeys(wanted, str(error)))
            else:
                scores = {name: family.scores[name] for name in wanted}
                self._families.append(family._replace(scores=scores))
        self.names = tuple(name for family in self._families for name in family.scores)

    def score(
        self,
        names: list[str],
        original: Callable[[str], Image.Image],
        reconstruction: Callable[[str], Image.Image],
    ) -> dict[str, Score]:
        """Score the photos called ``names``; the functions read one photo each.

        A metric that these photos do not allow has the value None and the reason.
        """
        if not self._originals:
            self._originals = [ArrayFile(self.folder) for _ in self._families]
        results = {}
        for family, originals in zip(self._families, self._originals, strict=True):
            try:
                with ArrayFile(self.folder) as others:
                    for name in names:
                        if name not in originals:
                            originals.add(name, family.of_original(name, original(name)))
                        others.add(name, family.of_reconstruction(reconstruction(name)))
                    for metric, compute in family.scores.items():
                        results[metric] = compute(originals.read(names), others.read(names))
            except (ValueError, OSError) as error:
                results.update(dict.fromkeys(family.scores, Score(None, str(error))))
        return results


class Family(NamedTuple):
    """Metrics that look at a photo through the same eyes: what these see, and how it is scored."""

    of_original: Callable[[str, Image.Image], np.ndarray | Tensor]
    of_reconstruction: Callable[[Image.Image], np.ndarray | Tensor]
    scores: dict[str, Callable[[Iterator[np.ndarray], Iterator[np.ndarray]], Score]]


class ArrayFile:
    """Arrays by name, in a temporary file."""

    def __init__(self, folder: Path):
        self._file = tempfile.TemporaryFile(dir=folder)
        self._places: dict[str, int] = {}

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def add(self, name: str, values: np.ndarray | Tensor) -> None:
        """Keep an array under a name."""
        self._places[name] = self._file.seek(0, 2)
        np.save(self._file, np.asarray(values))

    def read(self, names: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield arrays, one at a time."""
        for name in names:
            self._file.seek(self._places[name])
            yield np.load(self._file)


def _of_vectors(
    see: Callable[[Image.Image], Tensor], **distances: Callable[[Iterator, Iterator], Score]
) -> Family:
    """Distances between what ``see`` makes of both sets."""

    def on_tensors(distance: Callable) -> Callable:
        return lambda a, b: distance(map(torch.from_numpy, a), map(torch.from_numpy, b))

    scores = {name: on_tensors(distance) for name, distance in distances.items()}
    return Family(lambda name, photo: see(photo), see, scores)


def _inception(dataset: PhotoSet) -> Family:
    return _seen_by_inception("torchmetrics", ("fid", "kid"))


def _inception_patches(dataset: PhotoSet) -> Family:
    """As MS-ILLM."""
    from perco_lite.evaluation.metrics.realism import PATCH

    return _seen_by_inception("torchmetrics", ("fid_256", "kid_256"), patch=PATCH)


def _inception_squashed(dataset: PhotoSet) -> Family:
    """As the paper, as far as that is known."""
    from perco_lite.evaluation.metrics.realism import SQUASH

    return _seen_by_inception("clean-fid", ("kid_512",), squash=SQUASH)


def _seen_by_inception(resize: str, names: tuple[str, ...], **how: int) -> Family:
    from perco_lite.evaluation.metrics import realism

    if may_download():
        fetch_networks(("inception",))
    network = realism.load_inception(resize)
    see = partial(realism.photo_features, network=network, **how)
    scores = {name: partial(getattr(realism, name[:3]), network=network, **how) for name in names}
    return _of_vectors(see, **scores)


def _pattern(dataset: PhotoSet) -> Family:
    from perco_lite.evaluation.metrics.pattern import pattern, wave_power

    return Family(lambda name, photo: wave_power(photo), wave_power, {"pattern": pattern})


def _recognition(dataset: PhotoSet) -> Family:
    from perco_lite.evaluation.metrics import recognition

    if may_download():
        fetch_networks(("lite0",))
    names = ("own_photo", "same_class")
    scores = {name: getattr(recognition, name) for name in names}
    return _of_vectors(recognition.load_recogniser(), **scores)


def _labels(dataset: PhotoSet) -> Family:
    """A segmenter's labels of the reconstruction against its labels of the original."""
    about = "reconstruction against original, both by {}"
    return _segmenter("miou", about, lambda name, photo, segmenter: segmenter(photo))


def _masks(dataset: PhotoSet) -> Family:
    """A segmenter's labels of the reconstruction against masks drawn by people."""
    from perco_lite.evaluation.metrics import semantics

    if dataset.instances is None:
        raise Unavailable(f"{dataset.name} has no instances.json with masks beside its photos")
    annotations = read_instances(dataset.instances)

    def truth(name: str, photo: Image.Image, segmenter) -> np.ndarray:
        size, instances = annotations.get(name, (photo.size, []))
        drawn = semantics.label_map(instances, size, segmenter.labels)
        return np.asarray(Image.fromarray(drawn).resize(photo.size, Image.Resampling.NEAREST))

    about = "reconstruction by {}, against COCO's masks where there are any"
    return _segmenter("miou_masks", about, truth)


def _segmenter(
    metric: str, about: str, truth: Callable[[str, Image.Image, Any], np.ndarray]
) -> Family:
    """mIoU of a segmenter's labels of the reconstruction and the ``truth`` of the original."""
    from perco_lite.evaluation.metrics import semantics

    segmenter = semantics.load_segmenter()
    about = about.format(segmenter.protocol)
    return Family(
        lambda name, photo: truth(name, photo, segmenter).astype(np.uint8),
        lambda photo: segmenter(photo).astype(np.uint8),
        {metric: lambda a, b: semantics.miou(b, a, segmenter.classes, protocol=about)},
    )


_FAMILIES: dict[tuple[str, ...], Callable[[PhotoSet], Family]] = {
    ("fid", "kid"): _inception,
    ("fid_256", "kid_256"): _inception_patches,
    ("kid_512",): _inception_squashed,
    ("pattern",): _pattern,
    ("miou",): _labels,
    ("miou_masks",): _masks,
    ("own_photo", "same_class"): _recognition,
}
