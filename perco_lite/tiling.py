"""Tiles: networks that see one part of a large photo at a time, and nobody can tell.

    latents (B,4,h,w) ─► overlapping tiles ─► U-Net, at every step ─► fade into one velocity
                                         └──► decoder ─────────────► one image
    image (B,3,H,W) ───► overlapping tiles ─► encoder ─────────────► one grid of latents

Two ways to join neighbours, both by weights that add up to one at every position. *Fade*: each
tile's weight falls over the middle half of the overlap, while the neighbour's rises; for networks
that look at the whole tile (attention, group normalisation), which never agree exactly. *Cut*: for
plain convolutions, which see only so far (their reach): where every position is taken from a tile
that holds all it can see, tiled and whole are the same numbers.

Paper: none; PerCo's photos are 512×512. The fade at every step is MultiDiffusion (Bar-Tal et al.,
2023), with the velocity in place of the noise.
Differs from it: weights that fade instead of a plain mean; the tiles lie on an even grid.

Taught in notebook 16.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perco_lite.autoencoder import FACTOR

GRID = 64  # pixels; tiles start on multiples, so that every level of a U-Net stays aligned
WHOLE_PIXELS = 4 * 768 * 512  # photos up to this size are never tiled unless asked for
BATCH_PIXELS = WHOLE_PIXELS  # photos decoded together, so that memory stays bounded


@dataclass(frozen=True)
class Span:
    """One tile along one axis: positions [start, stop), and where it takes over and gives way.

    ``rise`` and ``fall`` are (from, to) along the axis; a tile at an end of the photo has None.
    """

    start: int
    stop: int
    rise: tuple[float, float] | None = None
    fall: tuple[float, float] | None = None

    def cut(self, across: "Span", zoom: int) -> tuple:
        """Index of the tile of these rows and the columns ``across`` in (…,h·zoom,w·zoom)."""
        return (..., *(slice(s.start * zoom, s.stop * zoom) for s in (self, across)))

    def weights(self, zoom: int = 1) -> Tensor:
        """Weight of each of the ``zoom`` · (stop - start) positions, float32 in [0,1]."""
        position = (torch.arange(self.start * zoom, self.stop * zoom) + 0.5) / zoom
        weight = torch.ones_like(position)
        if self.rise:
            weight = weight * _ramp(position, *self.rise)
        if self.fall:
            weight = weight * (1 - _ramp(position, *self.fall))
        return weight


@dataclass(frozen=True)
class Tiling:
    """How large photos are cut: tiles of ``tile_pixels`` a side that share ``overlap`` pixels.

    Photos of more than ``above`` pixels are tiled. Raises ValueError for sizes that are no
    multiple of 64 pixels, and for an overlap of more than half a tile.
    """

    tile_pixels: int = 1024
    overlap: int = 256
    above: int = WHOLE_PIXELS

    def __post_init__(self):
        sizes = self.tile_pixels, self.overlap
        if min(*sizes, self.above) < 0 or not sizes[0] or any(size % GRID for size in sizes):
            raise ValueError(
                f"got tile_pixels {sizes[0]}, overlap {sizes[1]} and above {self.above}, expected "
                f"{GRID}, 0, 0 or more, the first two multiples of {GRID}; 1024 and 256 are usual"
            )
        if 2 * self.overlap > self.tile_pixels:
            raise ValueError(
                f"overlap is {self.overlap}, expected at most half of tile_pixels "
                f"({self.tile_pixels}); use larger tiles or a smaller overlap"
            )

    def applies(self, height: int, width: int) -> bool:
        """Whether a photo of ``height`` × ``width`` latents is tiled."""
        return height * width * FACTOR**2 > self.above

    def spans(self, length: int, reach: int | None = None) -> list[Span]:
        """Tiles along an axis of ``length`` latents, in order.

        With a ``reach`` (in latents, what a network sees to each side) neighbours are cut where
        both have seen enough, and share no more than that takes; without one they fade.
        Raises ValueError where a tile is too small for the reach.
        """
        grid, tile = GRID // FACTOR, self.tile_pixels // FACTOR
        shared = self.overlap // FACTOR if reach is None else _up(2 * reach, grid)
        if shared >= tile:
            sees = (reach or 0) * FACTOR
            raise ValueError(
                f"tile_pixels is {self.tile_pixels}, expected at least "
                f"{(shared + grid) * FACTOR} for a network that sees {sees} pixels far"
            )
        if length <= tile:
            return [Span(0, length)]
        count = 1 + -(-(length - tile) // (tile - shared))
        # rounded up to the grid, neighbours are never further apart than tile - shared
        starts = [_up(i * (length - tile), grid * (count - 1)) // (count - 1) for i in range(count)]
        stops = [min(start + tile, length) for start in starts]
        overlaps = list(zip(starts[1:], stops[:-1], strict=True))
        joints = [(start + stop) // 2 for start, stop in overlaps]
        halves = [0.0] * len(joints)
        if reach is None:
            halves = [(stop - start) / 4 for start, stop in overlaps]
            for i, gap in enumerate(b - a for a, b in zip(joints, joints[1:], strict=False)):
                # one fade must be over before the next begins
                halves[i], halves[i + 1] = min(halves[i], gap / 2), min(halves[i + 1], gap / 2)
        fades = [(joint - half, joint + half) for joint, half in zip(joints, halves, strict=True)]
        ends = zip(starts, stops, [None, *fades], [*fades, None], strict=True)
        return [Span(*end) for end in ends]

    def map(
        self,
        function: Callable[..., Tensor],
        *inputs: Tensor,
        reach: int | None = None,
        zoom_in: int = 1,
        zoom_out: int = 1,
    ) -> Tensor:
        """Apply ``function`` tile by tile to inputs (B,C,h·zoom_in,w·zoom_in), and join the parts.

        Returns (B,C',h·zoom_out,w·zoom_out) in the type of the parts, which are added up in
        float32. Only one tile is worked on at a time. ``reach`` as in ``spans``.
        """
        height, width = (side // zoom_in for side in inputs[0].shape[-2:])
        joined: Tensor | None = None
        for down in self.spans(height, reach):
            for right in self.spans(width, reach):
                part = function(*(x[down.cut(right, zoom_in)] for x in inputs))
                if joined is None:
                    shape = (*part.shape[:-2], height * zoom_out, width * zoom_out)
                    joined = torch.zeros(shape, dtype=torch.float32, device=part.device)
                weight = down.weights(zoom_out)[:, None] * right.weights(zoom_out)
                joined[down.cut(right, zoom_out)] += weight.to(part.device) * part
        assert joined is not None  # there is a tile
        return joined.to(part.dtype)


def check_price(file, limit: int | None, steps: int | Sequence[int]) -> None:
    """Raise ValueError, with what it would cost, for a file of more pixels than ``limit``.

    The price is what the bundled weights take on two cores of a laptop; ``steps``: a number, or few
    steps' timesteps.
    """
    steps = steps if isinstance(steps, int) else len(steps)
    pixels = file.width * file.height
    if limit is not None and pixels > limit:
        megapixels = pixels / 1e6
        raise ValueError(
            f"{file.width}×{file.height} is {megapixels:.1f} megapixels, over the limit of "
            f"{limit / 1e6:.1f}: painting it takes some {0.5 + 0.055 * megapixels:.1f} GB of "
            f"memory and {megapixels * (0.13 * steps + 0.2):.0f} seconds; if you trust it, "
            f"raise max_pixels (--max-pixels {pixels})"
        )


def group_by_size(files: list) -> list[list[int]]:
    """Numbers of files whose latents have the same size, at most BATCH_PIXELS together."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for number, file in enumerate(files):
        h, w = file.indices.shape
        by_size.setdefault((h * file.rate.stride, w * file.rate.stride), []).append(number)
    groups = []
    for (height, width), numbers in by_size.items():
        count = max(1, BATCH_PIXELS // (height * width))
        groups += [numbers[i : i + count] for i in range(0, len(numbers), count)]
    return groups


def decode_in_groups(
    files: list, decode: Callable[[list[int]], list]
) -> Iterator[tuple[int, Any, float]]:
    """Decode files of equal size together, and one by one where a group fails.

    ``decode`` gets the numbers of a group's files. Yields each file's number, its picture or the
    error that it fails with alone, and its share of the group's seconds.
    """
    groups = group_by_size(files)
    while groups:
        group = groups.pop(0)
        started = time.perf_counter()
        try:
            results = decode(group)
        except Exception as error:
            if len(group) > 1:  # alone, some of them may still be possible
                groups = [[number] for number in group] + groups
                continue
            results = [error]
        seconds = (time.perf_counter() - started) / len(group)
        for number, result in zip(group, results, strict=True):
            yield number, result, seconds


def map_tiles(
    tiling: Tiling | None, function: Callable[..., Tensor], *inputs: Tensor, zoom_in: int = 1, **how
) -> Tensor:
    """``function`` of the inputs, in tiles where ``tiling`` says so; options as ``Tiling.map``."""
    if tiling is None or not tiling.applies(*(side // zoom_in for side in inputs[0].shape[-2:])):
        return function(*inputs)
    return tiling.map(function, *inputs, zoom_in=zoom_in, **how)


def encode_image(autoencoder, image: Tensor, tiling: Tiling | None) -> Tensor:
    """``autoencoder.encode``, in tiles where ``tiling`` says so: (B,3,H,W) -> (B,4,H/8,W/8).

    An autoencoder that names its ``encoder_reach`` gives the same latents as without tiles, up to
    the last bits of a float; any other (Stable Diffusion's looks at the whole photo) nearly.
    """
    reach = getattr(autoencoder, "encoder_reach", None)
    return map_tiles(tiling, autoencoder.encode, image, reach=reach, zoom_in=FACTOR)


def decode_latents(autoencoder, latents: Tensor, tiling: Tiling | None) -> Tensor:
    """``autoencoder.decode``, in tiles where ``tiling`` says so: (B,4,h,w) -> (B,3,8h,8w)."""
    reach = getattr(autoencoder, "decoder_reach", None)
    return map_tiles(tiling, autoencoder.decode, latents, reach=reach, zoom_out=FACTOR)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _ramp(position: Tensor, start: float, stop: float) -> Tensor:
    """0 before ``start``, 1 after ``stop``, straight in between."""
    if start == stop:
        return (position > start).float()
    return ((position - start) / (stop - start)).clamp(0, 1)
