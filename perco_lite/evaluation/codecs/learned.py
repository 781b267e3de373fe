"""Learned codecs of ``compressai`` (hyperpriors, Cheng 2020): loading them, and files to count.

    image (PIL RGB, H×W) ──padded to 64──► network.compress ──► strings ──pack──► bytes of a file
    bytes ──unpack──► network.decompress ──cut to H×W──► image

Their files are ours: width, height, the grid of the last latents and each string with its length,
9 bytes and 3 a string. Without them nobody could decode, so they count.

Paper: PerCo, Sec. 4, compares with learned codecs that are not in ``compressai`` (HiFiC, MS-ILLM).
Differs from the paper: those that are. Their lowest rate is about 0.1 bits per pixel, far above
PerCo's; they are the yardstick for the distortion curve, not for realism.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from perco_lite.data import image_to_tensor, tensor_to_image
from perco_lite.evaluation.codecs.classical import BaselineResult
from perco_lite.evaluation.codecs.ours import Method
from perco_lite.evaluation.datasets import Photo
from perco_lite.metrics import Unavailable, first_line
from perco_lite.perceptual import may_download

LEARNED_CODECS = {  # our name -> compressai's
    "factorized": "bmshj2018-factorized",
    "hyperprior": "bmshj2018-hyperprior",
    "mbt2018-mean": "mbt2018-mean",
    "mbt2018": "mbt2018",
    "cheng2020": "cheng2020-anchor",
}
_MULTIPLE = 64  # four halvings, and two more of the hyper-encoder
_HEAD = struct.Struct("<HHHHB")  # width, height, latent height and width, number of strings

LearnedCodec = Callable[[Image.Image], BaselineResult]


class Learned(Method):
    """One family of these codecs, a network for each of its qualities."""

    def __init__(self, name: str, networks: dict[int, LearnedCodec]):
        self.name, self.networks = name, {f"q{quality}": f for quality, f in networks.items()}
        self.points = tuple(self.networks)

    def attempt(self, photo: Photo, image: Image.Image, rate: str) -> dict:
        result = self.networks[rate](image)
        return {"image": result.image, "data": result.data, "quality": result.quality}


def load_learned_family(name: str) -> Learned:
    """All qualities there are of a learned codec; ``Unavailable`` where they do not load here."""
    networks = {}
    for quality in range(1, 9):
        try:
            networks[quality] = load_learned(name, quality)
        except ValueError:  # this codec has fewer
            break
    return Learned(name, networks)


def load_learned(codec: str, quality: int) -> LearnedCodec:
    """Load a codec trained for MSE at ``quality`` 1 (smallest) to 8.

    The function takes a photo and gives a ``BaselineResult``. Raises ``ValueError`` for a codec or
    quality there is none of; ``Unavailable`` without compressai, and where its weights are not in
    torch.hub's cache: they are downloaded only if ``PERCO_LITE_DOWNLOAD=1``.
    """
    if codec not in LEARNED_CODECS:
        raise ValueError(f"got codec {codec!r}, expected one of {', '.join(LEARNED_CODECS)}")
    try:
        from compressai.zoo.image import _load_model, model_urls
    except ImportError as error:
        raise Unavailable(
            f'learned codecs: {error}; pip install "perco_lite[baselines]" in an environment of '
            "its own, since compressai wants numpy below 2"
        ) from error
    urls = model_urls[LEARNED_CODECS[codec]]["mse"]
    if quality not in urls:
        raise ValueError(f"got quality {quality} of {codec}, expected {min(urls)}..{max(urls)}")
    name = Path(urlparse(urls[quality]).path).name
    weights = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not weights.is_file() and not may_download():
        raise Unavailable(f"{codec}: no weights at {weights}; PERCO_LITE_DOWNLOAD=1 downloads them")
    try:
        network = _load_model(LEARNED_CODECS[codec], "mse", quality, pretrained=True).eval()
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        raise Unavailable(f"{codec}: the weights do not load ({first_line(error)})") from error
    network.update()
    return learned_from(network, codec, quality)


def learned_from(network: nn.Module, codec: str, quality: int) -> LearnedCodec:
    """Turn one of compressai's networks, on tensors in [0, 1], into a function of photos."""

    def encode(image: Image.Image) -> BaselineResult:
        data = compress(network, image)
        return BaselineResult(codec, data, decompress(network, data), quality, reached=True)

    return encode


@torch.inference_mode()
def compress(network: nn.Module, image: Image.Image) -> bytes:
    """One RGB photo, at most 65,535 pixels a side, to the bytes of a whole file."""
    if image.mode != "RGB":
        raise ValueError(f"got an image of mode {image.mode}, expected RGB; use data.to_rgb first")
    if max(image.size) > 0xFFFF:
        raise ValueError(f"got {image.width}x{image.height}, expected at most 65535 a side")
    tensor = (image_to_tensor(image) + 1) / 2
    border = (0, -image.width % _MULTIPLE, 0, -image.height % _MULTIPLE)
    out = network.compress(F.pad(tensor, border, mode="replicate"))
    strings = [batch[0] for batch in out["strings"]]  # one photo in the batch
    parts = [_HEAD.pack(*image.size, *out["shape"], len(strings))]
    for string in strings:
        parts += [len(string).to_bytes(3, "little"), string]
    return b"".join(parts)


@torch.inference_mode()
def decompress(network: nn.Module, data: bytes) -> Image.Image:
    """Bytes of ``compress`` back to the photo; ``ValueError`` for a file that is cut or foreign."""
    try:
        width, height, *shape, count = _HEAD.unpack_from(data)
    except struct.error as error:
        raise ValueError(f"got {len(data)} bytes, expected a file of compress()") from error
    strings, place = [], _HEAD.size
    for _ in range(count):
        length = int.from_bytes(data[place : place + 3], "little")
        strings.append([data[place + 3 : place + 3 + length]])
        place += 3 + length
    if place != len(data):
        raise ValueError(f"got {len(data)} bytes, expected {place}: the file is cut or foreign")
    tensor = network.decompress(strings, tuple(shape))["x_hat"][..., :height, :width]
    return tensor_to_image(tensor * 2 - 1)
