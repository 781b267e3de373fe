"""What a file holds and what rates cost, for people and as JSON; needs no weights and no torch.

bytes ──► describe ──► dict (header, caption, ledger, indices) ──► describe_text ──► text
"""

import json
import math
from pathlib import Path

from perco_lite.bitstream import ledger, unpack
from perco_lite.entropy_coding import zlib_bytes
from perco_lite.rates import RATES

KODAK = (512, 768)  # height, width
_SHADES = " .:-=+*#%@"
_MAP_COLUMNS = 96


def describe(data: bytes) -> dict:
    """Everything a file says of itself, as JSON-ready values; BitstreamError if it is damaged."""
    file, parts = unpack(data), ledger(data)
    pixels = file.width * file.height
    nominal = file.indices.size * file.rate.bits_per_index
    return {
        "bytes": len(data),
        "bits_per_pixel": 8 * len(data) / pixels,
        "rate": file.rate.name,
        "width": file.width,
        "height": file.height,
        "model_id": f"{file.model_id:#06x}",
        "caption": file.caption,
        "caption_utf8_bytes": len(file.caption.encode("utf-8", "surrogatepass")),
        "caption_zlib_bytes": zlib_bytes(file.caption) if file.caption else 0,
        "ledger": parts,
        "bits_per_pixel_by_part": {k: 8 * v / pixels for k, v in parts.items()},
        "index_bits_nominal": nominal,
        "codebook_size": file.rate.codebook_size,
        "grid": list(file.indices.shape),
        "indices": file.indices.tolist(),
    }


def describe_text(row: dict) -> str:
    """The same for people; the index map is drawn in shades, one character an index or a few."""
    h, w = row["grid"]
    lines = [
        row.get("file", ""),
        f"  {row['width']}×{row['height']} pixels at rate {row['rate']}, model {row['model_id']}",
        f"  {row['bytes']} bytes = {row['bits_per_pixel']:.4f} bpp",
        *(
            f"    {name:8} {count:6} bytes  {row['bits_per_pixel_by_part'][name]:.4f} bpp"
            for name, count in row["ledger"].items()
        ),
        f"  caption: {row['caption']!r} ({row['caption_utf8_bytes']} bytes as UTF-8, "
        f"{row['caption_zlib_bytes']} with zlib as in the paper)",
        f"  indices: {h}×{w} of {row['codebook_size']} codes, "
        f"{row['index_bits_nominal']:.0f} bits; darker = higher number",
    ]
    step = math.ceil(w / _MAP_COLUMNS)
    for line in row["indices"][::step]:
        shades = (line[i] * len(_SHADES) // row["codebook_size"] for i in range(0, w, step))
        lines.append("    " + "".join(_SHADES[s] for s in shades))
    return "\n".join(line for line in lines if line)


def served_rates(weights: str | None = None) -> list[str]:
    """Names of the rates that weights serve, from their configuration; none where none are bundled.

    Raises ``FileNotFoundError`` or ``ValueError`` for a folder that holds no codec.
    """
    folder = Path(__file__).parent / "weights" if weights is None else Path(weights)
    config = folder / "conditioner" / "config.json"
    if weights is None and not config.exists():
        return []
    if not config.exists():
        raise FileNotFoundError(f"no codec in the folder {weights!r}; give one that holds a codec")
    try:
        return list(json.loads(config.read_text(encoding="utf-8"))["rates"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config} is damaged; download or train these weights again") from error


def rate_table(weights: str | None = None) -> list[dict]:
    """One row a rate of the paper: grid, codebook, cost on a Kodak photo, served or not.

    Raises ``FileNotFoundError`` or ``ValueError`` for a folder that holds no codec.
    """
    served = served_rates(weights)
    return [
        {
            "name": rate.name,
            "stride": rate.stride,
            "codebook_size": rate.codebook_size,
            "bits_per_index": rate.bits_per_index,
            "bits_per_pixel": rate.bits_per_pixel,
            "kodak_grid": list(rate.grid_shape(*KODAK)),
            "kodak_index_bytes": rate.index_bytes(*KODAK),
            "served": rate.name in served,
        }
        for rate in RATES
    ]


def rate_text(table: list[dict]) -> str:
    """The rate table for people."""
    lines = ["rate     stride  codes  bits/index  768×512 grid  index bytes  bpp      served"]
    for row in table:
        w, h = row["kodak_grid"][1], row["kodak_grid"][0]
        lines.append(
            f"{row['name']:8} {row['stride']:6} {row['codebook_size']:6} "
            f"{row['bits_per_index']:10.0f}  {f'{w}×{h}':>12} {row['kodak_index_bytes']:12}  "
            f"{row['bits_per_pixel']:.5f}  {'yes' if row['served'] else '-'}"
        )
    lines.append(
        "Indices only, as the paper names its rates; header (10 bytes) and caption come on top. "
        "Served = by these weights."
    )
    return "\n".join(lines)
