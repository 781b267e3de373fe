"""The experiments behind the table of claims: one command, one CSV each, never made twice.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    names ──► EXPERIMENTS[name](workbench) ──► NAME.csv        a row a photo and setting
                                          ├──► NAME_sets.csv   a row a draw of photos and setting
                                          └──► NAME.json       command, settings, device, versions

The JSON is written last: an experiment is finished when it has one. What is finished is left as it
is; what was made with other settings or weights is refused.

Paper: PerCo, Sec. 4.
Differs from the paper: small enough for a laptop; ``table`` says what that leaves unsaid.
"""

import json
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from perco_lite.claims.experiments import pictures
from perco_lite.claims.experiments.bits import entropy, ledgers
from perco_lite.claims.experiments.captions import captions
from perco_lite.claims.experiments.sizes import sizes
from perco_lite.claims.experiments.trainings import trainings
from perco_lite.claims.workbench import ClaimSettings, Outcome, Workbench, claim_photos
from perco_lite.codec import PercoCodec
from perco_lite.evaluation.metrics.realism import load_inception
from perco_lite.evaluation.metrics.semantics import load_clip, load_segmenter
from perco_lite.evaluation.table import check_writable
from perco_lite.files import write_csv, write_whole
from perco_lite.loading import device_name, weights_digest
from perco_lite.metrics import Unavailable, load_lpips

MADE_BY = "perco claims"
DIGITS = 6  # more than any of these figures knows


def missing(bench: Workbench) -> Outcome:
    """Which of the paper's metrics can be computed on this machine at all."""
    loads = {"LPIPS": load_lpips, "FID and KID": load_inception}
    loads |= {"CLIP score": load_clip, "mIoU": load_segmenter}
    rows = []
    for name, load in loads.items():
        try:
            load()
            reason = ""
        except Unavailable as error:
            reason = str(error)
        rows.append({"photo": "", "setting": name, "here": int(not reason), "why": reason})
    return Outcome(rows)


_IN_ORDER = (ledgers, entropy, pictures.rate, pictures.conditions, captions, pictures.guidance)
_IN_ORDER += (pictures.steps, pictures.seeds, pictures.bottleneck, sizes, trainings, missing)
EXPERIMENTS: dict[str, Callable[[Workbench], Outcome]] = {one.__name__: one for one in _IN_ORDER}


def run_experiments(
    names: Iterable[str],
    output: str | Path,
    codec: PercoCodec,
    settings: ClaimSettings | None = None,
    say: Callable[[str], None] = print,
    weights: str | None = None,
) -> dict[str, str]:
    """Run the experiments that are not finished in folder ``output``; all of them without names.

    Returns what became of each: "made" or "there". Raises, before any work, ``ValueError`` for an
    unknown name or a result of other settings, ``OSError`` where nothing can be written; during it,
    what an experiment cannot do without (its message names it).
    """
    settings, output = settings or ClaimSettings(), Path(output)
    names = list(dict.fromkeys(names)) or list(EXPERIMENTS)
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"got experiment {name!r}, expected some of {', '.join(EXPERIMENTS)}")
    about = {"settings": asdict(settings), "model_id": f"{codec.model_id:#06x}"}
    about["weights"] = weights_digest(codec)  # others may share the codebooks, and so the id
    outcome = {n: "there" if finished(output, n, about) else "made" for n in names}
    bench = None
    for name, became in outcome.items():
        if became == "there":
            say(f"{name}: there already, {output / name}.csv")
            continue
        bench = bench or Workbench(codec, claim_photos(), settings)
        started = time.perf_counter(), time.process_time()
        result = EXPERIMENTS[name](bench)
        took = {"seconds": round(time.perf_counter() - started[0], 1)}
        took["cpu_seconds"] = round(time.process_time() - started[1], 1)  # whatever else runs
        _write(output, name, result, about | took | _circumstances(bench, name, weights, output))
        say(f"{name}: {len(result.rows)} rows in {took['seconds']:.0f} s, {output / name}.csv")
        for note in result.notes:
            say(f"  note: {note}")
    return outcome


def finished(output: Path, name: str, about: dict) -> bool:
    """Whether an experiment is there; refuses what is not ours or was made otherwise."""
    for suffix in (".csv", ".json"):
        check_writable(output / f"{name}{suffix}")
    path = output / f"{name}.json"
    if not path.exists():
        return False
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if before.get("made_by") != MADE_BY:
            raise ValueError
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not from {MADE_BY}; name another folder") from error
    flat, now = ({**one, **one.get("settings", {})} for one in (before, about))
    differ = [key for key in now if key != "settings" and flat.get(key) != now[key]]
    said = ", ".join(f"{key}: was {flat.get(key)}, is {now[key]}" for key in differ)
    if said:
        raise ValueError(
            f"{path} was made otherwise ({said}); nothing was written: name another folder, or "
            "delete that file to have it made again"
        )
    return (output / f"{name}.csv").exists()


def _write(output: Path, name: str, result: Outcome, about: dict) -> None:
    if not result.rows:
        raise ValueError(f"{name} measured nothing; check that there are photos to measure on")
    write_csv(output / f"{name}.csv", result.rows, digits=DIGITS)
    if result.draws:
        write_csv(output / f"{name}_sets.csv", result.draws, digits=DIGITS)
    about = {"made_by": MADE_BY, "experiment": name, **about, "notes": result.notes}
    write_whole(output / f"{name}.json", (json.dumps(about, indent=1) + "\n").encode())


def command(name: str, settings: ClaimSettings, output: Path, weights: str | None = None) -> str:
    """What to type to have an experiment made again."""
    given, usual = asdict(settings), asdict(ClaimSettings())
    given = {n.replace("_", "-"): v for n, v in given.items() if v != usual[n]}
    given |= {"weights": weights} if weights else {}
    options = (f" --{name} {value}" for name, value in given.items())
    return f"perco claims {name} -o {output}" + "".join(options)


def _circumstances(bench: Workbench, name: str, weights: str | None, output: Path) -> dict:
    packages = ("torch", "diffusers", "transformers", "torchmetrics", "numpy", "pillow")
    return {
        "command": command(name, bench.settings, output, weights),
        "photos": f"{len(bench.names)} of {bench.source}",
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{bench.codec.device}: {device_name()}",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
    }
