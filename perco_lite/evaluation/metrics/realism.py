"""FID and KID: does a set of reconstructions look like a set of photos, as Inception sees them?

    photos, one at a time ──photo_features──► (1,F) for the whole photo, (P,F) for its patches
    features of originals, of reconstructions ─┬─► FID: Moments ──► frechet_distance ──► Score
                                               └─► KID: all vectors ──► poly_mmd ──────► Score

``fid`` and ``kid`` take photos, or what ``photo_features`` made of them: keep that, and the
originals go through the network once for all codecs.

Two ways to look, of others: 256-pixel patches as MS-ILLM (FID/256), which are resized as
torchmetrics does, and whole photos squashed to 512x512 and resized as clean-fid does.

Paper: PerCo, Sec. 4.1 (FID and KID on 30,000 COCO photos at 512x512).
Differs from the paper: its implementation is not known. FID is biased, the more the fewer the
vectors, so that figures of small sets compare with each other only; KID is not. The protocol
carries the numbers.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from perco_lite.evaluation.metrics.frechet import Moments, frechet_distance, shared_axes
from perco_lite.evaluation.metrics.inception import Inception, load_inception
from perco_lite.evaluation.metrics.intervals import Score, resampled_interval
from perco_lite.metrics import Unavailable
from perco_lite.perceptual import DIGESTS, INCEPTION

SMALL_SET = 500  # vectors of Inception; above it no interval, which would be narrow and slow
PATCH = 256  # of FID/256
SQUASH = 512  # the paper's photos
KID_SUBSET = 1000  # vectors; torchmetrics' default, as in the paper of KID
KID_SUBSETS = 100

PhotosOrFeatures = Iterable[Image.Image | Tensor]


@torch.inference_mode()
def photo_features(
    photo: Image.Image, network: nn.Module, patch: int | None = None, squash: int | None = None
) -> Tensor:
    """Feature vectors (P,F) float32 of one RGB photo: of the whole, or of its square patches.

    ``squash``: side of the square that the photo is made first, by Pillow's bicubic.

    Patches of ``patch`` pixels as in HiFiC and MS-ILLM (FID/256): a grid from the top left, and,
    where both sides have 1.5 x ``patch`` pixels, a second one moved by half a patch. What does
    not fill a patch is left out: a photo smaller than one has no vectors, (0,F).
    """
    if photo.mode != "RGB":
        raise ValueError(f"got a photo of mode {photo.mode}, expected RGB; use data.to_rgb")
    if squash is not None:
        photo = photo.resize((squash, squash), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)  # (3,H,W) uint8
    batch = pixels[None] if patch is None else _patches(pixels, patch)
    device = next((parameter.device for parameter in network.parameters()), "cpu")
    if not len(batch):  # no network likes to see nothing: show it black
        return network(batch.new_zeros(1, *batch.shape[1:]).to(device))[:0].float().cpu()
    rows = network(batch.to(device))
    if rows.ndim != 2 or len(rows) != len(batch):
        raise ValueError(
            f"the network made {tuple(rows.shape)} of {len(batch)} images, expected (B,F)"
        )
    return rows.float().cpu()


def fid(
    originals: PhotosOrFeatures,
    reconstructions: PhotosOrFeatures,
    network: nn.Module | None = None,
    patch: int | None = None,
    squash: int | None = None,
) -> Score:
    """Fréchet Inception Distance; 0 for equal sets, more is worse.

    Photos are read one at a time; what is kept are means and covariances, and, up to ``SMALL_SET``
    vectors, the vectors, for the interval. ``network`` takes (B,3,H,W) uint8 and gives (B,F);
    default: Inception. None with the reason where it does not load. ``patch`` and ``squash`` as in
    ``photo_features``. Raises ``ValueError`` for fewer than two vectors in a set.
    """
    try:
        network = network or load_inception()
    except Unavailable as error:
        return Score(None, f"FID: {error}")
    sets, kept, small = [Moments(), Moments()], [[], []], [0, 0]
    for number, photos in enumerate((originals, reconstructions)):
        for rows in _features(photos, network, patch, squash):
            sets[number].add(rows)
            small[number] += not len(rows)
            if sets[number].count <= SMALL_SET:
                kept[number].append(rows)
    counts = [(m.photos, m.count, few) for m, few in zip(sets, small, strict=True)]
    protocol, interval = _protocol("FID", network, patch, squash, counts), None
    if all(vectors <= SMALL_SET for _, vectors, _ in counts):
        kept = shared_axes(*kept)
        interval = _interval(*kept, _frechet_of_rows)
        sets = [Moments(rows) for rows in kept]
    return Score(frechet_distance(*map(Moments.gaussian, sets)), protocol, interval)


def kid(
    originals: PhotosOrFeatures,
    reconstructions: PhotosOrFeatures,
    network: nn.Module | None = None,
    patch: int | None = None,
    squash: int | None = None,
) -> Score:
    """Kernel Inception Distance, torchmetrics' (cubic kernel, unbiased: may fall below 0).

    Unbiased for sets drawn apart. A codec's pictures are of the same photos: each meets its own
    reconstruction, which lowers the mean by a share that falls as 1/N.

    Arguments as ``fid``. All vectors are kept (8 kB a photo). Sets of one size, up to 1,000: one
    estimate over all vectors, with its interval up to ``SMALL_SET``; else the mean over 100 random
    subsets of at most 1,000, always the same ones.
    """
    try:
        network = network or load_inception()
    except Unavailable as error:
        return Score(None, f"KID: {error}")
    kept = [
        list(_features(photos, network, patch, squash)) for photos in (originals, reconstructions)
    ]
    counts = [(len(rows), sum(map(len, rows)), sum(not len(r) for r in rows)) for rows in kept]
    protocol, interval = _protocol("KID", network, patch, squash, counts), None
    if counts[0] == counts[1] and counts[0][1] <= SMALL_SET:
        interval = _interval(*kept, _kernel_distance)
    protocol += f", subsets of {min(KID_SUBSET, *(vectors for _, vectors, _ in counts))}"
    return Score(_kernel_distance(*map(torch.cat, kept)), protocol, interval)


def _interval(
    originals: list[Tensor], reconstructions: list[Tensor], distance: Callable[..., float]
) -> tuple[float, float] | None:
    # a draw of photos without vectors alone would have no figure
    originals, reconstructions = (
        [rows for rows in photos if len(rows)] for photos in (originals, reconstructions)
    )

    def drawn(rows: list[Tensor], photos: Tensor) -> Tensor:
        return torch.cat([rows[i] for i in photos])

    return resampled_interval(
        (len(originals), len(reconstructions)),
        lambda first, second: distance(drawn(originals, first), drawn(reconstructions, second)),
    )


def _frechet_of_rows(originals: Tensor, reconstructions: Tensor) -> float:
    return frechet_distance(Moments([originals]).gaussian(), Moments([reconstructions]).gaussian())


def _kernel_distance(originals: Tensor, reconstructions: Tensor) -> float:
    from torchmetrics.image.kid import poly_mmd

    a, b = originals.double(), reconstructions.double()
    smaller = min(len(a), len(b))
    if smaller <= KID_SUBSET and len(a) == len(b):  # a "subset" of all vectors is always the same
        return float(poly_mmd(a, b))
    draw, size = torch.Generator().manual_seed(0), min(KID_SUBSET, smaller)

    def subset(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=draw)[:size]]

    values = [poly_mmd(subset(a), subset(b)) for _ in range(KID_SUBSETS)]
    return float(torch.stack(values).mean())


def _features(photos: PhotosOrFeatures, network: nn.Module, *how: int | None) -> Iterator[Tensor]:
    for photo in photos:
        yield photo if isinstance(photo, Tensor) else photo_features(photo, network, *how)


def _patches(pixels: Tensor, patch: int) -> Tensor:
    """(3,H,W) to (P,3,patch,patch): the grid, and the grid moved by half a patch."""
    height, width = pixels.shape[1:]
    if patch < 1:
        raise ValueError(f"got patches of {patch} pixels, expected at least 1; 256 are usual")
    if min(height, width) < patch:
        return pixels.new_zeros(0, 3, patch, patch)
    shifts = (0, patch // 2) if min(height, width) >= 1.5 * patch else (0,)
    grids = []
    for shift in shifts:
        grid = pixels[:, shift:, shift:].unfold(1, patch, patch).unfold(2, patch, patch)
        grids.append(grid.permute(1, 2, 0, 3, 4).reshape(-1, 3, patch, patch))
    return torch.cat(grids)


def _protocol(
    name: str, network: nn.Module, patch: int | None, squash: int | None, counts: list
) -> str:
    """How a figure is made; ``counts``: photos, vectors, photos without one, of both sets."""
    for (_, vectors, _), which in zip(counts, ("originals", "reconstructions"), strict=True):
        if vectors < 2:
            them, more = "vectors", "photos"
            if patch is not None:
                them, more = f"{patch}-pixel patches", "photos of at least that size"
            raise ValueError(f"{name}: got {vectors} {them} of {which}, expected 2; add {more}")
    backbone, resize = type(network).__name__, "resized by the network"
    if isinstance(network, Inception):
        backbone = f"Inception v3 2015-12-05 (weights {DIGESTS[INCEPTION]}), 2048 features"
        resize = f"to 299x299 by {network.protocol}"
    what = "whole photos" if squash is None else f"whole photos squashed to {squash}x{squash}"
    what = what if patch is None else f"{patch}-pixel patches of two shifted grids, as MS-ILLM"
    (photos, vectors, small), (others, other_vectors, _) = counts
    number = f"{photos} originals ({vectors} vectors), {others} reconstructions ({other_vectors})"
    number += f", {small} of them smaller than a patch and left out" if small else ""
    bias = {
        "FID": "biased upwards, the more the fewer vectors",
        "KID": "unbiased for sets drawn apart; of the same photos too low, less so the more",
    }
    library = f"torchmetrics {version('torchmetrics')}"
    return f"{name}, {backbone}, {what}, {resize}, {number}, {bias[name]}, {library}"
