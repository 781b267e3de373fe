"""The main job, end to end: sample photos to files, files to photos in another process, compared.

samples × rates ──compress──► out/demo/files/*.perco
                                    └── `perco decompress` (a process that sees only these)
                                            └──► out/demo/decoded/*.png
both ──► table on the screen, demo.csv, contact sheet against JPEG, WebP and AVIF
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from perco_lite.coding.bitstream import unpack
from perco_lite.data import Sample, sample_photos
from perco_lite.evaluation.codecs.classical import BaselineResult, available, encode_near, smallest
from perco_lite.evaluation.scoring import load_photo_metrics
from perco_lite.files import printable, save_png, write_csv, write_whole
from perco_lite.loading import device_name, load_codec
from perco_lite.plotting import Tile, contact_sheet

BASELINES = {"jpeg": "JPEG", "webp": "WebP", "avif": "AVIF"}
METRICS = {"psnr": "psnr", "ms_ssim": "ms_ssim", "lpips": "lpips_alex"}  # column -> metric
FORMATS = {  # column -> how it is printed
    "bytes": "5d",
    "header": "6d",
    "caption": "7d",
    "indices": "7d",
    "bpp": ".4f",
    "psnr": "6.2f",
    "ms_ssim": "7.3f",
    "lpips": "5.3f",
    "encode_s": "5.2f",
    "decode_s": "5.2f",
}


def run_demo(
    output: Path, photos: int = 6, steps: int | None = None, weights: str | None = None
) -> list[dict]:
    """Run the demonstration on at most ``photos`` samples (0 = all); returns the table's rows.

    Raises ``RuntimeError`` with the last line of the decoding process, should that fail.
    """
    started = time.monotonic()
    samples = sample_photos()
    found = len(samples)
    if photos and found > photos:  # spread over the set, so that 6 of Kodak's 24 differ in kind
        samples = [samples[round(i * (found - 1) / (photos - 1 or 1))] for i in range(photos)]
    print(
        f"perco demo on {device_name()}: {len(samples)} of {found} photos from {samples[0].source}"
    )
    rows = _compress(samples, output / "files", weights)
    _decompress(rows, output / "decoded", steps, weights)
    metrics = load_photo_metrics(METRICS.values())
    for row in tqdm(rows, desc="measure", unit="photo"):
        sample, decoded = row["sample"], Image.open(row["decoded"]).convert("RGB")
        for column, name in METRICS.items():
            score = metrics.functions.get(name, lambda *photos: None)
            row[column] = score(sample.image, decoded, sample.caption)
    _print_table(rows)
    for reason in metrics.missing.values():
        print(f"not measured: {reason}")
    write_csv(output / "demo.csv", rows, ("photo", "rate", *FORMATS), digits=6)
    missing = [title for name, title in BASELINES.items() if not available()[name]]
    if missing:
        print(f"{', '.join(missing)}: not compared (this Pillow cannot write it)")
    sheet = output / "contact_sheet.png"
    save_png(draw_sheet(rows), sheet)
    print(f"wrote {output / 'files'}, {output / 'decoded'}, {output / 'demo.csv'} and {sheet}")
    print(f"{time.monotonic() - started:.0f} s in all")
    return rows


def _compress(samples: list[Sample], folder: Path, weights: str | None) -> list[dict]:
    codec = load_codec(weights)
    rows = []
    jobs = [(sample, rate) for sample in samples for rate in codec.rates]
    for sample, rate in tqdm(jobs, desc="compress", unit="file"):
        started = time.monotonic()
        data = codec.compress(sample.image, sample.caption, rate)
        seconds = time.monotonic() - started
        file = folder / f"{Path(sample.name).stem}_{rate}.perco"
        write_whole(file, data)
        row = {"photo": sample.name, "rate": rate, "bytes": len(data), **unpack(data).ledger}
        row["bpp"] = 8 * len(data) / (sample.image.width * sample.image.height)
        rows.append(row | {"encode_s": seconds, "sample": sample, "file": file})
    return rows


def _decompress(rows: list[dict], folder: Path, steps: int | None, weights: str | None) -> None:
    """Decode in a fresh process: it is given the files' names and nothing else."""
    by_file = {str(row["file"]): row for row in rows}
    command = [sys.executable, "-m", "perco_lite.cli", "decompress", "--json"]
    command += ["-o", str(folder), *([] if steps is None else ["--steps", str(steps)])]
    command += [] if weights is None else ["--weights", weights]
    command += ["--", *by_file]
    with (
        tqdm(total=len(rows), desc="decompress", unit="file") as bar,
        tempfile.TemporaryFile("w+", encoding="utf-8") as complaints,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, encoding="utf-8"
        ) as process,
    ):
        for line in process.stdout:  # a list, one picture a line, each when it is done
            answer = json.loads(line.strip("[],\n") or "null")
            if answer:
                row = by_file[answer["file"]]
                row["decoded"], row["decode_s"] = answer["output"], answer["seconds"]
                bar.update()
        if process.wait():
            complaints.seek(0)
            raise RuntimeError(f"the decoding process failed: {complaints.read()[-500:]}")


def _print_table(rows: list[dict]) -> None:
    width = max(len(row["photo"]) for row in rows)
    print(
        f"\n{'photo':{width}}  rate    bytes = header + caption + indices     bpp    PSNR  "
        "MS-SSIM  LPIPS  enc s  dec s"
    )
    for row in rows:
        cells = {  # as wide without a figure as with one
            name: f"{'-':>{form.split('.')[0]}}" if row[name] is None else format(row[name], form)
            for name, form in FORMATS.items()
        }
        parts = " + ".join(cells.pop(part) for part in ("header", "caption", "indices"))
        head = f"{printable(row['photo']):{width}}  {row['rate']}  {cells.pop('bytes')} = {parts}"
        print("  ".join([head, *cells.values()]))
    print("mean of the photos")
    for rate in dict.fromkeys(row["rate"] for row in rows):
        chosen = [row for row in rows if row["rate"] == rate]
        mean = {name: _mean(row[name] for row in chosen) for name in FORMATS}
        print(
            f"  {rate}: {mean['bytes']:.1f} bytes, {mean['bpp']:.4f} bpp, {mean['psnr']:.2f} dB, "
            + (f"MS-SSIM {mean['ms_ssim']:.3f}, " if mean["ms_ssim"] is not None else "")
            + (f"LPIPS {mean['lpips']:.3f}, " if mean["lpips"] is not None else "")
            + f"{mean['decode_s']:.2f} s a decode"
        )


def as_table(rows: list[dict]) -> list[dict]:
    """The rows as JSON-ready values: those of demo.csv, and the names of file and picture."""
    shown = ("photo", "rate", *FORMATS)
    paths = ("file", "decoded")
    return [{n: row[n] for n in shown} | {n: str(row[n]) for n in paths} for row in rows]


def _mean(values) -> float | None:
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def draw_sheet(rows: list[dict]) -> Image.Image:
    """Per photo: the original and this codec at each rate; below, what other formats can do."""
    lines = []
    names = [name for name in BASELINES if available()[name]]
    for photo in tqdm(dict.fromkeys(row["photo"] for row in rows), desc="baselines", unit="photo"):
        chosen = [row for row in rows if row["photo"] == photo]
        image = chosen[0]["sample"].image
        labels = [f"perco_lite {row['bytes']:,} bytes\n{row['bpp']:.4f} bpp" for row in chosen]
        ours = [
            Tile(Image.open(row["decoded"]), label, accent=True)
            for row, label in zip(chosen, labels, strict=True)
        ]
        lines.append([Tile(image, f"original\n{photo}"), *ours])
        least, most = chosen[0]["bytes"], chosen[-1]["bytes"]
        lowest = {name: smallest(image, name) for name in names}
        tiles = [
            _tile(r, f"its smallest: {len(r.data) / least:.0f} × {least}") for r in lowest.values()
        ]
        near = [encode_near(image, name, most) for name in names]
        # where nothing larger fits, or nothing at all, the smallest file comes back
        near = [r for r in near if r.data != lowest[r.codec].data]
        lines.append(tiles + [_tile(r, f"nearest below {most:,}") for r in near[-2:]])
    return contact_sheet(lines, title="perco_lite, and the smallest files other formats can make")


def _tile(result: BaselineResult, note: str) -> Tile:
    return Tile(result.image, f"{BASELINES[result.codec]} {len(result.data):,} bytes\n{note}")
