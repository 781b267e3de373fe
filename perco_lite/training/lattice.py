"""Does a picture repeat itself from cell to cell of the grid that it was painted on?

    picture ──less its blur──► texture ──windows of 4×4 cells──► mean cell ──► RMS beyond chance

A convolution paints a wall, where all it sees is equal, with the same cell over and over: dots or
hatching. LPIPS takes them for texture and is content. Texture of a photo, or one made of noise,
differs between cells, and its mean over 16 of them has a quarter of its RMS; what the mean has
beyond that is tied to the grid.

Paper: none.
"""

import torch.nn.functional as F
from torch import Tensor

CELL = 16  # pixels: a patch of 2×2 latents, one position of the U-Net
ACROSS = 4  # cells that a window is wide
BLUR = 17  # pixels
CHANCE = 1.5  # of what is left of texture that has nothing to do with the grid


def lattice(image: Tensor, cell: int = CELL) -> Tensor:
    """RMS of what is equal in the cells of each window, beyond chance: (B,3,H,W) -> (B,3,h,w).

    Windows are ``4·cell`` pixels a side; what is more than whole windows is left out. In units of
    the image. ValueError for one that is smaller than a window.
    """
    side = cell * ACROSS
    count, channels, height, width = image.shape
    if height < side or width < side:
        raise ValueError(f"image is {height}×{width}, expected at least {side}×{side}")
    padded = F.pad(image, [BLUR // 2] * 4, mode="reflect")
    # rows, then columns: a fifth of the time
    texture = image - F.avg_pool2d(F.avg_pool2d(padded, (BLUR, 1), 1), (1, BLUR), 1)
    h, w = height // side, width // side
    texture = texture[..., : h * side, : w * side]
    cells = texture.reshape(count, channels, h, ACROSS, cell, w, ACROSS, cell)
    equal = cells.mean((3, 6)).square().mean((3, 5))
    whole = cells.square().mean((3, 4, 6, 7))
    return F.relu(equal - CHANCE * whole / ACROSS**2).add(1e-6).sqrt()


def lattice_loss(painted: Tensor, photo: Tensor, cell: int = CELL) -> Tensor:
    """How much more a painted picture repeats itself than the photo does, (); 0 if nowhere."""
    return F.relu(lattice(painted, cell) - lattice(photo, cell)).mean()
