"""perco with something changed, by a name that says what: ``perco+steps=20``.

    perco+steps=20       painted in twenty steps; also guidance, temperature, anchor, seed, sampler
    perco+rounds=0       nearest codes: another file; price=0: a bit costs nothing
    perco+caption=none   another caption in the file: none, other (another photo's), machine
    perco+grid=none      painted from the caption alone, the condition zero; there is no file
    perco+quantizer=off  painted from what the quantizer was given, its vectors; no file either

Several changes have a + between them: ``perco+caption=none+seed=2``. What is not named is as in
perco, so that rows of one photo differ by that alone.

Paper: PerCo, RQ2, RQ4 and RQ5 (captions, steps, guidance, quantization).
Differs from the paper: where it trains anew without text or grid, these weights were trained with.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cache

import torch
from PIL import Image
from torch import Tensor

from perco_lite.captioning.captioner import Captioner
from perco_lite.codec import PercoCodec
from perco_lite.data import image_to_tensor, pad_to_multiple
from perco_lite.evaluation.codecs.ours import OURS, Decoding, Method, Perco, PercoFiles, Sent
from perco_lite.evaluation.datasets import Photo, PhotoSet
from perco_lite.metrics import Unavailable
from perco_lite.rates import get_rate
from perco_lite.tiling import encode_image

PREFIX = "perco+"
NUMBERS = {"steps": int, "guidance": float, "temperature": float, "anchor": float, "seed": int}
WORDS = {
    "sampler": ("fast", "paper"),
    "caption": ("none", "other", "machine"),
    "grid": ("none",),
    "quantizer": ("off",),
}
ENCODING = {"rounds": int, "price": float}
CHANGES = (*NUMBERS, *ENCODING, *WORDS)


def is_ours(name: str) -> bool:
    """Whether a codec needs weights of ours."""
    return name in OURS or name.startswith(PREFIX)


def read_changes(name: str) -> dict[str, int | float | str]:
    """Changes by name, of ``perco+steps=20+seed=1``; ``ValueError`` for what cannot be changed."""
    changes = {}
    for part in name.removeprefix(PREFIX).split("+"):
        key, _, text = part.partition("=")
        kind = (NUMBERS | ENCODING).get(key)
        try:
            value = text if kind is None else kind(text)
        except ValueError:
            value = None
        if key not in CHANGES or value is None or value not in WORDS.get(key, (value,)):
            known = [*(f"{n}=NUMBER" for n in (*NUMBERS, *ENCODING))]
            known += [f"{n}={'|'.join(words)}" for n, words in WORDS.items()]
            raise ValueError(f"got codec {name!r}, expected perco+ and some of {', '.join(known)}")
        changes[key] = value
    if {"grid", "quantizer"} <= set(changes):
        raise ValueError(f"got codec {name!r}, expected grid=none or quantizer=off, not both")
    return changes


def build_variant(
    name: str,
    files: PercoFiles,
    rates: Iterable[str],
    decoding: Decoding,
    photos: PhotoSet | None = None,
) -> Method | Perco:
    """The codec called ``name``; ``decoding``: perco's own, of which it changes a part.

    ``photos``: whose captions other photos get. Raises ``ValueError`` as ``read_changes`` and
    ``Decoding``, ``Unavailable`` where no captioner or no other caption is there.
    """
    changes = read_changes(name)
    how = replace(decoding, **{n: v for n, v in changes.items() if n in asdict(decoding)})
    if set(ENCODING) & set(changes):
        files = PercoFiles(files.codec, *(changes.get(key) for key in ENCODING))
    caption = _caption_source(changes.get("caption"), photos)
    if not {"grid", "quantizer"} & set(changes):
        return Variant(name, files, rates, how, caption)
    return Unsent(name, files, rates, how, caption, "grid" in changes)


def _caption_source(kind: str | None, photos: PhotoSet | None):
    """Function (photo, image) -> caption."""
    if kind is None:
        return lambda photo, image: photo.caption
    if kind == "none":
        return lambda photo, image: ""
    if kind == "machine":
        return _Machine()
    told = [p for p in (photos.photos if photos else ()) if p.caption]
    if len(told) < 2:
        raise Unavailable("no other photo has a caption")
    # the next one's; of a photo that has none itself, the first one's
    others = {a.name: b.caption for a, b in zip(told, told[1:] + told[:1], strict=True)}
    return lambda photo, image: others.get(photo.name, told[0].caption)


class _Machine:
    """Captions by the bundled captioner, each photo's once."""

    def __init__(self):
        try:
            self.captioner = Captioner.from_pretrained()
        except (FileNotFoundError, ValueError) as error:
            raise Unavailable(f"no captioner ({error})") from error
        self.known: dict[str, str] = {}

    def __call__(self, photo: Photo, image: Image.Image) -> str:
        if photo.name not in self.known:
            self.known[photo.name] = self.captioner(image)
        return self.known[photo.name]


class Variant(Perco):
    """perco with other settings, another caption or other codes: a file, painted."""

    def __init__(self, name: str, files: PercoFiles, rates, decoding: Decoding, caption):
        super().__init__(files, rates, decoding)
        self.name, self.caption = name, caption

    def send(self, photo: Photo, image: Image.Image, rate: str) -> Sent:
        return self.files.get(replace(photo, caption=self.caption(photo, image)), image, rate)


class Unsent(Method):
    """Painted from a condition that no file can hold; so there are no bytes."""

    def __init__(self, name: str, files: PercoFiles, rates, decoding, caption, empty: bool):
        self.name, self.points, self.files = name, tuple(rates), files
        self.decoding, self.caption, self.empty = decoding, caption, empty
        self.how = cache(Perco(files, rates, decoding).how)

    def attempt(self, photo: Photo, image: Image.Image, rate: str) -> dict:
        condition = unquantized(self.files.codec, image, rate)
        condition = torch.zeros_like(condition) if self.empty else condition
        options = asdict(self.decoding)
        how = options.pop("steps"), options.pop("guidance"), options.pop("seed")
        caption = self.caption(photo, image) or ""
        (picture,) = self.files.codec.paint(condition, [caption], rate, *how, **options)
        return {"image": picture.crop((0, 0, *image.size))}


@torch.no_grad()
def unquantized(codec: PercoCodec, image: Image.Image, rate: str) -> Tensor:
    """Condition (1,C,h',w') of a photo from the unit vectors before their quantization."""
    padded = pad_to_multiple(image_to_tensor(image), get_rate(rate).stride)
    latents = encode_image(
        codec.autoencoder, padded.to(codec.device, codec.autoencoder.dtype), codec.tiling
    )
    return codec.conditioner.unquantized(latents, rate)
