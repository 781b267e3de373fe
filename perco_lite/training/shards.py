"""Photos to train on, one after the other, from webdataset shards or from a plain folder.

    shard-000.tar: KEY.webp + KEY.json ──┐        (from disk, or streamed from a URL)
    folder: photo.jpg, captions.json   ──┴──► ShardPhoto(key, image, captions, …)

Nothing is shuffled, cropped or resized here: the order is that of the sorted file names. What
cannot be read, whatever it is, is skipped and counted; where it is more than a hundredth, reading
stops. Shards come from strangers: their files are never written to disk, and their size is bounded.

Paper: PerCo, Sec. 4.1 (OpenImages, 9M photos).
Differs from the paper: any photos, with captions where there are some.
"""

import io
import json
import tarfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from webdataset.shardlists import expand_urls
from webdataset.tariterators import group_by_keys

from perco_lite.data import decode_photo, find_data, list_photos, load_photo, read_caption_lists
from perco_lite.files import explain, printable

SHARD_PHOTO_SUFFIXES = ("webp", "jpg", "jpeg", "png")
RETRIES, RETRY_SECONDS = 2, 5.0  # of a shard that is downloaded
MAX_SHARD_BYTES, MAX_FILES = 2**32, 400_000  # all of it is in memory at once
MAX_FILE_BYTES = 2**28
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd


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
        self.messages.append(printable(error if isinstance(error, str) else explain(error), 300))
        count = len(self.messages)
        if count > self.grace and count > self.share * (self.seen + count):
            raise ValueError(
                f"{count} of {self.seen + count} photos cannot be read, over {self.share:.0%}: "
                f"repair or download the data again; the first: {self.messages[0]}"
            )

    def conclude(self, place: object) -> None:
        """One warning that counts them all, if there are any; ValueError if nothing else was."""
        if not self.seen:
            raise ValueError(f"no photo to be read in {place}; the first: {self.messages[0]}")
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

    A URL may count: ``https://…/train-{000..099}.tar``. Raises FileNotFoundError where there is
    none; whether those of a URL or a folder can be opened shows when they are read.
    """
    shards: list[str] = []
    for path in map(str, [paths] if isinstance(paths, str | Path) else paths):
        if is_url(path):
            found = expand_urls(path)
        elif Path(path).is_dir():
            found = sorted(map(str, Path(path).glob("*.tar")))
        else:
            found = [path] if Path(path).is_file() else []
        if not found:
            raise FileNotFoundError(f"no shard in {path}; see data/README.md for what is expected")
        shards += found
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
        try:
            with _open_shard(shard) as opened:
                stream = _Watched(opened)
                files = _read_files(stream, shard)
                # of two files of one name, the first counts
                samples.extend(group_by_keys(files, handler=lambda error: True))
                if not stream.ends_well():
                    samples = samples[:-1]
                    raise ValueError("ends without the zeros that close a tar file: cut short")
        except Exception as error:  # tarfile raises a dozen kinds on broken bytes
            problems.append(explain(error))
        if not problems or not is_url(shard) or attempt == RETRIES:
            break
        time.sleep(RETRY_SECONDS)
    if not samples and not problems:
        problems.append("an empty shard, expected photos")
    return samples, f"{shard}: {problems[0]}" if problems else None


def _read_files(stream, shard: str) -> Iterator[dict]:
    """Files of a tar stream for ``group_by_keys``; in place of one that is refused, why, as text.

    Nothing is decompressed: a megabyte of gzip may be a terabyte of zeros, as a sparse file may.
    """
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for number, member in enumerate(tar):
            if number >= MAX_FILES:
                raise ValueError(f"holds over {MAX_FILES:,} files; make smaller shards")
            tar.members = []  # it would keep them all
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                data = "is a link, a device or a sparse file"
            elif member.name.startswith("/") or ".." in member.name.split("/"):
                data = "has a name outside of its shard"
            elif member.size > MAX_FILE_BYTES:
                data = f"has {member.size:,} bytes, expected at most {MAX_FILE_BYTES:,}"
            else:
                data = tar.extractfile(member).read()
            yield {"fname": member.name, "data": data, "__url__": shard}


class _Watched:
    """A stream of bounded size that remembers its end: tarfile takes many a cut file for whole."""

    def __init__(self, stream):
        self.stream, self.tail, self.count = stream, b"", 0

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        if not self.count and data.startswith(COMPRESSED):
            raise ValueError("is compressed, expected a plain tar file; decompress it first")
        self.count += len(data)
        if self.count > MAX_SHARD_BYTES:
            raise ValueError(f"is over {MAX_SHARD_BYTES:,} bytes; make smaller shards")
        self.tail = (self.tail + data)[-512:]
        return data

    def ends_well(self) -> bool:
        while self.read(2**20):
            pass
        return self.tail == bytes(512)


def _open_shard(shard: str):
    # webdataset's own opener takes paths for URLs (C:…), and hides why a download failed
    if not is_url(shard):
        if Path(shard).is_fifo():
            raise OSError("a pipe, which may never end")
        return open(shard, "rb")
    if shard.startswith("http"):
        return urllib.request.urlopen(shard, timeout=60)
    from webdataset.gopen import gopen

    return gopen(shard)


def _read_shards(shards: list[str]) -> Iterator[ShardPhoto]:
    faults = Faults()
    for shard in shards:
        samples, problem = read_samples(shard)
        yield from _decode_all(decode_sample, samples, faults)
        if problem:
            faults.note(problem)
    faults.conclude(shards[0] if len(shards) == 1 else f"{len(shards)} shards")


def _decode_all(decode: Callable, items: Iterable, faults: Faults) -> Iterator[ShardPhoto]:
    for item in items:
        try:
            photo = decode(item)
        except Exception as error:  # one photo never ends a training, whatever is wrong with it
            faults.note(error)
            continue
        faults.seen += 1
        yield photo


def decode_sample(sample: dict) -> ShardPhoto:
    """Decode one of ``read_samples``; raises, mostly ValueError, where photo or text are broken."""
    name = f"{sample['__url__']}:{sample['__key__']:.100}"
    suffix = next((suffix for suffix in SHARD_PHOTO_SUFFIXES if suffix in sample), None)
    if suffix is None:
        raise ValueError(f"{name} has no photo; expected KEY.{'|'.join(SHARD_PHOTO_SUFFIXES)}")
    if isinstance(sample[suffix], str):
        raise ValueError(f"{name}.{suffix} {sample[suffix]}")
    about = read_about(sample)
    return ShardPhoto(
        key=sample["__key__"],
        image=decode_photo(io.BytesIO(sample[suffix]), name),
        captions=about["captions"],
        source=str(about.get("source", "")),
        squashed=bool(about.get("squashed", False)),
    )


def read_about(sample: dict) -> dict:
    """A sample's JSON, its ``captions`` a list of texts (or one text there); else ValueError."""
    content = sample.get("json", b"{}")
    try:
        about = json.loads(content)
        texts = about.get("captions") or []
        texts = [texts] if isinstance(texts, str) else texts
        "".join(texts).encode()  # half a surrogate pair is text to JSON, not to a tokenizer
        if not isinstance(texts, list):
            raise TypeError("a mapping")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{sample['__url__']}:{sample['__key__']:.100}.json is {content!r:.60}, expected an "
            "object whose captions are text or a list of texts"
        ) from error
    return about | {"captions": texts}


def _read_photos(photos: list[Path], folder: Path) -> Iterator[ShardPhoto]:
    captions_file = folder / "captions.json"
    captions = read_caption_lists(captions_file) if captions_file.is_file() else {}
    faults = Faults()

    def decode(photo: Path) -> ShardPhoto:
        return ShardPhoto(photo.stem, load_photo(photo), captions.get(photo.name, []), folder.name)

    yield from _decode_all(decode, photos, faults)
    faults.conclude(folder)
