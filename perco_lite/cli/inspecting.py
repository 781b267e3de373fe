"""What a file holds and what rates cost, for people and as JSON; needs no weights and no torch.

    bytes ──► describe ──► dict (header, caption, ledger, indices) ──► describe_text ──► text
    what is in it ──► nominal bits (the paper's account), model bits (-log2 of what the models
                      expect), actual bits (on disk)

Paper: counts zlib's bytes for the caption and log2 K bits an index.
Differs from the paper: the header is counted, and every figure is measured on a file.
"""

import csv
import json
import math
from pathlib import Path

from perco_lite.coding.bitstream import WRITTEN_VERSION, unpack
from perco_lite.coding.entropy_coding import TABLE, caption_costs, zlib_bytes
from perco_lite.files import explain, is_hub_id, printable
from perco_lite.rates import RATES

KODAK = (512, 768)  # height, width
SIZES_NAME = "kodak_sizes.csv"
BIT_KINDS = ("nominal", "model", "actual")
_SHADES = " .:-=+*#%@"
_MAP_COLUMNS, _MAP_ROWS = 96, 40  # a larger grid is thinned out, in both directions alike


def describe(data: bytes) -> dict:
    """Everything a file says of itself, as JSON-ready values; BitstreamError if it is damaged."""
    file = unpack(data)
    parts = file.ledger
    pixels = file.width * file.height
    nominal = file.indices.size * file.rate.bits_per_index
    version, by_word = file.header.version, None
    if file.method == TABLE:
        by_word = caption_costs(file.caption)
    return {
        "bytes": len(data),
        "format_version": version,
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
        "bits": file.bits(),
        "caption_bits_by_word": by_word,  # as this program would code it
        "index_bits_nominal": nominal,
        "index_prior": file.header.prior_coded,
        "codebook_size": file.rate.codebook_size,
        "grid": list(file.indices.shape),
        "indices": file.indices.tolist(),
    }


def describe_file(data: bytes) -> dict:
    """What `perco compress` says of a file it made, as JSON-ready values; ``ratio``: to 24 bits a
    pixel. BitstreamError if it is damaged."""
    file = unpack(data)
    pixels = file.width * file.height
    about = {"bytes": len(data), "ledger": file.ledger, "rate": file.rate.name}
    about |= {"bits_per_pixel": 8 * len(data) / pixels, "ratio": 3 * pixels / len(data)}
    return about | {"width": file.width, "height": file.height, "caption": file.caption}


def made_text(row: dict) -> str:
    """The same in one line, for people."""
    parts = ", ".join(f"{name} {count}" for name, count in row["ledger"].items() if count)
    kind = "caption written" if row["caption_written"] else "caption"
    caption = f"{kind}: {row['caption'][:200]!r}" if row["caption"] else "no caption"
    return (
        f"{row['output']}: {row['bytes']} bytes ({parts}), {row['bits_per_pixel']:.4f} bpp at rate "
        f"{row['rate']}, 1/{row['ratio']:,.0f} of its pixels, {caption}"
    )


def describe_text(row: dict) -> str:
    """The same for people; the index map is drawn in shades, one character an index or a few."""
    h, w = row["grid"]
    lines = [
        printable(row.get("file", "")),
        f"  {row['width']}×{row['height']} pixels at rate {row['rate']}, model {row['model_id']}, "
        f"format version {row['format_version']}",
        f"  {row['bytes']} bytes = {row['bits_per_pixel']:.4f} bpp",
        f"    {'':8} {'':6}        {'':10}  {'nominal':>8} {'model':>8} {'actual':>8} bits",
        *(
            f"    {name:8} {count:6} bytes  {row['bits_per_pixel_by_part'][name]:.4f} bpp  "
            + " ".join(f"{row['bits'][name][kind]:8.1f}" for kind in BIT_KINDS)
            for name, count in row["ledger"].items()
        ),
        f"  caption: {printable(repr(row['caption']), 500)} "
        f"({row['caption_utf8_bytes']} bytes as UTF-8, "
        f"{row['caption_zlib_bytes']} with zlib as in the paper)",
        *([_words_text(row["caption_bits_by_word"])] if row["caption_bits_by_word"] else []),
        f"  indices: {h}×{w} of {row['codebook_size']} codes, "
        f"{row['index_bits_nominal']:.0f} bits uniformly"
        f"{', here with a prior' if row['index_prior'] else ''}; darker = higher number",
    ]
    step = max(math.ceil(w / _MAP_COLUMNS), math.ceil(h / _MAP_ROWS))
    for line in row["indices"][::step]:
        shades = (line[i] * len(_SHADES) // row["codebook_size"] for i in range(0, w, step))
        lines.append("    " + "".join(_SHADES[s] for s in shades))
    return "\n".join(line for line in lines if line)


def _words_text(costs: list[tuple[str, float]]) -> str:
    words = " ".join(f"{word.strip() or repr(word)} {bits:.1f}" for word, bits in costs)
    return f"    bits a word with the caption table: {printable(words, 800)}"


def served_rates(weights: str | None = None) -> list[str]:
    """Names of the rates that weights serve, from their configuration; none where none are bundled.

    Of weights on the hub, only that is downloaded. Raises ``FileNotFoundError`` or ``ValueError``
    where there is no codec.
    """
    folder = Path(__file__).parents[1] / "weights" if weights is None else Path(weights)
    config = folder / "conditioner" / "config.json"
    if weights is not None and not folder.exists() and is_hub_id(weights):
        from huggingface_hub import hf_hub_download

        try:
            config = Path(hf_hub_download(weights, "conditioner/config.json"))
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"no codec at {weights} on the hub, or no way to it ({explain(error)}); check it"
            ) from error
    if weights is None and not config.exists():
        return []
    if not config.exists():
        raise FileNotFoundError(f"no codec in the folder {weights!r}; give one that holds a codec")
    try:
        return list(json.loads(config.read_text(encoding="utf-8"))["rates"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{config} is damaged; download or train these weights again") from error


def measured_sizes(
    path: str | Path | None = None, version: int = WRITTEN_VERSION
) -> dict[str, dict]:
    """Measured bytes of whole files by rate name, from what `scripts/kodak_sizes.py` wrote.

    Each is ``{"format_version", "photos", "mean", "minimum", "maximum"}``; empty where there
    is no such file, as in a package installed without ``data/``. Raises ``ValueError`` for another
    kind of file.
    """
    path = Path(path) if path else Path(__file__).parents[2] / "data" / "results" / SIZES_NAME
    if not path.is_file():
        return {}
    sizes: dict[str, list[int]] = {}
    column = "bytes" if version == 2 else f"version_{version}_bytes"
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                sizes.setdefault(row["rate"], []).append(int(row[column]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged; run scripts/kodak_sizes.py again") from error
    return {
        name: {
            "format_version": version,
            "photos": len(b),
            "mean": sum(b) / len(b),
            "minimum": min(b),
            "maximum": max(b),
        }
        for name, b in sizes.items()
    }


def rate_table(weights: str | None = None) -> list[dict]:
    """One row a rate of the paper: grid, codebook, cost on a Kodak photo, served or not.

    Raises ``FileNotFoundError`` or ``ValueError`` for a folder that holds no codec.
    """
    served, sizes = served_rates(weights), measured_sizes() if weights is None else {}
    return [
        {
            "name": rate.name,
            "stride": rate.stride,
            "codebook_size": rate.codebook_size,
            "bits_per_index": rate.bits_per_index,
            "bits_per_pixel": rate.bits_per_pixel,
            "kodak_grid": list(rate.grid_shape(*KODAK)),
            "kodak_index_bytes": rate.index_bytes(*KODAK),
            "kodak_file_bytes": sizes.get(rate.name),
            "served": rate.name in served,
        }
        for rate in RATES
    ]


def rate_text(table: list[dict]) -> str:
    """The rate table for people."""
    lines = [
        "rate     stride  codes  bits/index  768×512 grid  index bytes  bpp      file bytes  served"
    ]
    for row in table:
        sizes = row["kodak_file_bytes"]
        measured = f"{sizes['mean']:.1f}" if sizes else "-"
        w, h = row["kodak_grid"][1], row["kodak_grid"][0]
        lines.append(
            f"{row['name']:8} {row['stride']:6} {row['codebook_size']:6} "
            f"{row['bits_per_index']:10.0f}  {f'{w}×{h}':>12} {row['kodak_index_bytes']:12}  "
            f"{row['bits_per_pixel']:.5f}  {measured:>10}  {'yes' if row['served'] else '-'}"
        )
    lines.append(
        "Index bytes and bpp: indices only, uniformly coded, as the paper names its rates. File "
        f"bytes: measured, whole files of format version {WRITTEN_VERSION}, mean over the Kodak "
        "photos (scripts/kodak_sizes.py; - where not measured). Served = by these weights."
    )
    return "\n".join(lines)
