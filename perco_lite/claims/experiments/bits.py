"""Experiments on bytes: what a file is made of, and what another code for its indices would save.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    photos ──compress──► files, versions 1 and 2 ──ledger──► header, caption, indices
    COCO's human captions ──zlib, our table──► bytes beside a Kodak photo's grid
    indices of the other photos ──frequencies──► a code for this photo's ──► bits against log2 K

Paper: PerCo, Table 2 and Sec. 3.2 (uniform code for the indices, Lempel-Ziv for the caption).
Differs from the paper: the whole file counts; the paper's own accounting stands beside it.
"""

from pathlib import Path

import numpy as np

from perco_lite.claims.workbench import Outcome, Workbench, centre, claim_photos
from perco_lite.coding.bitstream import pack, unpack
from perco_lite.coding.entropy_coding import pack_text, zlib_bytes
from perco_lite.data import find_data, list_photos, load_photo, read_caption_lists
from perco_lite.rates import get_rate

# z_l of the paper at 512x512, as PerCo (SD) quotes Table 2: tokens a side, codebook size.
TABLE_2 = {
    "0.0019": (8, 256),
    "0.0024": (8, 1024),
    "0.0059": (16, 64),
    "0.0098": (16, 1024),
    "0.0313": (32, 256),
    "0.0507": (32, 8192),
    "0.0937": (64, 64),
    "0.1250": (64, 256),
}
KODAK_PIXELS = 768 * 512
PSEUDO_COUNT = 0.5  # of codes that no other photo used


def paper_index_bytes(rate: str, pixels: int) -> float:
    """Bytes of z_l for so many pixels: the paper's share of 512x512 pixels."""
    side, codebook = TABLE_2[rate]
    return side**2 * np.log2(codebook) / 8 * pixels / 512**2


def ledgers(bench: Workbench) -> Outcome:
    """Whole photos: bytes of each part of the file, beside those of the paper's accounting.

    The file is of version 2, as the codec chose the indices; ``uniform_index_bytes`` are counted in
    the same file of version 1, which codes them uniformly, and ``index_model_bits`` are what the
    index prior gave them. Rows named "human" are captions of COCO (mean of a photo's five), as if
    of a Kodak photo.
    """
    rows, limit = [], bench.settings.photos or None
    for sample in claim_photos()[:limit]:
        width, height = (side // 64 * 64 for side in sample.image.size)
        image = centre(sample.image, width, height)
        for rate in bench.codec.rates:
            file = unpack(bench.codec.compress(image, sample.caption, rate))
            first, data = pack(file, version=1), pack(file, version=2)
            again, text = unpack(data), zlib_bytes(sample.caption)
            parts, bits = again.ledger, again.bits()["indices"]
            paper = paper_index_bytes(rate, width * height)
            row = {"photo": sample.name, "rate": rate, "setting": "stored caption"}
            row |= {
                "file_bytes": len(data),
                "header_bytes": parts["header"],
                "caption_bytes": parts["caption"],
                "index_bytes": parts["indices"],
                "index_model_bits": bits["model"],
                "index_saving": 1 - bits["model"] / bits["nominal"],
                "version_1_bytes": len(first),
                "uniform_index_bytes": unpack(first).ledger["indices"],
            }
            rows.append(
                row | {"paper_index_bytes": paper, "zlib_bytes": text, "paper_bytes": paper + text}
            )
    folder = find_data("coco_eval")
    if folder is None:
        return Outcome(rows, notes=["human captions not measured: no coco_eval (data/README.md)"])
    table = read_caption_lists(folder / "captions.json")
    grid, small = (paper_index_bytes("0.0019", n) for n in (KODAK_PIXELS, 512**2))
    for photo, texts in list(table.items())[:limit]:
        sizes = np.array([zlib_bytes(text) for text in texts])
        ours = np.array([len(pack_text(text, with_table=True)[1]) for text in texts])
        figures = {
            "zlib_bytes": sizes.mean(),
            "table_bytes": ours.mean(),
            "table_share": ours.sum() / sizes.sum(),
            "bits_per_character": 8 * ours.sum() / sum(map(len, texts)),
            "paper_bytes": grid + sizes.mean(),
            "under_153": (grid + sizes < 153).mean(),
            "text_share_512": (sizes / (small + sizes)).mean(),
        }
        row = {"photo": photo, "rate": "0.0019", "setting": "human"}
        rows.append(row | {name: float(figure) for name, figure in figures.items()})
    return Outcome(rows)


def entropy(bench: Workbench) -> Outcome:
    """Bits an index would cost with a code fitted to the other photos, beside log2 K.

    A static code of order 0: frequencies of codes over all other photos, half a count added.
    Indices are nearest codes of whole photos, Kodak's and COCO's where they are found.
    """
    limit = bench.settings.photos or None
    photos = [(s.name, s.image) for s in claim_photos()[:limit]]
    if (folder := find_data("coco_eval")) is not None:
        photos += [(p.name, p) for p in list_photos(folder)[:limit]]
    indices: dict[str, list[np.ndarray]] = {rate: [] for rate in bench.codec.rates}
    for _, image in photos:
        image = load_photo(image) if isinstance(image, Path) else image
        for rate, grids in indices.items():
            grids.append(bench.codec.encode(image, rate, rounds=0).flatten().cpu().numpy())
    rows = []
    for rate, grids in indices.items():
        size, uniform = get_rate(rate).codebook_size, get_rate(rate).bits_per_index
        counts = np.stack([np.bincount(grid, minlength=size) for grid in grids])
        total = counts.sum(0)
        for (name, _), grid, own in zip(photos, grids, counts, strict=True):
            others = total - own + PSEUDO_COUNT
            bits = float(-np.log2(others / others.sum())[grid].mean())
            row = {"photo": name, "rate": rate, "setting": "code of the other photos"}
            rows.append(row | {"bits": bits, "uniform_bits": uniform, "saving": 1 - bits / uniform})
    return Outcome(rows)
