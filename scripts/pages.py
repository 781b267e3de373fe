"""Fill every place of the pages that scripts write, from what is measured and kept.

    python scripts/pages.py bench out/bench.json [alone.json]  docs/bench.md and the model card
    python scripts/pages.py sizes      docs/bench.md, from data/results/kodak_sizes.csv
    python scripts/pages.py verdicts out/claims    docs/claims.md; keeps rows, effects and verdicts
    python scripts/pages.py evaluate [out/kodak.csv …]     data/results/README.md; keeps the tables;
                                       README.md, from data/results/rates.csv
    python scripts/pages.py memory     docs/full_scale.md, from shapes: a minute, no GPU needed
    python scripts/pages.py full_size [out/full_size/report.json]      docs/full_scale.md, measured

Of several reports of `perco bench`, figures of the later one win: speeds, say, of a machine
that had nothing else to do. A place is what stands between <!-- NAME --> and <!-- end -->.
"""

import json
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean

from experiments import SHRUNK
from full_scale_page import full_size, memory
from page_parts import ROOT, fill, read_json, read_rows, table

from perco_lite.evaluation.results import Results, load_results
from perco_lite.files import write_whole

RESULTS = ROOT / "data" / "results"
BENCH_PAGES = (ROOT / "docs" / "bench.md", ROOT / "perco_lite" / "weights" / "README.md")
CLAIMS_PAGE = ROOT / "docs" / "claims.md"


# --- perco bench ---

COLUMNS = {  # name in the report: (heading, format)
    "bytes": ("bytes", "{:,.1f}"),
    "psnr": ("PSNR", "{:.2f} dB"),
    "ms_ssim": ("MS-SSIM", "{:.3f}"),
    "lpips": ("LPIPS (alex)", "{:.3f}"),
    "feature_distance": ("feature distance", "{:.2f}"),
    "flat_colour_error": ("flat areas off by", "{:.1f} of 255"),
    "psnr_of_estimate": ("PSNR without diffusion", "{:.2f} dB"),
    "feature_distance_of_estimate": ("its feature distance", "{:.2f}"),
    "pattern": ("waves photos do not have", "{:.1f} of 255"),
    "codes_used": ("codes used", "{:.0%}"),
}


SENTENCES = {  # shown where the report has the figure of that name
    "kodak_photos": "Means over {kodak_photos} Kodak photos at their own size, captions of 10 to "
    "12 words from `data/captions.json`, {settings}; every byte of the file counts.",
    "autoencoder_psnr": " The autoencoder alone, the ceiling of all rates: "
    "{autoencoder_psnr:.2f} dB",
    "autoencoder_lpips": ", LPIPS {autoencoder_lpips:.3f}",
    "autoencoder_feature_distance": ", feature distance {autoencoder_feature_distance:.2f} "
    "(SqueezeNet features as in our training loss, not LPIPS; lower is better)",
    "settings": ".",
    "lpips": " LPIPS: not measured, its weights were not at hand (`perco download metrics`).",
    "encode_s": " On {machine}: encode {encode_s:.2f} s, decode {decode_s:.2f} s, in twenty steps "
    "with guidance {decode_20_steps_s:.2f} s, peak memory {peak_memory_gb:.2f} GB, cold start "
    "{cold_start_s:.1f} s.",
    "speed_commit": " (Seconds and memory: at commit {speed_commit:.7}.)",
    "v_loss_gain": " The caption: over {caption_photos} held-out photos at 0.0019 the v-loss is "
    "{v_loss_true_caption:.4f} with their own, {v_loss_shuffled_caption:.4f} with another photo's "
    "and {v_loss_empty_caption:.4f} with none (gain of the own one over another's "
    "{v_loss_gain:.4f} ± {v_loss_gain_standard_error:.4f}, one standard error).",
}


def bench_text(report: dict) -> str:
    """A table with one row a rate, and what belongs to all rates below it."""
    names = [name for name in report if name.startswith("bytes_")]
    rates = sorted(name.removeprefix("bytes_") for name in names)
    shown = {c: v for c, v in COLUMNS.items() if f"{c}_{rates[0]}" in report}
    rows = [
        [f"`{rate}`", *(form.format(report[f"{c}_{rate}"]) for c, (_, form) in shown.items())]
        for rate in rates
    ]
    below = "".join(text.format_map(report) for name, text in SENTENCES.items() if name in report)
    return f"{table(['rate', *(heading for heading, _ in shown.values())], rows)}\n\n{below}"


def bench(*reports: str) -> None:
    report = {name: value for path in reports for name, value in read_json(path).items()}
    for page in BENCH_PAGES:
        fill(page, "perco bench", bench_text(report))
    write_whole(RESULTS / "bench.json", f"{json.dumps(report, indent=1)}\n".encode())


# --- sizes of the Kodak photos' files ---


def sizes_text(rows: list[dict[str, str]]) -> str:
    """Mean bytes of each part at each rate, with the paper's account beside them."""
    head = ["rate", "bytes, mean (from to)", "header", "caption", "indices", "no prior"]
    columns = ("header", "caption", "indices", "without_prior", "paper")
    lines = []
    for rate in dict.fromkeys(row["rate"] for row in rows):
        chosen = [row for row in rows if row["rate"] == rate]
        sizes = [int(row["bytes"]) for row in chosen]
        whole = f"**{mean(sizes):,.1f}** ({min(sizes):,} to {max(sizes):,})"
        parts = (mean(float(row[f"{name}_bytes"]) for row in chosen) for name in columns)
        lines.append([f"`{rate}`", whole, *(f"{part:,.1f}" for part in parts)])
    return table([*head, "as the paper counts"], lines)


def sizes() -> None:
    fill(BENCH_PAGES[0], "kodak sizes", sizes_text(read_rows(RESULTS / "kodak_sizes.csv")))


# --- perco claims ---

DATED = RESULTS / "dated"
KEPT = ("rows.csv", "effects.npz", "claims.json")


def verdicts(folder: str | Path = ROOT / "out" / "claims") -> None:
    """Keep a whole run of `perco claims`; ``ValueError`` for a short one, or another list's."""
    from perco_lite.claims.dated import load_list
    from perco_lite.claims.evidence import read_evidence
    from perco_lite.claims.report import markdown

    found = read_evidence(folder, load_list())
    if found.about["limit"] or found.about["crop"]:
        raise ValueError(f"{folder} is a short run, which decides nothing; run it whole")
    for name in KEPT:
        write_whole(DATED / name, (Path(folder) / name).read_bytes())
    fill(CLAIMS_PAGE, "dated list", markdown(found))


# --- perco evaluate ---

FRONT_PAGE = ROOT / "README.md"
FRONT = {  # of its table: heading, format, the better of several
    "psnr": ("PSNR", "{:.1f} dB", max),
    "lpips_alex": ("LPIPS ↓", "{:.2f}", min),
    "dists": ("DISTS ↓", "{:.2f}", min),
    "kid_256": ("KID/256 ↓", "{:.2f}", min),
}


def keep(path: Path) -> None:
    """Copy a finished table and its summary to RESULTS; ``ValueError`` for one that is not."""
    summary = path.with_suffix(".json")
    about = read_json(summary)
    if not about["finished"] or about["skipped"]:
        raise ValueError(f"{path} is not whole; run its command again")
    words = shlex.split(about["command"])
    about["command"] = shlex.join([Path(words[0]).name, *words[1:]])  # of any machine
    made = datetime.fromtimestamp(summary.stat().st_mtime, timezone.utc)
    about["date"] = made.date().isoformat()
    text = json.dumps(about, indent=1, ensure_ascii=False)
    write_whole(RESULTS / summary.name, f"{text}\n".encode())
    write_whole(RESULTS / path.name, path.read_bytes())


def evaluate(*tables: str) -> None:
    for path in tables:
        keep(Path(path))
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        about = read_json(path)
        if about.get("made_by") == "perco evaluate":
            photos = f"{about['photos']} of {about['settings']['dataset']}"
            files = f"`{path.stem}.csv`, `{path.name}`"
            rows.append([files, photos, f"`{about['command']}`", about["machine"], about["date"]])
    listed = table(["file", "photos", "command", "device", "date"], rows)
    fill(RESULTS / "README.md", "perco evaluate", listed)
    if (RESULTS / "rates.csv").is_file():
        fill(FRONT_PAGE, "rates", rates_text(load_results("rates", RESULTS)))


def rates_text(results: Results) -> str:
    """Ours at each rate, and the best of the shrunk rivals whose files are as small, by column."""

    def line(name: str, codecs: list[str], rate: str) -> list[str]:
        sizes = [mean(results.values(one, rate, "bytes").values()) for one in codecs if rate]
        ends = dict.fromkeys(f"{end:,.0f}" for end in (min(sizes), max(sizes))) if sizes else ()
        figures = []
        for metric, (_, form, better) in FRONT.items():
            values = [results.at(codec, rate, metric).value for codec in codecs]
            figures.append(form.format(better(values)))
        return [name, " to ".join(ends), *figures]

    rows = []
    for rate in results.rates("perco"):
        fit = [
            codec
            for codec in SHRUNK
            if results.rates(codec)
            and results.at(codec, rate, "psnr").reached == results.summary["photos"]
        ]
        rows.append(line(f"**`{rate}`**", ["perco"], rate))
        rows.append(line("best rival", fit, rate))
    rows.append(line("autoencoder alone", ["autoencoder"], ""))
    return table(["", "bytes", *(heading for heading, *_ in FRONT.values())], rows)


PAGES = {"bench": bench, "sizes": sizes, "verdicts": verdicts}
PAGES |= {"evaluate": evaluate, "memory": memory, "full_size": full_size}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PAGES or sys.argv[1:] == ["bench"]:
        sys.exit(__doc__)
    PAGES[sys.argv[1]](*sys.argv[2:])
