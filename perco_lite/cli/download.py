"""`perco download`: photos of a published list, or networks of metrics, checked and kept.

    list (one name a line, or OpenImages' CSV) ──► URLs ──pooch──► FOLDER/name.jpg
                                                          └──────► FOLDER/checksums.txt
    metrics ──evaluation.networks──► the cache of downloads

A photo arrives whole or not at all, so the same command goes on after a break. Where the list gives
no checksum, the first download's is written down, and what is there is checked against it later.

Paper: PerCo, Sec. 4.1: OpenImages V6 to train on, MS-COCO to measure on.
Differs from the paper: any part of the lists.
"""

import csv
import itertools
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from perco_lite.cli.options import fail, say, tell

# {name} is what a line of the list says, without its suffix
SOURCES = {
    "coco-train2017": "http://images.cocodataset.org/train2017/{name}.jpg",
    "coco-val2017": "http://images.cocodataset.org/val2017/{name}.jpg",
    "coco-val2014": "http://images.cocodataset.org/val2014/{name}.jpg",
    "openimages-train": "https://open-images-dataset.s3.amazonaws.com/train/{name}.jpg",
    "openimages-validation": "https://open-images-dataset.s3.amazonaws.com/validation/{name}.jpg",
    "openimages-test": "https://open-images-dataset.s3.amazonaws.com/test/{name}.jpg",
}
CHECKSUMS = "checksums.txt"
FAILED_SHARE, GRACE = 0.01, 10  # of the photos may fail; and the first ten always


@dataclass(frozen=True)
class Downloads:
    """How many photos are there, of which new, and why others are not: {name: reason}."""

    present: int
    new: int
    failed: dict[str, str]


def download(
    photos: Annotated[
        Path,
        typer.Argument(
            help="One name a line, or OpenImages' CSV; or metrics: the networks of LPIPS, DISTS, "
            "FID, KID and recognition (one alone: alex, vgg, squeeze, inception, lite0)."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the photos.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="coco-train2017, openimages-train, …, or a URL with {name}."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Only the first of the list; 0 = all.", min=0)] = 0,
    workers: Annotated[int, typer.Option(help="Downloads at a time.", min=1)] = 16,
) -> None:
    """Download the photos of a list, or networks; run it again after a break to go on."""
    if output is None and source is None:
        return _download_networks(str(photos))
    if output is None or source is None:
        fail("photos need both --output and --source; networks neither")
    names = read_list(photos)
    if limit:
        names = dict(list(names.items())[:limit])
    done = download_photos(names, output, source, workers)
    for name, reason in done.failed.items():
        say(f"failed: {name}: {reason}", err=True)
    say(f"{output}: {done.present} photos, {done.new} new, {len(done.failed)} failed")


def _download_networks(name: str) -> None:
    if Path(name).is_file():
        fail(f"{name} is a list of photos; say --source and --output")
    from perco_lite.evaluation.networks import fetch_networks

    failed = fetch_networks((name,), lambda line: say(line, err=True))
    for reason in failed.values():
        tell(reason)
    if failed:
        raise typer.Exit(2)


def read_list(path: str | Path) -> dict[str, str | None]:
    """Names of photos without folder and suffix, and their checksums where the list has them.

    A line is ``NAME``, or ``NAME sha256:…`` (or md5:…); ``#`` starts a comment. A CSV with a column
    ``ImageID`` is OpenImages' own. Raises FileNotFoundError, ValueError for an empty or odd list.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no list at {path}; write one name a line, or take OpenImages' CSV"
        )
    entries = dict(_entries(path))
    if not entries:
        raise ValueError(f"{path} names no photo; expected one name a line")
    return entries


def download_photos(
    names: dict[str, str | None],
    folder: str | Path,
    source: str,
    workers: int = 16,
    retries: int = 2,
) -> Downloads:
    """Download the photos of a list (``read_list``) that are not in ``folder`` yet.

    ``source`` is one of SOURCES, or a URL with ``{name}``. Raises ValueError for another source,
    and ConnectionError as soon as more than 1 % of the photos (and ten) have failed.
    """
    import pooch

    template = SOURCES.get(source, source)
    if "{name}" not in template:
        raise ValueError(
            f"source is {source!r}, expected a URL with {{name}} or one of {', '.join(SOURCES)}"
        )
    logging.getLogger("pooch").setLevel(logging.ERROR)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    seen = _read_checksums(folder / CHECKSUMS)
    files = {f"{name}{_suffix(template)}": name for name in names}
    fetcher = pooch.create(
        path=folder,
        base_url="",
        registry={file: names[name] or seen.get(file) for file, name in files.items()},
        urls={file: template.format(name=name) for file, name in files.items()},
        retry_if_failed=retries,
    )
    there = {file for file in files if (folder / file).is_file()}
    failed: dict[str, str] = {}
    with (
        (folder / CHECKSUMS).open("a", encoding="utf-8") as log,
        closing(_fetch(fetcher, files, workers)) as downloads,
    ):
        for file, got in downloads:
            if isinstance(got, Exception):
                failed[files[file]] = " ".join(str(got).split())
                if len(failed) > max(GRACE, FAILED_SHARE * len(files)):
                    raise ConnectionError(
                        f"{len(failed)} of {len(files)} downloads failed, over {FAILED_SHARE:.0%}; "
                        f"what is in {folder} is whole, so run the same command again to go on. "
                        f"The last: {failed[files[file]]}"
                    )
            elif file not in seen:
                log.write(f"{file} sha256:{pooch.file_hash(got)}\n")
                log.flush()
    if failed:
        first = next(iter(failed))
        warnings.warn(
            f"{len(failed)} photos failed; the first, {first}: {failed[first]}", stacklevel=2
        )
    good = {file for file, name in files.items() if name not in failed}
    return Downloads(len(good), len(good - there), failed)


def _fetch(fetcher, files: Iterable[str], workers: int) -> Iterator[tuple[str, str | Exception]]:
    """Each file with the path it was downloaded to, or what went wrong; stops when it is left."""
    from concurrent.futures import ThreadPoolExecutor  # `perco --help` waits for neither

    from tqdm import tqdm

    waiting, pool = iter(files), ThreadPoolExecutor(workers)
    try:
        with tqdm(total=len(files), desc="photos", unit="photo", mininterval=2) as bar:
            # a list may have millions: some hundreds are enough to keep the workers busy
            while chunk := list(itertools.islice(waiting, 32 * workers)):
                jobs = {file: pool.submit(fetcher.fetch, file) for file in chunk}
                for file, job in jobs.items():
                    bar.update()
                    try:
                        yield file, job.result()
                    except (OSError, ValueError) as error:  # requests' errors are OSErrors
                        yield file, error
    finally:
        pool.shutdown(cancel_futures=True)


def _entries(path: Path) -> Iterator[tuple[str, str | None]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix == ".csv":
            rows = csv.DictReader(file)
            if "ImageID" not in (rows.fieldnames or ()):
                raise ValueError(f"{path} has no column ImageID; is it a list of OpenImages?")
            yield from ((_plain(path, row["ImageID"]), None) for row in rows)
        else:
            yield from _lines(path, file)


def _lines(path: Path, lines: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    for line in lines:
        words = line.split("#")[0].split()
        if not words:
            continue
        checksum = words[1] if len(words) > 1 else None
        if len(words) > 2 or (checksum and not re.fullmatch(r"(sha256|md5):[0-9a-f]+", checksum)):
            raise ValueError(f"{path}: got {line.strip()!r}, expected `NAME` or `NAME sha256:…`")
        yield _plain(path, words[0]), checksum


def _plain(path: Path, name: str) -> str:
    """``train/abc.jpg`` -> ``abc``: nothing that would leave the folder."""
    name = re.sub(r"\.(jpg|jpeg|png|webp)$", "", name.rsplit("/", 1)[-1])
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"{path}: got the name {name!r}, expected letters, digits, _ - .")
    return name


def _suffix(template: str) -> str:
    return Path(template.split("?")[0]).suffix or ".jpg"


def _read_checksums(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split() for line in lines if len(line.split()) == 2)
