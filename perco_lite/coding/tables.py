"""The trained tables of the package: read whole or not at all, and told apart by what they hold.

    caption_model.npz, index_prior.npz ──read_table──► arrays by name ──► a model
    arrays by name ──arrays_id──► 16 bits, which a file's checksum carries

Paper: none; its coders have no tables.

Taught in notebook 05.
"""

import zipfile
import zlib
from collections.abc import Callable
from importlib import resources
from typing import TypeVar

import numpy as np

Model = TypeVar("Model")


def read_table(file: str, build: Callable[[dict[str, np.ndarray]], Model]) -> Model | None:
    """What ``build`` makes of the arrays of an .npz file of the package; None where it is missing.

    Raises ``ValueError`` for a damaged file.
    """
    path = resources.files("perco_lite.coding").joinpath(file)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return build({name: stored[name] for name in stored})
    except (EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}); install perco_lite again") from error


def arrays_id(arrays: dict[str, np.ndarray], values: int = 0xFFFF) -> int:
    """One of so many ``values`` for each table: of its numbers and words, not of their file.

    The default leaves out all ones, which would undo the checksum's inversion.
    """
    crc = 0
    for name in sorted(arrays):
        crc = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), crc))
    return crc % values
