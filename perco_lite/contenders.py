"""The codecs an evaluation compares, each asked the same way: photos and rates in, pictures out.

    (photo, image, rates) … ──run──► Attempt: the file's bytes, the picture, seconds, or the error

    perco           indices, caption, denoising: the codec
    perco-estimate  the same file, decoded without diffusion: the regression that the bits imply
    autoencoder     no file: what the latents can hold, the ceiling of all rates
    classical       the file nearest to, and not above, perco's bytes for that photo, or a ladder's

perco's bytes do not depend on its weights, only on rate, size and caption, so that a classical
codec can be measured without them.

Paper: PerCo, Sec. 4: VTM, BPG, HiFiC, MS-ILLM at their own rates.
Differs from the paper: codecs are compared photo by photo at equal bytes.
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from perco_lite import baselines
from perco_lite.bitstream import PercoFile, pack, unpack
from perco_lite.codec import (
    DEFAULT_ANCHOR,
    DEFAULT_GUIDANCE,
    DEFAULT_TEMPERATURE,
    PercoCodec,
    group_by_size,
)
from perco_lite.data import image_to_tensor, pad_to_multiple, tensor_to_image
from perco_lite.datasets import Photo
from perco_lite.rates import get_rate

OURS = ("perco", "perco-estimate", "autoencoder")  # those that need weights
PROBLEMS = (MemoryError, RuntimeError, ValueError, OSError)  # of one photo, not of the run
_FILES_KEPT = 256  # of some hundred bytes each


@dataclass(frozen=True)
class Decoding:
    """How perco paints; the defaults are the codec's own."""

    steps: int = 20
    guidance: float = DEFAULT_GUIDANCE
    temperature: float = DEFAULT_TEMPERATURE
    anchor: float = DEFAULT_ANCHOR
    seed: int = 0


@dataclass(frozen=True)
class Attempt:
    """One photo through one codec at one rate; ``error`` where there is no picture."""

    photo: Photo
    codec: str
    rate: str
    image: Image.Image | None = None
    data: bytes | None = None  # the whole file; None where there is none
    target_bytes: int | None = None
    reached: bool | None = None  # False: even the smallest file is above the target
    quality: float | None = None  # of a classical codec, on its own scale
    encode_seconds: float | None = None
    decode_seconds: float | None = None  # of photos decoded together: their share
    error: Exception | None = None


Job = tuple[Photo, Image.Image, list[str]]  # a photo and the rates to try


class PercoFiles:
    """perco's files of the photos at hand, made once for all who decode them."""

    def __init__(self, codec: PercoCodec):
        self.codec = codec
        self._kept: dict[tuple[str, str], tuple[bytes, float]] = {}

    def get(self, photo: Photo, image: Image.Image, rate: str) -> tuple[bytes, float]:
        """The file and the seconds it took to make."""
        key = (photo.name, rate)
        if key not in self._kept:
            started = time.perf_counter()
            data = self.codec.compress(image, photo.caption or "", rate)
            self._kept[key] = data, time.perf_counter() - started
            if len(self._kept) > _FILES_KEPT:
                self._kept.pop(next(iter(self._kept)))
        return self._kept[key]


class Perco:
    """The codec itself; photos of one size are decoded together."""

    name = "perco"

    def __init__(self, files: PercoFiles, rates: Iterable[str], decoding: Decoding):
        self.files, self.points, self.decoding = files, tuple(rates), decoding

    def run(self, jobs: list[Job]) -> Iterator[Attempt]:
        """Yield an attempt per photo and rate, in groups as they are decoded."""
        made = []
        for photo, image, rates in jobs:
            for rate in rates:
                try:
                    data, seconds = self.files.get(photo, image, rate)
                except PROBLEMS as error:
                    yield Attempt(photo, self.name, rate, error=error)
                    continue
                made.append((photo, rate, data, seconds))
        groups = group_by_size([unpack(data) for _, _, data, _ in made])
        groups = [[made[i] for i in group] for group in groups]
        while groups:
            group = groups.pop(0)
            started = time.perf_counter()
            try:
                images = self._decode([data for _, _, data, _ in group])
            except PROBLEMS as error:
                if len(group) > 1:  # alone, some of them may still be possible
                    groups = [[one] for one in group] + groups
                    continue
                yield Attempt(group[0][0], self.name, group[0][1], error=error)
                continue
            each = (time.perf_counter() - started) / len(group)
            for (photo, rate, data, seconds), image in zip(group, images, strict=True):
                yield Attempt(
                    photo,
                    self.name,
                    rate,
                    image,
                    data,
                    encode_seconds=seconds,
                    decode_seconds=each,
                )

    def _decode(self, files: list[bytes]) -> list[Image.Image]:
        how = self.decoding
        return self.files.codec.decompress(
            files,
            how.steps,
            how.guidance,
            seed=how.seed,
            anchor=how.anchor,
            temperature=how.temperature,
        )


class Estimate(Perco):
    """perco's file, decoded by the condition decoder and the autoencoder alone."""

    name = "perco-estimate"

    @torch.no_grad()
    def _decode(self, files: list[bytes]) -> list[Image.Image]:
        codec = self.files.codec
        images = []
        for data in files:
            file = unpack(data)
            # the condition's first channels are trained to be the latents (condition.py)
            latents = codec.condition(file)[:, : codec.autoencoder.config.latent_channels]
            image = codec.autoencoder.decode(latents.to(codec.autoencoder.dtype))
            images.append(tensor_to_image(image[0, :, : file.height, : file.width]))
        return images


class Ceiling:
    """The autoencoder alone, with nothing quantized or painted."""

    name, points = "autoencoder", ("",)

    def __init__(self, codec: PercoCodec):
        self.codec = codec

    @torch.no_grad()
    def run(self, jobs: list[Job]) -> Iterator[Attempt]:
        """Yield an attempt per photo."""
        autoencoder = self.codec.autoencoder
        for photo, image, rates in jobs:
            if not rates:
                continue
            try:
                times = [time.perf_counter()]
                tensor = pad_to_multiple(image_to_tensor(image), 8)
                latents = autoencoder.encode(tensor.to(self.codec.device, autoencoder.dtype))
                times.append(time.perf_counter())
                decoded = autoencoder.decode(latents)[0, :, : image.height, : image.width]
                decoded = tensor_to_image(decoded)
                times.append(time.perf_counter())
            except PROBLEMS as error:
                yield Attempt(photo, self.name, "", error=error)
                continue
            encode, decode = np.diff(times)
            yield Attempt(
                photo, self.name, "", decoded, encode_seconds=encode, decode_seconds=decode
            )


class Classical:
    """One codec of ``baselines`` (or of that form), at perco's bytes and on a ladder of bpp."""

    def __init__(
        self,
        name: str,
        rates: Iterable[str],
        ladder: Iterable[float] = (),
        encode_near: Callable[..., baselines.BaselineResult] = baselines.encode_near,
    ):
        self.name, self.encode_near = name, encode_near
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
        else:
            target = perco_bytes(rate, image.width, image.height, photo.caption or "")
        result = self.encode_near(image, self.name, target, tried)
        started = time.perf_counter()
        with Image.open(io.BytesIO(result.data)) as file:
            file.load()
        decode = time.perf_counter() - started
        return Attempt(
            photo,
            self.name,
            rate,
            result.image,
            result.data,
            target,
            result.reached,
            result.quality,
            encode_seconds=tried[result.quality][1],
            decode_seconds=decode,
        )


def ladder_name(bpp: float) -> str:
    """Name of a rung in the table, which no rate of the paper can have."""
    return f"{bpp:g}bpp"


def perco_bytes(rate: str, width: int, height: int, caption: str) -> int:
    """Size of perco's file for any photo of that size and caption, whatever the weights."""
    indices = np.zeros(get_rate(rate).grid_shape(height, width), np.int64)
    return len(pack(PercoFile(get_rate(rate), width, height, caption, indices, model_id=0)))


def build_contenders(
    names: Iterable[str],
    codec: PercoCodec | None,
    rates: tuple[str, ...],
    ladder: tuple[float, ...],
    decoding: Decoding,
) -> tuple[list, dict[str, str]]:
    """Contenders in the order of their names, and for each that cannot run here, why.

    Raises ``ValueError`` for an unknown name, or where none can run.
    """
    names = tuple(dict.fromkeys(names))
    known = (*OURS, *baselines.CODECS)
    for name in names:
        if name not in known:
            raise ValueError(f"got codec {name!r}, expected some of {', '.join(known)}")
    files = PercoFiles(codec) if codec is not None else None
    here = baselines.available()
    contenders, missing = [], {}
    for name in names:
        if name in OURS:
            if codec is None:
                raise ValueError(f"got codec {name!r} but no weights; pass a PercoCodec")
            ours = {
                "perco": lambda: Perco(files, rates, decoding),
                "perco-estimate": lambda: Estimate(files, rates, decoding),
                "autoencoder": lambda: Ceiling(codec),
            }
            contenders.append(ours[name]())
        elif not here[name]:
            missing[name] = "this Pillow has no such codec; pip install --upgrade 'pillow>=11.3'"
        else:
            contenders.append(Classical(name, rates, ladder))
    if not contenders:
        raise ValueError(f"none of the codecs works here: {missing}")
    return contenders, missing
