"""Write the figures of `perco bench --json > bench.json` into README and model card.

python scripts/make_table.py bench.json
python scripts/make_table.py bench.json alone.json    figures of the second where it has them:
                                                   speeds by `perco bench --no-quality --json` on a
                                                   machine that had nothing else to do
"""

import json
import sys
from pathlib import Path

from marked import fill

ROOT = Path(__file__).parents[1]
FILES = ("README.md", "perco_lite/weights/README.md")
COLUMNS = {  # name in the report: (heading, format)
    "bytes": ("bytes", "{:,.1f}"),
    "psnr": ("PSNR", "{:.2f} dB"),
    "ms_ssim": ("MS-SSIM", "{:.3f}"),
    "feature_distance": ("feature distance", "{:.2f}"),
    "flat_colour_error": ("flat areas off by", "{:.1f} of 255"),
    "psnr_of_estimate": ("PSNR without diffusion", "{:.2f} dB"),
    "feature_distance_of_estimate": ("its feature distance", "{:.2f}"),
    "codes_used": ("codes used", "{:.0%}"),
}


def text(report: dict) -> str:
    """Markdown: a table with one row a rate, and what belongs to all rates below it."""
    names = [name for name in report if name.startswith("bytes_")]
    rates = sorted(name.removeprefix("bytes_") for name in names)
    shown = {c: v for c, v in COLUMNS.items() if f"{c}_{rates[0]}" in report}
    rows = ["| rate | " + " | ".join(heading for heading, _ in shown.values()) + " |"]
    rows += ["|---" * (1 + len(shown)) + "|"]
    for rate in rates:
        values = [form.format(report[f"{c}_{rate}"]) for c, (_, form) in shown.items()]
        rows.append(f"| `{rate}` | " + " | ".join(values) + " |")
    below = (
        f"Means over {report['kodak_photos']} Kodak photos at their own size, captions of 8 to 12 "
        f"words from `data/captions.json`, {report['settings']}; every byte of the file counts. "
        f"The autoencoder alone, the ceiling of all rates: {report['autoencoder_psnr']:.2f} dB"
    )
    if "autoencoder_feature_distance" in report:
        below += (
            f", feature distance {report['autoencoder_feature_distance']:.2f} (SqueezeNet features "
            "as in our training loss, not LPIPS; lower is better)"
        )
    below += ". LPIPS: not measured, its weights were not at hand." if "lpips" in report else "."
    if "encode_s" in report:
        below += (
            f" On {report['machine']}: encode {report['encode_s']:.2f} s, decode "
            f"{report['decode_s']:.2f} s with guidance, peak memory "
            f"{report['peak_memory_gb']:.2f} GB, cold start {report['cold_start_s']:.1f} s."
        )
    if "v_loss_gain" in report:
        below += (
            f" The caption: over {report['caption_photos']} held-out photos at 0.0019 the v-loss "
            f"is {report['v_loss_true_caption']:.4f} with their own, "
            f"{report['v_loss_shuffled_caption']:.4f} with another photo's and "
            f"{report['v_loss_empty_caption']:.4f} with none (gain of the own one over another's "
            f"{report['v_loss_gain']:.4f} ± {report['v_loss_gain_standard_error']:.4f}, one "
            "standard error)."
        )
    return "\n".join(rows) + "\n\n" + below


def main(*sources: str) -> None:
    report = {}
    for source in sources:
        report |= json.loads(Path(source).read_text())
    block = text(report)
    for name in FILES:
        fill(ROOT / name, "perco bench", block)


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
