"""The table of claims: what the paper says, what we measured, and the verdict the rule gives.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    claim_list.CLAIMS: words, where, the paper's figure, how to measure, what would confirm it
    data/results/claims/*.csv ──judge──► Judgement: our figure with interval, verdict ──► Markdown

Paper: nothing of this; its claims are in ``claim_list``.
"""

from collections.abc import Iterable
from pathlib import Path

from perco_lite.claims.claim import Claim, Judgement
from perco_lite.claims.verdicts import UNKNOWN, Tables, UnmeasurableError, UnmeasuredError, verdict
from perco_lite.evaluation.results import data_folder

NOT_MEASURED = "not measured yet"


def judge(folder: str | Path, claims: Iterable[Claim]) -> list[Judgement]:
    """Judge claims by the tables in ``folder``; one that another needs comes before it."""
    results, judged = Tables(folder), {}
    for claim in claims:
        try:
            effect, figure = claim.measure(results)
        except UnmeasuredError as error:
            judged[claim.key] = Judgement(claim, NOT_MEASURED, NOT_MEASURED, str(error))
            continue
        except UnmeasurableError as error:
            judged[claim.key] = Judgement(claim, "none", UNKNOWN, f"{error}. {claim.why}")
            continue
        decided = verdict(effect.interval, claim.region, claim.comparable, claim.matters)
        why = claim.why
        if claim.needs and not judged[claim.needs].confirmed:
            decided = UNKNOWN
            why = f"Says nothing unless “{judged[claim.needs].claim.words}” is confirmed. {why}"
        elif decided.startswith("holds") and claim.matters and effect.interval[1] < claim.matters:
            figure = f"{figure} (tiny: {claim.matters:g} would matter)"
            if claim.one_run:
                decided = UNKNOWN
                why = f"One run each: what is so small may be the seed of training. {why}"
        judged[claim.key] = Judgement(claim, figure, decided, why, effect)
    return list(judged.values())


def claims_folder() -> Path:
    """``data/results/claims`` of the repository, by the shortest name it has from where we are.

    Raises ``FileNotFoundError`` as ``data_folder``.
    """
    return data_folder(("data", "../data")) / "results" / "claims"


def markdown(judgements: list[Judgement], long: bool = False, first: int = 1) -> str:
    """The table in short, or ``long`` with where, command, the paper's figure and why.

    ``first``: number of the first row, for a part of the table.
    """
    head = ["claim", "ours [95 % interval]", "verdict"]
    if long:
        head = ["claim", "where", "command", "the paper's figure", *head[1:], "why"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for number, one in enumerate(judgements, first):
        claim = one.claim
        cells = [f"{number}. {claim.words}", one.figure, f"**{one.verdict}**"]
        if long:
            known = [claim.where, f"`{claim.command}`", claim.paper]
            cells = [cells[0], *known, *cells[1:], one.why]
        else:
            tiny = " (tiny)" if one.figure.endswith("would matter)") else ""
            cells[1] = one.figure.split(";")[0] + tiny
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
