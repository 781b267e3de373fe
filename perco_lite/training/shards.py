"""Photos to train on, one after the other, from webdataset shards or from a plain folder.

    shard-000.tar: KEY.webp + KEY.json ──┐        (from disk, or streamed from a URL)
    folder: photo.jpg, captions.json   ──┴──► ShardPhoto(key, image, captions, …)

Nothing is shuffled, cropped or resized here: the order is that of the sorted file names. What
cannot be read is skipped and counted; where it is more than a hundredth, reading stops.

Paper: PerCo, Sec. 4.1 (OpenImages, 9M photos).
Differs from the paper: any photos, with captions where there are some.
"""

import io
import json
import time
import urllib.request
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys, tar_file_expander

from perco_lite.data import (
    decode_photo,
    find_data,
    list_photos,
    load_photo,
    read_caption_lists,
)

SHARD_PHOTO_SUFFIXES = ("webp", "jpg", "jpeg", "png")
RETRIES, RETRY_SECONDS = 2, 5.0  # of a shard that is downloaded


@dataclass(frozen=True)
class ShardPhoto:
    """One photo: PIL RGB, any number of captions, and whether its aspect ratio was lost."""

    key: str
    image: Image.Image
    captions: list[str] = field(default_factory=list)
    source: str = ""
    squashed: bool = False


class Faults:
    """What could not be read: skipped, counted, and too much above a hundredth of what was seen.

    The first ``grace`` are forgiven, so that a small folder may hold a broken photo.
    """

    def __init__(self, share: float = 0.01, grace: int = 10):
        self.share, self.grace, self.seen = share, grace, 0
        self.messages: list[str] = []

    def note(self, error: Exception | str) -> None:
        """Count one; raises ValueError where they are too many."""
        self.messages.append(str(error))
        count = len(self.messages)
        if count > self.grace and count > self.share * (self.seen + count):
            raise ValueError(
                f"{count} of {self.seen + count} photos cannot be read, over {self.share:.0%}: "
                f"repair or download the data again; the first: {self.messages[0]}"
            )

    def warn(self) -> None:
        """One warning that counts them all, if there are any."""
        if self.messages:
            warnings.warn(
                f"skipped {len(self.messages)} photos or shards that cannot be read; the first: "
                f"{self.messages[0]}",
                stacklevel=3,
            )


def find_training_data(data: str | Path | None) -> str | Path:
    """``data``, or the folder of training photos where ``find_data`` finds it; a URL as it is."""
    if data and is_url(data):
        return str(data)
    found = data or find_data("train")
    if found is None:
        raise FileNotFoundError(
            "no training photos; give --data FOLDER (webdataset shards, or photos with a "
            "captions.json), or set PERCO_LITE_DATA to a folder that has train/"
        )
    if not list(Path(found).glob("*.tar")) and (Path(found) / "train").is_dir():
        found = Path(found) / "train"
    return Path(found)


def read_training_photos(path: str | Path) -> Iterator[ShardPhoto]:
    """Read a folder of shards, one shard, URLs of shards, or a folder of photos.

    Raises ``FileNotFoundError`` at once, before the first photo, if ``path`` is none of these;
    ``ValueError`` when more than 1 % (and ten) cannot be read.
    """
    if is_url(path):
        return read_shards(path)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no training photos at {path}; see data/README.md to get some")
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        return read_shards(path)
    try:
        photos = list_photos(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no training photos in {path}; expected webdataset shards (*.tar, each holding "
            "KEY.webp|jpg|png and KEY.json) or photos (png, jpg, webp, …) with a captions.json"
        ) from None
    return _read_photos(photos, path if path.is_dir() else path.parent)


def read_shards(paths: str | Path | Iterable[str | Path]) -> Iterator[ShardPhoto]:
    """Read what ``list_shards`` finds, one shard after the other."""
    return _read_shards(list_shards(paths))


def list_shards(paths: str | Path | Iterable[str | Path]) -> list[str]:
    """Names of shards: a tar file, a folder's ``*.tar`` sorted, or URLs, as in webdataset.

    A URL may count: ``https://…/train-{000..099}.tar``. Raises FileNotFoundError for a file that
    is not there; whether a URL is shows when it is read.
    """
    if isinstance(paths, str | Path):
        if is_url(paths):
            return expand_urls(str(paths))
        paths = sorted(Path(paths).glob("*.tar")) if Path(paths).is_dir() else [Path(paths)]
    shards = [str(path) for path in paths]
    missing = next((s for s in shards if not is_url(s) and not Path(s).is_file()), None)
    if missing or not shards:
        raise FileNotFoundError(
            f"no shard {missing or '*.tar'}; see data/README.md for what is expected"
        )
    return shards


def is_url(path: str | Path) -> bool:
    """Whether shards are streamed from there: http, https, and what webdataset's tools reach."""
    return str(path).startswith(("http://", "https://", "hf://", "gs://", "s3://"))


def read_samples(shard: str) -> tuple[list[dict], str | None]:
    """Files of one shard, undecoded, grouped by their key; and what went wrong, None if nothing.

    A URL that breaks off is read again from its start, twice. The sample at which a shard breaks
    off is left out, since a part of it may be missing.
    """
    for attempt in range(RETRIES + 1):
        samples, problems = [], []

        def note(error: Exception, problems=problems) -> bool:
            said = str(error.args[0] if error.args else "").split(" @ ")[0]  # no object's address
            problems.append(f"{type(error).__name__}: {said}")
            return False

        try:
            with _open_shard(shard) as opened:
                stream = _Watched(opened)
                files = tar_file_expander([{"url": shard, "stream": stream}], handler=note)
                samples = list(group_by_keys(files, handler=note))
                if not problems and not stream.ends_well():
                    problems.append("ends without the zeros that close a tar file: cut short")
        except OSError as error:
            problems.append(f"{type(error).__name__}: {error}")
        if not problems:
            return samples, None
        if not is_url(shard) or attempt == RETRIES:
            break
        time.sleep(RETRY_SECONDS)
    return samples[:-1], f"{shard}: {problems[0]}"


class _Watched:
    """A stream that remembers its end: tarfile takes many a file that is cut short for whole."""

    def __init__(self, stream):
        self.stream, self.tail = stream, b""

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.tail = (self.tail + data)[-512:]
        return data

    def ends_well(self) -> bool:
        while self.read(2**20):
            pass
        return self.tail == bytes(512)


def _open_shard(shard: str):
    # webdataset's own opener takes paths for URLs (C:…), and hides why a download failed
    if not is_url(shard):
        return open(shard, "rb")
    if shard.startswith("http"):
        return urllib.request.urlopen(shard, timeout=60)
    from webdataset.gopen import gopen

    return gopen(shard)


def _read_shards(shards: list[str]) -> Iterator[ShardPhoto]:
    faults = Faults()
    for shard in shards:
        samples, problem = read_samples(shard)
        for sample in samples:
            try:
                photo = decode_sample(sample)
            except (ValueError, AttributeError) as error:  # PhotoErrors and bad JSON too
                faults.note(error)
                continue
            faults.seen += 1
            yield photo
        if problem:
            faults.note(problem)
    faults.warn()


def decode_sample(sample: dict) -> ShardPhoto:
    """Decode one of ``read_samples``; ValueError for a broken photo or description."""
    key, name = sample["__key__"], f"{sample['__url__']}:{sample['__key__']}"
    suffix = next((suffix for suffix in SHARD_PHOTO_SUFFIXES if suffix in sample), None)
    if suffix is None:
        raise ValueError(f"{name} has no photo; expected KEY.{'|'.join(SHARD_PHOTO_SUFFIXES)}")
    about = json.loads(sample.get("json", "{}"))
    captions = about.get("captions") or []
    return ShardPhoto(
        key=key,
        image=decode_photo(io.BytesIO(sample[suffix]), name),
        captions=[captions] if isinstance(captions, str) else list(captions),
        source=about.get("source", ""),
        squashed=bool(about.get("squashed", False)),
    )


def _read_photos(photos: list[Path], folder: Path) -> Iterator[ShardPhoto]:
    captions_file = folder / "captions.json"
    captions = read_caption_lists(captions_file) if captions_file.is_file() else {}
    faults = Faults()
    for photo in photos:
        try:
            image = load_photo(photo)
        except ValueError as error:
            faults.note(error)
            continue
        faults.seen += 1
        yield ShardPhoto(photo.stem, image, captions.get(photo.name, []), folder.name)
    faults.warn()
