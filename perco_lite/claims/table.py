"""The table of claims: what the paper says, what we measured, and the verdict the rule gives.

    claim_list.CLAIMS: words, where, the paper's figure, how to measure, what would confirm it
    data/results/claims/*.csv ──judge──► Judgement: our figure with interval, verdict ──► Markdown

Paper: PerCo, as far as its abstract, its reviews, PerCo (SD) and others quote it.
Differs from the paper: see each claim's ``why``.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from perco_lite.claims.verdicts import (
    POSITIVE,
    UNKNOWN,
    Effect,
    Tables,
    UnmeasurableError,
    UnmeasuredError,
    verdict,
)

NOT_MEASURED = "not measured yet"


@dataclass(frozen=True)
class Claim:
    """One row; ``measure`` returns the effect that decides, and our figure in words."""

    key: str
    words: str
    where: str
    experiment: str
    paper: str
    measure: Callable[[Tables], tuple[Effect, str]]
    why: str
    region: tuple[float, float] = POSITIVE
    matters: float = 0.0
    comparable: bool = False
    needs: str = ""  # another claim that must be confirmed, or this one says nothing
    one_run: bool = False  # of two trainings, one run each: their dice are not in the interval

    @property
    def command(self) -> str:
        return f"perco claims {self.experiment}"


@dataclass(frozen=True)
class Judgement:
    """A claim with our figure and verdict."""

    claim: Claim
    figure: str
    verdict: str
    why: str
    effect: Effect | None = None


def judge(folder, claims: Iterable[Claim] | None = None) -> list[Judgement]:
    """Judge all claims by the tables in ``folder``."""
    from perco_lite.claims.claim_list import CLAIMS

    results, judged = Tables(folder), {}
    for claim in CLAIMS if claims is None else claims:
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
        if claim.needs and not confirmed(judged[claim.needs]):
            decided = UNKNOWN
            why = f"Says nothing unless “{judged[claim.needs].claim.words}” is confirmed. {why}"
        elif decided.startswith("holds") and claim.matters and effect.interval[1] < claim.matters:
            figure = f"{figure} (tiny: {claim.matters:g} would matter)"
            if claim.one_run:
                decided = UNKNOWN
                why = f"One run each: what is so small may be the dice of training. {why}"
        judged[claim.key] = Judgement(claim, figure, decided, why, effect)
    return list(judged.values())


def claims_folder() -> Path:
    """``data/results/claims`` of the repository: seen from where we are, or beside the package.

    Raises ``FileNotFoundError``: a package installed by pip brings no data.
    """
    beside = Path(__file__).resolve().parents[2] / "data"
    for place in (*map(Path, ("data", "../data", "repository/data")), beside):
        if (place / "results" / "claims").is_dir():
            return place / "results" / "claims"
    raise FileNotFoundError(
        "no data/results/claims here: make it with `perco claims -o data/results/claims`, or get "
        "it with `git clone --depth 1 https://github.com/perco-lite/perco_lite repository`"
    )


def confirmed(judgement: Judgement) -> bool:
    return judgement.verdict.startswith("holds")


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
