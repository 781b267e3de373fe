"""The rows of an evaluation: which are still to be made, and what stands in each.

    rows of out.csv ──ToDo──► per photo, the codecs and rates without a row
    Attempt ──RowMaker──► sizes, scores, seconds, settings as text, one cell each

Paper: nothing of this.
Differs from the paper: PerCo (SD) keeps a line per photo, without settings.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from PIL import Image

from perco_lite.codec import PercoCodec
from perco_lite.evaluation.codecs.ours import PROBLEMS, Attempt, Decoding
from perco_lite.evaluation.datasets import Photo, PhotoSet
from perco_lite.evaluation.scoring import PHOTO_METRICS
from perco_lite.evaluation.table import ResultTable, Row
from perco_lite.files import explain

DEFAULT_CODECS = ("perco", "autoencoder", "perco-estimate", "jpeg", "jpeg2000", "webp", "avif")
SIZES = ("photo", "width", "height", "codec", "rate", "target_bytes", "reached", "quality")
SIZES += ("bytes", "header_bytes", "caption_bytes", "index_bytes", "bpp")
SECONDS = ("encode_seconds", "decode_seconds")
HOW = ("steps", "guidance", "temperature", "anchor", "seed", "sampler", "model")

Job = tuple[Photo, Image.Image, dict[str, list[str]]]  # and, per codec, the rates to try


def columns(metrics: Iterable[str]) -> tuple[str, ...]:
    """Columns of the table; those of metrics in their own order, whatever was asked first."""
    scores = (name for name in PHOTO_METRICS if name in set(metrics))
    return (*SIZES, *scores, *SECONDS, *HOW, "settings")


def skip(photo: str, codec: str, rate: str, error: Exception) -> dict[str, str]:
    """What is told of a photo, or one codec's work on it, that failed."""
    return {"photo": photo, "codec": codec, "rate": rate, "error": explain(error)}


class RowMaker:
    """Turns attempts into rows: sizes, scores, seconds, and how they came about."""

    def __init__(
        self,
        functions: dict,
        codec: PercoCodec | None,
        decoding: Decoding,
        settings: dict,
    ):
        self.functions = functions
        self.described, self.settings = settings, fingerprint(settings)
        painted, weights = {}, {}
        if codec is not None:
            painted = {name: f"{value:g}" for name, value in asdict(decoding).items()}
            painted["seed"] = str(decoding.seed)
            painted["sampler"] = type(codec.scheduler).__name__
            weights["model"] = f"{codec.model_id:#06x}"
        self.how = {
            "perco": painted | weights,
            "perco-estimate": weights,
            "autoencoder": weights,
        }

    def rows(
        self, contenders: list, jobs: list[tuple[Photo, Image.Image, dict]], skipped: list, bar
    ) -> Iterator[tuple[Row, Image.Image]]:
        """Run photos through all contenders; what fails goes to ``skipped``."""
        originals = {photo.name: image for photo, image, _ in jobs}
        scored: dict[tuple, Row] = {}  # the same file is often the best for several rates
        for contender in contenders:
            tasks = [(photo, image, rates[contender.name]) for photo, image, rates in jobs]
            for attempt in contender.run([task for task in tasks if task[2]]):
                bar.update()
                photo = attempt.photo
                key = photo.name, attempt.codec, attempt.data
                try:
                    if attempt.error is not None:
                        raise attempt.error
                    if attempt.data is None or key not in scored:
                        scores = self._scores(originals[photo.name], attempt)
                        scored[key] = scores
                    yield self._row(attempt, scored[key]), attempt.image
                except PROBLEMS as error:
                    skipped.append(skip(photo.name, attempt.codec, attempt.rate, error))

    def _scores(self, original: Image.Image, attempt: Attempt) -> Row:
        scores = {
            name: function(original, attempt.image, attempt.photo.caption)
            for name, function in self.functions.items()
        }
        return {name: _text(value) for name, value in scores.items()}

    def _row(self, attempt: Attempt, scores: Row) -> Row:
        width, height = attempt.image.size
        sizes = {}
        if attempt.data is not None:
            sizes["bytes"] = len(attempt.data)
            sizes["bpp"] = 8 * len(attempt.data) / (width * height)
            if attempt.file is not None:
                parts = attempt.file.ledger
                sizes["header_bytes"] = parts["header"]
                sizes["caption_bytes"] = parts["caption"]
                sizes["index_bytes"] = parts["indices"]
        numbers = {
            "width": width,
            "height": height,
            "target_bytes": attempt.target_bytes,
            "quality": attempt.quality,
            **sizes,
            "encode_seconds": attempt.encode_seconds,
            "decode_seconds": attempt.decode_seconds,
        }
        return {
            "photo": attempt.photo.name,
            "codec": attempt.codec,
            "rate": attempt.rate,
            "reached": "" if attempt.reached is None else str(attempt.reached),
            **{name: _text(value) for name, value in numbers.items()},
            **scores,
            **self.how.get(attempt.codec, {}),
            "settings": self.settings,
        }


class ToDo:
    """Which rows are still to be made; a number per photo, in which each point is a bit."""

    def __init__(self, table: ResultTable, files, dataset: PhotoSet, contenders: list, maker):
        self.dataset = dataset
        self.points = [(c.name, rate) for c in contenders for rate in c.points]
        bits = {point: 1 << number for number, point in enumerate(self.points)}
        names = {name for name, _ in self.points}
        self.done: dict[str, int] = {}
        for row in table.rows():
            if row["settings"] != maker.settings:
                raise ValueError(files.other_settings(maker.described))
            if row["photo"] not in dataset.all_names:
                raise ValueError(
                    f"{files.table} has {row['photo']}, which is not in {dataset.name} any more; "
                    "name another output"
                )
            expected = maker.how.get(row["codec"], {})
            other = {k: row[k] for k in HOW if row[k] != expected.get(k, "")}
            if other and row["codec"] in names:
                raise ValueError(
                    f"{files.table} has {row['codec']} rows with {other}, this run has "
                    f"{ {k: expected.get(k, '') for k in other} }; name another output"
                )
            bit = bits.get((row["codec"], row["rate"]), 0)
            self.done[row["photo"]] = self.done.get(row["photo"], 0) | bit
        self.all = (1 << len(self.points)) - 1

    def count(self, chunks: list[tuple[Photo, ...]]) -> int:
        """How many rows the photos still need."""
        photos = (photo for chunk in chunks for photo in chunk)
        return sum((self.all & ~self.done.get(p.name, 0)).bit_count() for p in photos)

    def load(self, chunk: Iterable[Photo], skipped: list) -> list:
        """Photos that need rows, with their image and, per codec, the rates."""
        jobs = []
        for photo in chunk:
            missing = self.all & ~self.done.get(photo.name, 0)
            if not missing:
                continue
            try:
                image = self.dataset.load(photo)
            except PROBLEMS as error:
                skipped.append(skip(photo.name, "", "", error))
                continue
            rates: dict[str, list[str]] = {name: [] for name, _ in self.points}
            for number, (name, rate) in enumerate(self.points):
                if missing >> number & 1:
                    rates[name].append(rate)
            jobs.append((photo, image, rates))
        return jobs


def fingerprint(settings: dict) -> str:
    """Short digest of settings, in every row."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _text(value: int | float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def order(row: Row) -> tuple:
    """Photos by name, codecs as they are known, rates from low to high."""
    rate = row["rate"].removesuffix("bpp").removeprefix("q")
    known = row["codec"] in DEFAULT_CODECS
    rank = DEFAULT_CODECS.index(row["codec"]) if known else len(DEFAULT_CODECS)
    ladder = row["rate"].endswith("bpp")
    return row["photo"], rank, row["codec"], ladder, float(rate or 0)
