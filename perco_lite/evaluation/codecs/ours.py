"""What an evaluation compares of perco, each asked the same way: photos and rates in, pictures out.

    (photo, image, rates) … ──run──► Attempt: the file's bytes, the picture, seconds, or the error

    perco           indices, caption, denoising: the codec
    perco-estimate  the same file, decoded without diffusion: the regression that the bits imply
    autoencoder     no file: what the latents can hold, the ceiling of all rates
    perco+steps=20  perco with something changed: ``variants``

The codecs of others are in ``classical``, ``external`` and ``learned``.

Paper: PerCo, Sec. 4.
Differs from the paper: it has no estimate; the ceiling is in its table of ablations.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch
from PIL import Image

from perco_lite.codec import DEFAULT_ANCHOR, PercoCodec
from perco_lite.coding.bitstream import UnpackedFile, unpack
from perco_lite.data import image_to_tensor, pad_to_multiple, tensor_to_image
from perco_lite.evaluation.datasets import Photo
from perco_lite.metrics import Unavailable
from perco_lite.sampling import choose_steps
from perco_lite.tiling import decode_in_groups

OURS = ("perco", "perco-estimate", "autoencoder")  # those that need weights
PROBLEMS = Exception  # of one photo, not of the run
_FILES_KEPT = 256  # of some hundred bytes each


@dataclass(frozen=True)
class Decoding:
    """How perco paints, as ``PercoCodec.decompress`` takes it; None: what suits the weights."""

    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    anchor: float | None = None
    seed: int = 0
    sampler: str | None = None

    def __post_init__(self):
        numbers = [n for n in (self.guidance, self.temperature, self.anchor) if n is not None]
        steps = 1 if self.steps is None else self.steps
        if steps < 1 or not all(map(math.isfinite, numbers)) or not 0 <= self.seed < 2**63:
            raise ValueError(
                f"got {self}, expected steps of at least 1, a seed from 0 to 2^63 - 1 and numbers"
            )
        if not 0 <= (self.anchor or 0) <= 1 or (self.temperature or 0) < 0:
            raise ValueError(
                f"got anchor {self.anchor} and temperature {self.temperature}, expected an "
                "anchor from 0 to 1 and a temperature of at least 0"
            )

    def of(self, codec: PercoCodec, rate: str) -> "Decoding":
        """What it comes to with these weights at this rate: nothing is None.

        Raises ``ValueError`` for a sampler that the weights were not trained for.
        """
        steps = choose_steps(codec.config.few_steps, rate, self.steps, self.sampler)
        fast = not isinstance(steps, int)
        own = {  # as ``sampling.paint_latents`` has it
            "guidance": codec.config.guidance_scale,
            "temperature": 1.0 if fast else codec.config.temperature,
            "anchor": 0.0 if fast else DEFAULT_ANCHOR,
        }
        own = {name: value for name, value in own.items() if getattr(self, name) is None}
        own |= {"steps": len(steps) if fast else steps, "sampler": "fast" if fast else "paper"}
        return replace(self, **own)


@dataclass(frozen=True)
class Attempt:
    """One photo through one codec at one rate; ``error`` where there is no picture."""

    photo: Photo
    codec: str
    rate: str
    image: Image.Image | None = None
    data: bytes | None = None  # the whole file; None where there is none
    file: UnpackedFile | None = None  # what it decodes to, if it is perco's
    target_bytes: int | None = None
    reached: bool | None = None  # False: even the smallest file is above the target
    quality: float | None = None  # of a classical codec, on its own scale
    encode_seconds: float | None = None
    decode_seconds: float | None = None  # of photos decoded together: their share
    error: Exception | None = None


Job = tuple[Photo, Image.Image, list[str]]  # a photo and the rates to try


class Method:
    """A codec that works on one photo at one rate at a time.

    ``attempt`` gives what there is to say in an ``Attempt``, and may raise any of ``PROBLEMS``.
    """

    name: str
    points: tuple[str, ...]  # all its rates
    attempt: Callable[[Photo, Image.Image, str], dict]

    def how(self, rate: str) -> dict[str, str]:
        """What stands in the columns ``rows.HOW`` at a rate; here nothing."""
        return {}

    def run(self, jobs: list[Job]) -> Iterator[Attempt]:
        """Yield an attempt per photo and rate."""
        for photo, image, rates in jobs:
            for rate in rates:
                try:
                    made = self.attempt(photo, image, rate)
                except PROBLEMS as error:
                    made = {"error": error}
                yield Attempt(photo, self.name, rate, **made)


class Sent:
    """A file of perco's and the seconds it took to make; decoded once, when somebody asks."""

    def __init__(self, data: bytes, seconds: float):
        self.data, self.seconds = data, seconds

    @cached_property
    def file(self) -> UnpackedFile:
        return unpack(self.data)


class PercoFiles:
    """perco's files of the photos at hand, made once for all who decode them."""

    def __init__(self, codec: PercoCodec, rounds: int | None = None, price: float | None = None):
        """``rounds`` of closed-loop refinement, ``price`` of a bit; None = the codec's own."""
        self.codec, self.rounds, self.price = codec, rounds, price
        self._kept: dict[tuple[str, str | None, str], Sent] = {}

    @cached_property
    def model(self) -> dict[str, str]:
        """What is told of the weights beside every picture of theirs."""
        return {"model": f"{self.codec.model_id:#06x}"}

    def get(self, photo: Photo, image: Image.Image, rate: str) -> Sent:
        """The file of a photo at a rate."""
        key = (photo.name, photo.caption, rate)
        if key not in self._kept:
            started = time.perf_counter()
            how = rate, self.rounds, self.price
            data = self.codec.compress(image, photo.caption or "", *how)
            self._kept[key] = Sent(data, time.perf_counter() - started)
            if len(self._kept) > _FILES_KEPT:
                self._kept.pop(next(iter(self._kept)))
        return self._kept[key]


class Perco:
    """The codec itself; photos of one size are decoded together."""

    name = "perco"

    def __init__(self, files: PercoFiles, rates: Iterable[str], decoding: Decoding):
        """Raises ``ValueError`` for a decoding that these weights cannot be asked for."""
        self.files, self.points, self.decoding = files, tuple(rates), decoding
        for rate in self.points:
            decoding.of(files.codec, rate)

    def how(self, rate: str) -> dict[str, str]:
        """Everything that the picture depends on besides the file."""
        codec = self.files.codec
        told = asdict(self.decoding.of(codec, rate))
        fast, seed = told.pop("sampler") == "fast", str(told.pop("seed"))
        painted = {name: f"{value:g}" for name, value in told.items()}
        painted |= {"seed": seed, "sampler": "fast" if fast else type(codec.scheduler).__name__}
        return painted | self.files.model

    def send(self, photo: Photo, image: Image.Image, rate: str) -> Sent:
        """The file that is decoded."""
        return self.files.get(photo, image, rate)

    def run(self, jobs: list[Job]) -> Iterator[Attempt]:
        """Yield an attempt per photo and rate, in groups as they are decoded."""
        made = []
        for photo, image, rates in jobs:
            for rate in rates:
                try:
                    made.append((photo, rate, self.send(photo, image, rate)))
                except PROBLEMS as error:
                    yield Attempt(photo, self.name, rate, error=error)
        files = [sent.file for _, _, sent in made]
        pictures = decode_in_groups(files, lambda group: self._decode([files[i] for i in group]))
        for number, picture, seconds in pictures:
            photo, rate, sent = made[number]
            if isinstance(picture, Exception):
                yield Attempt(photo, self.name, rate, error=picture)
                continue
            about = {"encode_seconds": sent.seconds, "decode_seconds": seconds}
            yield Attempt(photo, self.name, rate, picture, sent.data, sent.file, **about)

    def _decode(self, files: list[UnpackedFile]) -> list[Image.Image]:
        how = asdict(self.decoding)
        steps, guidance = how.pop("steps"), how.pop("guidance")
        # photos of ours, of whatever size
        return self.files.codec.decompress(files, steps, guidance, max_pixels=None, **how)


class Estimate(Perco):
    """perco's file, decoded by the condition decoder and the autoencoder alone."""

    name = "perco-estimate"

    def __init__(self, files: PercoFiles, rates: Iterable[str], decoding: Decoding):
        """``decoding`` plays no part. Raises ``Unavailable`` for weights that estimate nothing."""
        super().__init__(files, rates, decoding)
        conditioner = files.codec.conditioner
        if conditioner.estimate(torch.empty(1, conditioner.channels, 1, 1)) is None:
            raise Unavailable(
                "these weights estimate nothing before diffusion: they have no condition decoder"
            )

    def how(self, rate: str) -> dict[str, str]:
        return self.files.model

    def _decode(self, files: list[UnpackedFile]) -> list[Image.Image]:
        return [self.files.codec.estimate(file) for file in files]


class Ceiling(Method):
    """The autoencoder alone, with nothing quantized or painted."""

    name, points = "autoencoder", ("",)

    def __init__(self, files: PercoFiles):
        self.codec, self.files = files.codec, files

    def how(self, rate: str) -> dict[str, str]:
        return self.files.model

    @torch.no_grad()
    def attempt(self, photo: Photo, image: Image.Image, rate: str) -> dict:
        autoencoder = self.codec.autoencoder
        times = [time.perf_counter()]
        tensor = pad_to_multiple(image_to_tensor(image), 8)
        latents = autoencoder.encode(tensor.to(self.codec.device, autoencoder.dtype))
        times.append(time.perf_counter())
        decoded = autoencoder.decode(latents)[0, :, : image.height, : image.width]
        decoded = tensor_to_image(decoded)
        times.append(time.perf_counter())
        encode, decode = np.diff(times)
        return {"image": decoded, "encode_seconds": encode, "decode_seconds": decode}
