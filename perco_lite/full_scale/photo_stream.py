"""Training photos streamed from shards or a folder, for data that memory does not hold.

    shards, in an order drawn for each epoch ──► visits: process p of n takes every n-th
    visit ──► up to 1000 photos of one shard, in an order drawn for the visit
    photo n of a process = visit n // 1000, place n % 1000 ──► crop (3,size,size) in [-1,1]

So the number of a photo says which it is: no two processes visit the same shard in an epoch, and a
resumed run finds its place by reading one shard, whatever came before.

Paper: PerCo, Sec. 4.1 (9 million OpenImages photos, 512×512 random crops with flips).
Differs from the paper: a crop's scale is drawn as well, between the whole short side and as sharp
as the photo is, so that the caption often fits what is left of it.
"""

import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from perco_lite.data import list_photos, load_photo, read_caption_lists
from perco_lite.training.shards import (
    Faults,
    decode_sample,
    is_url,
    list_shards,
    read_about,
    read_samples,
)

SHARD_SHARE = 0.01  # of the shards may be broken, and one


class PhotoStream:
    """Crops of photos by number: those that process ``part`` of ``parts`` trains on.

    ``data`` is a folder of shards or of photos (with a captions.json), a shard, or URLs of shards.
    ``captions`` are used for photos that have none of their own, by file name or key. Raises
    FileNotFoundError where there is nothing to read. ``per_visit`` is best the size of a shard: of
    a larger one, that many are drawn, those of a smaller one come several times in a row.
    """

    def __init__(
        self,
        data: str | Path,
        size: int = 512,
        seed: int = 0,
        part: int = 0,
        parts: int = 1,
        per_visit: int = 1000,
        captions: dict[str, list[str]] | None = None,
        workers: int = 8,
    ):
        self.size, self.seed, self.part, self.parts = size, seed, part, parts
        self.per_visit, self.captions = per_visit, dict(captions or {})
        self.shards = self._find_shards(data)
        self.faults, self.broken_shards = Faults(), {}
        self._visits: dict[int, Future] = {}  # this one and the next
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._decoders = ThreadPoolExecutor(workers, thread_name_prefix="photos")

    def crops(self, first: int, count: int) -> tuple[Tensor, list[list[str]]]:
        """Photos ``first`` to ``first + count - 1``: (count,3,size,size) and their captions.

        The place of a photo that cannot be read is taken by another of the batch. Raises
        ValueError when more than 1 % (and ten) cannot, or more than 1 % of the shards (and one).
        """
        submit = self._decoders.submit
        jobs = [submit(self._crop, n, self._sample(n)) for n in range(first, first + count)]
        found = [job.result() for job in jobs]
        good = [one for one in found if not isinstance(one, Exception)]
        self.faults.seen += len(good)
        for error in found:
            if isinstance(error, Exception):
                self._note(error)
        if not good:
            raise ValueError(
                f"none of {count} photos can be read, expected photos in {self.shards[0]!s:.100}; "
                f"the first: {self.faults.messages[0]}"
            )
        for i, one in enumerate(found):
            if isinstance(one, Exception):
                found[i] = good[i % len(good)]
        return torch.stack([crop for crop, _ in found]), [captions for _, captions in found]

    def _note(self, error: Exception) -> None:
        self.faults.note(error)
        count = len(self.faults.messages)
        if count in (1, 10, 100, 1000, 10_000):
            warnings.warn(
                f"skipped {count} photos that cannot be read, so far; the last: "
                f"{self.faults.messages[-1]}",
                stacklevel=3,
            )

    def captioned(self) -> bool:
        """Whether any photo of the first shard has a caption."""
        return any(self._has_caption(sample) for sample in self._read(0))

    def shard_of(self, visit: int) -> int:
        """Number of the shard that this process reads at its ``visit``-th visit."""
        epoch, place = divmod(visit * self.parts + self.part, len(self.shards))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.shards))
        return int(order[place])

    def _sample(self, number: int):
        """Undecoded photo of that number."""
        visit, place = divmod(number, self.per_visit)
        for wanted in (visit, visit + 1):  # the next one is read while this one is used
            if wanted not in self._visits:
                self._visits[wanted] = self._reader.submit(self._read, wanted)
        self._visits = {v: job for v, job in self._visits.items() if v in (visit, visit + 1)}
        samples = self._visits[visit].result()
        # of a small shard, all are taken again and again, each time in another order
        lap, place = divmod(place, len(samples))
        order = np.random.default_rng((self.seed, visit, self.part, lap)).permutation(len(samples))
        return samples[order[place]]

    def _read(self, visit: int) -> list:
        """Samples of the shard of a visit; of the following one where it is broken."""
        first = self.shard_of(visit)
        for number in range(first, first + len(self.shards)):
            shard = self.shards[number % len(self.shards)]
            if not isinstance(shard, str):
                return shard  # paths of photos
            samples, problem = read_samples(shard)
            if problem and shard not in self.broken_shards:
                self.broken_shards[shard] = problem
                if len(self.broken_shards) > max(1, SHARD_SHARE * len(self.shards)):
                    raise ValueError(
                        f"{len(self.broken_shards)} of {len(self.shards)} shards are broken, over "
                        f"{SHARD_SHARE:.0%}; download them again; the last: {problem}"
                    )
                warnings.warn(f"broken shard, {len(samples)} photos used: {problem}", stacklevel=2)
            if samples:
                return samples
        raise ValueError(f"no photo in any of {len(self.shards)} shards; the last: {problem}")

    def _crop(self, number: int, sample) -> tuple[Tensor, list[str]] | Exception:
        try:
            image, captions = self._decode(sample)
        except Exception as error:  # one photo never ends a training, whatever is wrong with it
            return error
        random = np.random.default_rng((self.seed, number, self.part))
        return random_crop(image, self.size, random), captions

    def _has_caption(self, sample) -> bool:
        if isinstance(sample, Path):
            return bool(self.captions.get(sample.name))
        with suppress(ValueError):
            return bool(read_about(sample)["captions"] or self.captions.get(sample["__key__"]))
        return False

    def _decode(self, sample) -> tuple[Image.Image, list[str]]:
        if isinstance(sample, Path):
            return load_photo(sample), self.captions.get(sample.name, [])
        photo = decode_sample(sample)
        return photo.image, photo.captions or self.captions.get(photo.key, [])

    def _find_shards(self, data: str | Path) -> list:
        """Names of shards, or groups of a folder's photos in their place."""
        folder = Path(str(data))
        if is_url(data) or folder.suffix == ".tar" or any(folder.glob("*.tar")):
            return list_shards(data)
        photos = list_photos(folder)
        beside = (folder if folder.is_dir() else folder.parent) / "captions.json"
        if beside.is_file():
            self.captions = read_caption_lists(beside) | self.captions
        # groups of one size or one more, as many for every process
        count = min(len(photos), self.parts * -(-len(photos) // (100 * self.parts)))
        ends = [len(photos) * i // count for i in range(count + 1)]
        self.per_visit = len(photos) // count
        return [photos[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def random_crop(image: Image.Image, size: int, random: np.random.Generator) -> Tensor:
    """Random square of a PIL RGB image at ``size`` pixels: (3,size,size) in [-1,1], half flipped.

    The square's side is between ``size`` (as sharp as the photo is) and the photo's short side; a
    photo that is smaller is enlarged.
    """
    short = min(image.size)
    side = random.uniform(min(size, short), short)
    left, top = (random.uniform(0, length - side) for length in image.size)
    crop = image.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    pixels = np.asarray(crop)
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
