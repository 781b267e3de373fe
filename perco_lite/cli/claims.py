"""The `perco claims` command: the dated list of data/claims.yaml, measured and decided.

perco claims --list                        what would decide each claim
perco claims -o out/claims --processes 2   measures what is not there yet, and decides
perco claims bytes flat --photos 4         some claims, a short run
perco claims -o out/claims --table         measures nothing; the verdicts
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from perco_lite.cli.options import Device, Weights, emit, say, tell

Names = Annotated[
    list[str] | None, typer.Argument(help="Claims by their ids (--list); default: all.")
]
Some = Annotated[str, typer.Option("--claims", help="Claims by their ids, with commas between.")]
Output = Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")]
Listed = Annotated[bool, typer.Option("--list", help="Print the claims, and what would decide.")]
Plan = Annotated[
    bool, typer.Option("--plan", help="Say what is to be made, and how long it takes.")
]
Table = Annotated[bool, typer.Option("--table", help="Measure nothing; print the verdicts.")]
Photos = Annotated[
    int, typer.Option(help="Of each set at most so many, which decides nothing; 0 = all.")
]
Crop = Annotated[
    int, typer.Option(help="Of each photo its middle of so many pixels, likewise.", min=0)
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail at once where a claim cannot be measured here.")
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Verdicts as tables for a page.")]


def claims(
    names: Names = None,
    output: Output = Path("out/claims"),
    some: Some = "",
    dated: Listed = False,
    plan: Plan = False,
    table: Table = False,
    photos: Photos = 0,
    crop: Crop = 0,
    processes: Annotated[int, typer.Option(help="To share the work.", min=1)] = 1,
    seeds: Annotated[int, typer.Option(help="Of the short trainings.", min=2)] = 5,
    draws: Annotated[int, typer.Option(help="Of the photos, for intervals.", min=2)] = 1000,
    training_steps: Annotated[int, typer.Option(help="Of each short training.", min=1)] = 100,
    training_photos: Annotated[int, typer.Option(help="Photos to train on.", min=1)] = 400,
    weights: Weights = None,
    device: Device = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Verdicts in JSON.")] = False,
    as_markdown: Markdown = False,
) -> None:
    """Test the paper's claims on this codec, by a list that was dated before it was measured.

    What is there is not made again, after a crash either.
    """
    from perco_lite.claims.dated import load_list

    found = load_list()
    if dated:
        _print_list(found)
        return
    from perco_lite.claims.evidence import Run, decision_rows, read_evidence

    if table:
        evidence, failed = read_evidence(output, found), []
    else:
        from perco_lite.claims.trained import ShortTraining
        from perco_lite.loading import load_codec

        chosen = [*(names or ()), *filter(None, map(str.strip, some.split(",")))]
        how = ShortTraining(training_steps, training_photos, seeds)
        short = photos, crop, how, draws
        run = Run(found, load_codec(weights, device), output, chosen, *short)
        _refuse(run.missing if strict else {})
        jobs = run.open(command := shlex.join(["perco", *sys.argv[1:]]), look=plan)
        run.tell(jobs, processes, lambda line: say(line, err=True))
        if plan:
            run.store.look_away()
            return
        failed = run.measure(jobs, processes, weights, device, quiet=as_json)
        evidence = run.finish(run.effects(), command)
    if as_json:
        emit(json.dumps(evidence.about | {"decisions": decision_rows(evidence)}, indent=1))
    else:
        from perco_lite.claims import report

        emit((report.markdown if as_markdown else report.text)(evidence))
    for key, error in failed:
        tell(f"{' '.join(filter(None, key))}: {error}")
    if failed:
        raise typer.Exit(2)


def _refuse(missing: dict[str, str]) -> None:
    if missing:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in missing.items())
        raise ValueError(f"--strict, and not all can be measured here: {reasons}")


def _print_list(found) -> None:
    from perco_lite.claims.dated import missing_metrics

    say(f"{found.dated}, {found.sha256}: {len(found.claims)} claims of the paper, and ours")
    for claim in (*found.claims, *found.ours):
        added = f"; added {claim.added}" if claim.added else ""
        say(f"{claim.id}: {claim.claim} ({claim.where}; {claim.surely}{added})")
        limit = "at least" if claim.says == "more" else "within ±"
        say(f"  {claim.metric}, {claim.photos}: {claim.comparison}")
        say(f"  {limit} {claim.matters:g} {claim.unit}: {claim.why}")
        say(f"  refuted by: {claim.refuted_by}")
    for name, reason in missing_metrics((*found.claims, *found.ours)).items():
        say(f"cannot be measured here: {name} ({reason})")
