"""The rows of an evaluation: which are still to be made, and what stands in each.

    rows that are there ──rates_to_do──► per photo, the codecs and rates without a row
    Attempt ──RowMaker──► sizes, scores, seconds, settings as text, one cell each

Paper: nothing of this.
Differs from the paper: PerCo (SD) keeps a line per photo, without settings.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator

from PIL import Image

from perco_lite.evaluation.codecs.ours import PROBLEMS, Attempt
from perco_lite.evaluation.datasets import Photo, PhotoSet
from perco_lite.evaluation.scoring import PHOTO_METRICS
from perco_lite.evaluation.table import EvaluationFiles, ResultTable, Row
from perco_lite.files import explain

ABOUT = ("photo", "width", "height", "codec", "rate", "target_bytes", "reached", "quality")
SIZES = ("bytes", "header_bytes", "caption_bytes", "index_bytes", "bpp")
SECONDS = ("encode_seconds", "decode_seconds")
HOW = ("steps", "guidance", "temperature", "anchor", "seed", "sampler", "model")

PhotoJob = tuple[Photo, Image.Image, dict[str, list[str]]]  # and, per method, the rates to try


def columns(metrics: Iterable[str]) -> tuple[str, ...]:
    """Columns of the table; those of metrics in their own order, whatever was asked first."""
    scores = (name for name in PHOTO_METRICS if name in set(metrics))
    return (*ABOUT, *SIZES, *scores, *SECONDS, *HOW, "settings")


def skip(photo: str, codec: str, rate: str, error: Exception) -> dict[str, str]:
    """What is told of a photo, or one codec's work on it, that failed."""
    return {"photo": photo, "codec": codec, "rate": rate, "error": explain(error)}


class RowMaker:
    """Turns attempts into rows: sizes, scores, seconds, and how they came about."""

    def __init__(self, functions: dict, settings: dict):
        self.functions = functions
        described = json.dumps(settings, sort_keys=True).encode()
        self.described, self.settings = settings, hashlib.sha256(described).hexdigest()[:12]

    def rows(
        self, methods: list, jobs: list[PhotoJob], skipped: list, bar
    ) -> Iterator[tuple[Row, Image.Image]]:
        """Run photos through all methods; what fails goes to ``skipped``."""
        originals = {photo.name: image for photo, image, _ in jobs}
        scored: dict[tuple, Row] = {}  # the same file is often the best for several rates
        for method in methods:
            tasks = [(photo, image, rates[method.name]) for photo, image, rates in jobs]
            for attempt in method.run([task for task in tasks if task[2]]):
                bar.update()
                photo = attempt.photo
                key = photo.name, attempt.codec, attempt.data
                try:
                    if attempt.error is not None:
                        raise attempt.error
                    if attempt.data is None or key not in scored:
                        scored[key] = self._scores(originals[photo.name], attempt)
                    how = method.how(attempt.rate)
                    yield self._row(attempt, scored[key], how), attempt.image
                except PROBLEMS as error:
                    skipped.append(skip(photo.name, attempt.codec, attempt.rate, error))

    def _scores(self, original: Image.Image, attempt: Attempt) -> Row:
        pair = original, attempt.image, attempt.photo.caption
        return {name: _text(function(*pair)) for name, function in self.functions.items()}

    def _row(self, attempt: Attempt, scores: Row, how: Row) -> Row:
        width, height = attempt.image.size
        names = ("target_bytes", "quality", *SECONDS)
        numbers = {"width": width, "height": height, **{n: getattr(attempt, n) for n in names}}
        if attempt.data is not None:
            size = len(attempt.data)
            numbers |= {"bytes": size, "bpp": 8 * size / (width * height)}
        if attempt.file is not None:
            parts = {"header": "header", "caption": "caption", "index": "indices"}
            numbers |= {f"{n}_bytes": attempt.file.ledger[part] for n, part in parts.items()}
        return {
            "photo": attempt.photo.name,
            "codec": attempt.codec,
            "rate": attempt.rate,
            "reached": "" if attempt.reached is None else str(attempt.reached),
            **{name: _text(value) for name, value in numbers.items()},
            **scores,
            **how,
            "settings": self.settings,
        }


def refuse_others(
    table: ResultTable, files: EvaluationFiles, dataset: PhotoSet, methods: list, maker: RowMaker
) -> None:
    """Raise ``ValueError`` for a table of other settings, photos or decodings than this run's."""
    for (settings,) in table.distinct("settings"):
        if settings != maker.settings:
            raise ValueError(files.other_settings(maker.described))
    for (photo,) in table.distinct("photo"):
        if photo not in dataset.all_names:
            raise ValueError(
                f"{files.table} has {photo}, which is not in {dataset.name} any more; name "
                "another output"
            )
    known = {(method.name, rate): method for method in methods for rate in method.points}
    for codec, rate, *cells in table.distinct("codec", "rate", *HOW):
        method = known.get((codec, rate))
        how = {} if method is None else method.how(rate)
        expected = {name: how.get(name, "") for name in HOW}
        other = {k: v for k, v in zip(HOW, cells, strict=True) if v != expected[k]}
        if other and method is not None:
            raise ValueError(
                f"{files.table} has {codec} rows with {other}, this run has "
                f"{ {k: expected[k] for k in other} }; name another output"
            )


def rates_to_do(table: ResultTable, methods: list, photo: Photo) -> dict[str, list[str]]:
    """Per method, the rates at which a photo has no row yet."""
    done = table.done(photo.name)
    return {m.name: [rate for rate in m.points if (m.name, rate) not in done] for m in methods}


def load_photos(
    table: ResultTable, methods: list, dataset: PhotoSet, photos: Iterable[Photo], skipped: list
) -> list[PhotoJob]:
    """Photos that need rows, with their image and, per method, the rates."""
    jobs = []
    for photo in photos:
        rates = rates_to_do(table, methods, photo)
        if any(rates.values()):
            try:
                jobs.append((photo, dataset.load(photo), rates))
            except PROBLEMS as error:
                skipped.append(skip(photo.name, "", "", error))
    return jobs


def _text(value: int | float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"
