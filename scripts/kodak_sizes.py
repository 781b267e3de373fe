"""Sizes of the Kodak photos' files, part by part, beside the paper's account of the same.

    python scripts/kodak_sizes.py [--photos 24] [-o data/results/kodak_sizes.csv]

Compresses the 24 photos at every rate of the bundled weights with the captions of
data/captions.json into version 2 of the format (and into version 1 and into version 2 without the
index prior, of which the sizes are kept), reads each file back in a fresh process, which must find
the same caption and indices, and writes one row a photo and rate. Prints means, minima and maxima;
`scripts/pages.py sizes` puts them into docs/bench.md, and `perco rates` shows the means.

The paper's account is nominal: log2 K bits an index, and zlib's bytes of the caption; no header.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean

from perco_lite.cli.inspecting import SIZES_NAME
from perco_lite.coding.bitstream import pack, unpack
from perco_lite.data import kodak_photos
from perco_lite.files import write_csv
from perco_lite.loading import load_codec

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results" / SIZES_NAME
PARTS = ("header", "caption", "indices")
READ = """
import hashlib, sys
from perco_lite.coding.bitstream import unpack
file = unpack(open(sys.argv[1], "rb").read(), int(sys.argv[2]))
assert "torch" not in sys.modules
sys.stdout.buffer.write(hashlib.sha256(file.indices.tobytes()).hexdigest().encode())
sys.stdout.buffer.write(file.caption.encode("utf-8", "surrogatepass"))
"""


def reads_back(data: bytes, caption: str, indices, model_id: int) -> bool:
    """Whether another process finds the same in these bytes, with no more than the bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "photo.perco"
        path.write_bytes(data)
        run = [sys.executable, "-c", READ, str(path), str(model_id)]
        out = subprocess.run(run, stdout=subprocess.PIPE, check=True).stdout
    sent = hashlib.sha256(indices.tobytes()).hexdigest().encode()
    return out == sent + caption.encode("utf-8", "surrogatepass")


def measure(codec, photos) -> list[dict]:
    """One row for each photo and rate."""
    rows = []
    for rate in codec.rates:
        for photo in photos:
            file = unpack(codec.compress(photo.image, photo.caption, rate))
            first, data = pack(file, version=1), pack(file, version=2)
            # no prior is of these weights, and the file is as long as without one
            others = replace(file, model_id=file.model_id ^ 1)
            indices = codec.encode(photo.image, rate)[0].cpu().numpy().astype("int64")
            for each in (first, data):
                if not reads_back(each, photo.caption, indices, codec.model_id):
                    raise SystemExit(f"{photo.name} at {rate} came back as something else")
            again = unpack(data)
            bits = again.bits()
            nominal = sum(part["nominal"] for part in bits.values())
            row = {
                "rate": rate,
                "photo": photo.name,
                "width": file.width,
                "height": file.height,
                "bytes": len(data),
                "bpp": round(8 * len(data) / (file.width * file.height), 6),
                **{f"{part}_bytes": again.ledger[part] for part in PARTS},
                "caption_model_bits": round(bits["caption"]["model"], 2),
                "index_model_bits": round(bits["indices"]["model"], 2),
                "caption_paper_bytes": round(bits["caption"]["nominal"] / 8),
                "paper_bytes": round(nominal / 8, 2),
                "prior_coded": int(again.header.prior_coded),
                "without_prior_bytes": len(pack(others)),
                "version_1_bytes": len(first),
            }
            rows.append(row)
    return rows


def summary(rows: list[dict]) -> str:
    """Mean (minimum to maximum) of each part at each rate."""
    columns = [*(f"{part}_bytes" for part in PARTS), "bytes", "without_prior_bytes"]
    columns += ["version_1_bytes", "paper_bytes"]
    lines = ["rate    " + "".join(f"{name:>26}" for name in columns)]
    for rate in dict.fromkeys(row["rate"] for row in rows):
        line = f"{rate:8}"
        for name in columns:
            values = [row[name] for row in rows if row["rate"] == rate]
            line += f"{f'{mean(values):.1f} ({min(values):g} to {max(values):g})':>26}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--photos", type=int, default=24, help="at most this many")
    options = parser.parse_args()
    photos = kodak_photos()[: options.photos]
    if not photos:
        raise SystemExit("no Kodak photos: set PERCO_LITE_DATA (see data/README.md)")
    rows = measure(load_codec(device="cpu"), photos)
    write_csv(options.output, rows)
    print(summary(rows))
    print(f"{2 * len(rows)} files read back by as many fresh processes; wrote {options.output}")


if __name__ == "__main__":
    main()
