"""A claim of the paper, and what became of it here.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

Paper: PerCo, as far as its abstract, its reviews, PerCo (SD) and others quote it.
Differs from the paper: see each claim's ``why``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from perco_lite.claims.verdicts import POSITIVE, Effect, Tables


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
    one_run: bool = False  # of two trainings, one run each: their seed is not in the interval

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

    @property
    def confirmed(self) -> bool:
        return self.verdict.startswith("holds")
