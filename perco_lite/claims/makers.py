"""Whatever the claims compare, made of one photo: files, paintings, rivals, losses.

    Studio(codec) ──use(photo)──► makers[name](studio, rate) ──► Made: figures, and a picture
        "perco" · "perco-estimate" · "avif-shrunk" · "loop of 20" · "text: own" · "file" · …

Every painting of a photo starts from the same noise, whatever made it, so that what is compared
differs in the one thing that its name says. "perco" is what ``PercoCodec.decompress`` does by
default; the loops are the paper's: ``sampler="paper"``, temperature 1, no anchor.

Paper: PerCo, Sec. 4.
Differs from the paper: rivals have the bytes of our file of the same photo.
"""

import zlib
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from perco_lite.captioning import Captioner
from perco_lite.claims.photos import LARGE, ClaimPhoto, middle
from perco_lite.codec import PercoCodec
from perco_lite.coding.bitstream import UnpackedFile, unpack
from perco_lite.coding.entropy_coding import pack_text, zlib_bytes
from perco_lite.data import image_to_tensor, pad_to_multiple, tensor_to_image
from perco_lite.evaluation.codecs import shrunk
from perco_lite.evaluation.photos import known_sentences, sentence
from perco_lite.rates import get_rate
from perco_lite.unet import velocity_losses

RIVALS = ("avif-shrunk", "webp-shrunk", "jpeg2000-shrunk")
PAPER_LOOP = {"sampler": "paper", "temperature": 1.0, "anchor": 0.0}


class Made(NamedTuple):
    """Figures of the thing itself, and a picture to be measured; ``original`` if not the photo."""

    figures: dict[str, float]
    picture: Image.Image | None = None
    original: Image.Image | None = None


class Studio:
    """A codec and one photo at a time; what several makers need of it is made once."""

    def __init__(self, codec: PercoCodec):
        self.codec = codec

    def use(self, photo: ClaimPhoto) -> None:
        """Turn to another photo."""
        self.photo, self.image = photo, photo.image
        self.seed = zlib.crc32(photo.name.encode())
        self.data, self.latents = cache(self._data), cache(self._latents)

    def make(self, name: str, rate: str) -> Made:
        """One of MAKERS, at a rate ("" where it has none)."""
        made = MAKERS[name](self, rate)
        return made if made.picture is None or made.original else made._replace(original=self.image)

    def _data(self, rate: str, caption: str | None = None) -> bytes:
        caption = self.photo.caption if caption is None else caption
        return self.codec.compress(self.image, caption, rate)

    def file(self, rate: str, caption: str | None = None) -> UnpackedFile:
        """The photo's file with its own caption, or another."""
        return unpack(self.data(rate, caption))

    @torch.no_grad()
    def _latents(self, stride: int) -> Tensor:
        """Of the photo with its edges repeated up to a multiple of ``stride`` pixels."""
        tensor = pad_to_multiple(image_to_tensor(self.image), stride)
        autoencoder = self.codec.autoencoder
        return autoencoder.encode(tensor.to(self.codec.device, autoencoder.dtype))

    def crop(self, picture: Image.Image) -> Image.Image:
        return picture.crop((0, 0, *self.image.size))


def _perco(studio: Studio, rate: str, caption: str | None = None, **how) -> Made:
    data = studio.data(rate, caption)
    picture = studio.codec.decompress(unpack(data), seed=studio.seed, max_pixels=None, **how)
    return Made({"bytes": len(data)}, picture)


def _loop(steps: int, guidance: float = 1.0) -> Callable[[Studio, str], Made]:
    return partial(_perco, num_inference_steps=steps, guidance_scale=guidance, **PAPER_LOOP)


def _estimate(studio: Studio, rate: str) -> Made:
    data = studio.data(rate)
    return Made({"bytes": len(data)}, studio.codec.estimate(unpack(data)))


def _rival(name: str, studio: Studio, rate: str) -> Made:
    found = shrunk.encode_near(studio.image, name, len(studio.data(rate)))
    return Made({"bytes": len(found.data)}, found.image)


@torch.no_grad()
def _autoencoder(studio: Studio, rate: str) -> Made:
    decoded = studio.codec.autoencoder.decode(studio.latents(8))
    return Made({}, studio.crop(tensor_to_image(decoded)))


def _unquantized(studio: Studio, rate: str) -> Made:
    """Painted of what the decoder would get if nothing were quantized."""
    condition = studio.codec.conditioner.unquantized(studio.latents(get_rate(rate).stride), rate)
    how = {"seed": studio.seed}
    (picture,) = studio.codec.paint(condition, [studio.photo.caption], rate, **how)
    return Made({}, studio.crop(picture))


def _half_size(studio: Studio, rate: str) -> Made:
    """The photo at half its size, as a picture of its own."""
    small = middle(studio.image, LARGE // 2)
    data = studio.codec.compress(small, studio.photo.caption, rate)
    picture = studio.codec.decompress(unpack(data), seed=studio.seed, max_pixels=None)
    return Made({"bytes": len(data)}, picture, small)


def _v_loss(text: Callable[[ClaimPhoto], str], studio: Studio, rate: str) -> Made:
    """The v-loss under a text, with a photo's own noise, the same under every text."""
    latents = studio.latents(64).detach()
    conditioner = studio.codec.conditioner
    with torch.no_grad():
        condition = conditioner.decode(conditioner.encode(latents, rate), rate)
    texts = [text(studio.photo)]
    (loss,) = velocity_losses(studio.codec, latents, condition, texts, rate, studio.seed)
    return Made({"v_loss": loss})


def _file(studio: Studio, rate: str) -> Made:
    """Bytes of the file, and what its index prior saves of log2 K bits an index, in percent."""
    data = studio.data(rate)
    bits = unpack(data).bits()["indices"]
    saving = 100 * (1 - bits["model"] / bits["nominal"])
    return Made({"bytes": len(data), "saving": saving})


def _papers_account(studio: Studio, rate: str) -> Made:
    """Bytes of grid and caption as the paper counts; the caption is the captioner's."""
    caption, point = _captioner()(studio.image), get_rate(rate)
    height, width = point.grid_shape(studio.image.height, studio.image.width)
    grid = height * width * point.bits_per_index / 8
    return Made({"bytes": grid + zlib_bytes(caption), "zlib_bytes": zlib_bytes(caption)})


def _captions(studio: Studio, rate: str) -> Made:
    """Bytes of the photo's captions that the coder's training did not have: ours, and zlib's."""
    known = known_sentences()
    fresh = [text for text in studio.photo.captions if sentence(text) not in known]
    ours = sum(len(pack_text(text, with_table=True)[1]) for text in fresh)
    figures = {"bytes": ours, "zlib_bytes": sum(map(zlib_bytes, fresh))}
    return Made(figures | {"captions": len(fresh)})


@cache
def _captioner() -> Captioner:
    return Captioner.from_pretrained()


TEXTS: dict[str, Callable[[ClaimPhoto], str]] = {
    "own": lambda photo: photo.caption,
    "another person's": lambda photo: photo.captions[1],
    "another photo's": lambda photo: photo.other,
    "none": lambda photo: "",
}
MAKERS: dict[str, Callable[[Studio, str], Made]] = {
    "original": lambda studio, rate: Made({}, studio.image),
    "perco": _perco,
    "perco without caption": partial(_perco, caption=""),
    "perco at half the size": _half_size,
    "perco-estimate": _estimate,
    "autoencoder": _autoencoder,
    "before quantization": _unquantized,
    "loop of 5": _loop(5),
    "loop of 20": _loop(20),
    "loop of 20, guidance 3": _loop(20, 3.0),
    "file": _file,
    "the paper's account": _papers_account,
    "captions": _captions,
}
MAKERS |= {name: partial(_rival, name) for name in RIVALS}
MAKERS |= {f"text: {name}": partial(_v_loss, text) for name, text in TEXTS.items()}
