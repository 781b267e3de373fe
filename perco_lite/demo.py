"""The main job, end to end: sample photos to files, files to photos in another process, compared.

samples × rates ──compress──► out/demo/files/*.perco
                                    └── `perco decompress` (a process that sees only these)
                                            └──► out/demo/decoded/*.png
both ──► table on the screen, demo.csv, contact sheet against JPEG, WebP and AVIF
"""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from perco_lite.baselines import BaselineResult, available, encode_near, smallest
from perco_lite.bitstream import ledger
from perco_lite.data import Sample, sample_photos
from perco_lite.loading import device_name, load_codec
from perco_lite.metrics import load_lpips, ms_ssim, psnr
from perco_lite.plotting import Tile, contact_sheet

BASELINES = ("jpeg", "webp", "avif")
COLUMNS = (
    "photo",
    "rate",
    "bytes",
    "header",
    "caption",
    "indices",
    "padding",
    "bpp",
    "psnr",
    "ms_ssim",
    "lpips",
    "encode_s",
    "decode_s",
)


def run_demo(output: Path, photos: int = 6, steps: int = 20) -> list[dict]:
    """Run the demonstration on at most ``photos`` samples (0 = all); returns the table's rows."""
    started = time.monotonic()
    samples = sample_photos()
    found = len(samples)
    if photos and found > photos:  # spread over the set, so that 6 of Kodak's 24 differ in kind
        samples = [samples[round(i * (found - 1) / (photos - 1 or 1))] for i in range(photos)]
    print(
        f"perco demo on {device_name()}: {len(samples)} of {found} photos from {samples[0].source}"
    )
    rows = _compress(samples, output / "files")
    _decompress(rows, output, steps)
    lpips, reason = load_lpips()
    for row in tqdm(rows, desc="measure", unit="photo"):
        original, decoded = row["sample"].image, Image.open(row["decoded"]).convert("RGB")
        row["psnr"] = psnr(original, decoded).value
        row["ms_ssim"] = ms_ssim(original, decoded).value
        row["lpips"] = lpips(original, decoded).value if lpips else None
    _print_table(rows)
    if not lpips:
        print(f"LPIPS: not measured ({reason})")
    _write_csv(rows, output / "demo.csv")
    sheet = output / "contact_sheet.png"
    draw_sheet(rows).save(sheet)
    print(f"wrote {output / 'files'}, {output / 'decoded'}, {output / 'demo.csv'} and {sheet}")
    print(f"{time.monotonic() - started:.0f} s in all")
    return rows


def _compress(samples: list[Sample], folder: Path) -> list[dict]:
    codec = load_codec()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    jobs = [(sample, rate) for sample in samples for rate in codec.rates]
    for sample, rate in tqdm(jobs, desc="compress", unit="file"):
        started = time.monotonic()
        data = codec.compress(sample.image, sample.caption, rate)
        seconds = time.monotonic() - started
        file = folder / f"{Path(sample.name).stem}_{rate}.perco"
        file.write_bytes(data)
        pixels = sample.image.width * sample.image.height
        rows.append(
            {
                "photo": sample.name,
                "rate": rate,
                "bytes": len(data),
                **ledger(data),
                "bpp": 8 * len(data) / pixels,
                "encode_s": seconds,
                "sample": sample,
                "file": file,
            }
        )
    return rows


def _decompress(rows: list[dict], output: Path, steps: int) -> None:
    """Decode in a fresh process per rate: it is given the files' names and nothing else."""
    bar = tqdm(total=len(rows), desc="decompress", unit="file")
    for rate in dict.fromkeys(row["rate"] for row in rows):
        chosen = [row for row in rows if row["rate"] == rate]
        command = [
            sys.executable,
            "-m",
            "perco_lite.cli",
            "decompress",
            "--json",
            "--steps",
            str(steps),
            "-o",
            str(output / "decoded"),
            *(str(row["file"]) for row in chosen),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the decoding process failed: {done.stderr.strip()[-500:]}")
        by_file = {answer["file"]: answer for answer in json.loads(done.stdout)}
        for row in chosen:
            answer = by_file[str(row["file"])]
            row["decoded"], row["decode_s"] = answer["output"], answer["seconds"]
        bar.update(len(chosen))
    bar.close()


def _print_table(rows: list[dict]) -> None:
    print(
        "\nphoto              rate    bytes = header+caption+indices    bpp     PSNR  MS-SSIM  "
        "enc s  dec s"
    )
    for row in rows:
        similarity = "    -" if row["ms_ssim"] is None else f"{row['ms_ssim']:.3f}"
        print(
            f"{row['photo']:18} {row['rate']}  {row['bytes']:5} = {row['header']:3} + "
            f"{row['caption']:3} + {row['indices']:5}       {row['bpp']:.4f}  {row['psnr']:6.2f}  "
            f"{similarity}   {row['encode_s']:5.2f}  {row['decode_s']:5.2f}"
        )
    print("mean of the photos")
    for rate in dict.fromkeys(row["rate"] for row in rows):
        chosen = [row for row in rows if row["rate"] == rate]
        mean = {k: _mean(row[k] for row in chosen) for k in COLUMNS[2:]}
        lpips = "" if mean["lpips"] is None else f", LPIPS {mean['lpips']:.3f}"
        print(
            f"  {rate}: {mean['bytes']:.1f} bytes, {mean['bpp']:.4f} bpp, {mean['psnr']:.2f} dB, "
            f"MS-SSIM {mean['ms_ssim'] or float('nan'):.3f}{lpips}, {mean['decode_s']:.2f} s"
        )


def _mean(values) -> float | None:
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def _write_csv(rows: list[dict], path: Path) -> None:
    fresh = path.with_name(path.name + ".part")
    with fresh.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(
            {k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )
    fresh.replace(path)


def draw_sheet(rows: list[dict]) -> Image.Image:
    """Per photo: the original and this codec at each rate; below, what other formats can do."""
    lines = []
    names = [name for name in BASELINES if available()[name]]
    for photo in tqdm(dict.fromkeys(row["photo"] for row in rows), desc="baselines", unit="photo"):
        chosen = [row for row in rows if row["photo"] == photo]
        image = chosen[0]["sample"].image
        lines.append(
            [Tile(image, f"original\n{photo}")]
            + [
                Tile(
                    Image.open(row["decoded"]),
                    f"perco_lite {row['bytes']:,} bytes\n{row['bpp']:.4f} bpp",
                    accent=True,
                )
                for row in chosen
            ]
        )
        largest = chosen[-1]["bytes"]
        tiles = [_tile(smallest(image, name), "smallest it can") for name in names]
        near = [encode_near(image, name, largest) for name in names]
        # a format that cannot get down to that size has been shown at its smallest already
        tiles += [_tile(r, f"nearest to {largest:,}") for r in near if r.reached][-2:]
        lines.append(tiles)
    return contact_sheet(lines, title="perco_lite, and what other formats do with as few bytes")


def _tile(result: BaselineResult, note: str) -> Tile:
    return Tile(result.image, f"{result.codec.upper()} {len(result.data):,} bytes\n{note}")
