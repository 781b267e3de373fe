"""The `perco claims` command.

perco claims guidance steps -o data/results/claims ──► guidance.csv, guidance.json, …
perco claims --table -o data/results/claims        ──► the claims and their verdicts
perco claims --list                                ──► data/claims.yaml: what would decide each
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from perco_lite.cli.options import DenoisingSteps, Device, Weights, emit, say


def claims(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="ledgers, entropy, rate, conditions, captions, guidance, steps, seeds, "
            "bottleneck, sizes, trainings, missing; default: all."
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")] = Path(
        "out/claims"
    ),
    table: Annotated[
        bool, typer.Option("--table", help="Measure nothing; print claims and verdicts.")
    ] = False,
    dated: Annotated[
        bool,
        typer.Option("--list", help="Print the dated list of claims, and what would decide each."),
    ] = False,
    photos: Annotated[int, typer.Option(help="At most so many; 0 = all.", min=0)] = 0,
    crop: Annotated[int, typer.Option(help="Pixels a side of each photo's middle.")] = 256,
    steps: DenoisingSteps = 20,
    seeds: Annotated[int, typer.Option(help="Seeds to compare.", min=2)] = 3,
    draws: Annotated[int, typer.Option(help="Draws for intervals of a set.", min=2)] = 200,
    training_steps: Annotated[int, typer.Option(help="Of each short training.", min=1)] = 100,
    training_photos: Annotated[int, typer.Option(help="Photos to train on.", min=1)] = 400,
    weights: Weights = None,
    device: Device = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --table: claims and verdicts in JSON.")
    ] = False,
) -> None:
    """Test the paper's claims on this codec: tables, and a verdict for each claim.

    A quarter of an hour on two cores. What is finished is not measured again.
    """
    if dated:
        _print_list()
        return
    if table:
        from perco_lite.claims.claim_list import CLAIMS
        from perco_lite.claims.table import judge, markdown

        judged = judge(output, CLAIMS)
        emit(json.dumps([_row(one) for one in judged], indent=1) if as_json else markdown(judged))
        return
    from perco_lite.claims.run import run_experiments
    from perco_lite.claims.workbench import ClaimSettings
    from perco_lite.loading import load_codec

    settings = ClaimSettings(photos, crop, steps, seeds, draws, training_steps, training_photos)
    codec = load_codec(weights, device)
    run_experiments(names or [], output, codec, settings, say, weights)


def _row(one) -> dict:
    """A judgement as JSON-ready values; ``value`` and ``interval`` null where nothing decides."""
    row = {"key": one.claim.key, "claim": one.claim.words, "where": one.claim.where}
    row |= {"experiment": one.claim.experiment, "ours": one.figure, "verdict": one.verdict}
    effect = one.effect
    row |= {"value": effect and effect.value, "interval": effect and list(effect.interval)}
    return row | {"why": one.why}


def _print_list() -> None:
    from perco_lite.claims.dated import load_list, missing_metrics

    found = load_list()
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
