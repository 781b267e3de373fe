"""How long the evidence takes: Kodak, four rates, perco and four classical codecs.

    python scripts/evaluate_time.py [-o data/results/evaluate_time.json] [--photos 24]

Times `perco evaluate kodak` with PSNR and MS-SSIM in a fresh folder, from the start of the command
to its summary, and notes the machine. Issue 4 of this project asks for at most ten minutes on two
cores. What each codec took of that, encoding and decoding, is the sum over its rows.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from perco_lite.files import write_whole
from perco_lite.loading import device_name

RESULTS = Path(__file__).parents[1] / "data" / "results" / "evaluate_time.json"
TARGET = 600  # seconds, on two cores
OPTIONS = "--codecs perco,jpeg,jpeg2000,webp,avif --rates 0.0019,0.0098,0.0313,0.1250"
OPTIONS += " --metrics psnr,ms_ssim"


def measure(photos: int, options: str = OPTIONS) -> dict:
    """Run the command and return what the JSON says; raises ``SystemExit`` where it fails."""
    options = f"{options} --photos {photos}"
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "kodak.csv"
        words = ["evaluate", "kodak", "-o", str(table), *options.split()]
        started = time.perf_counter()
        run = subprocess.run([sys.executable, "-m", "perco_lite.cli", *words])
        seconds = time.perf_counter() - started
        if run.returncode:
            raise SystemExit(f"perco evaluate ended with {run.returncode}: nothing was written")
        with table.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    coding: dict[str, float] = {}
    for row in rows:
        took = float(row["encode_seconds"]) + float(row["decode_seconds"])
        coding[row["codec"]] = coding.get(row["codec"], 0.0) + took
    return {
        "command": "python scripts/evaluate_time.py",
        "measured": f"perco evaluate kodak -o FILE {options}",
        "machine": device_name(),
        "date": time.strftime("%Y-%m-%d"),
        "photos": len({row["photo"] for row in rows}),
        "rows": len(rows),
        "seconds": round(seconds, 1),
        "target_seconds": TARGET,
        "seconds_of_kept_files_by_codec": {name: round(took, 1) for name, took in coding.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    parser.add_argument("--photos", type=int, default=24)
    options = parser.parse_args()
    report = measure(options.photos)
    write_whole(options.output, (json.dumps(report, indent=1) + "\n").encode())
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
