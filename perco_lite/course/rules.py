"""``check`` an exercise's answer: a number by its digest, or a function that tries the answer out.

    coding_rules, picture_rules ──rule, number──► RULES
    check("07.1", answer) ──► RULES["07.1"](answer) ──► None: right; else what is off

Where an answer is a function, it is called with small inputs, and what is said names the input, not
the result. The numbers' digests are made by ``answers.digest``.

Paper: nothing on this.
"""

import copy
import math
from collections.abc import Callable

import numpy as np

from perco_lite.course.answers import Number, as_number

Rule = Callable[[object], str | None]
RULES: dict[str, Rule] = {}


def rule(exercise: str) -> Callable[[Rule], Rule]:
    """Register the function below as the test of an exercise."""

    def register(function: Rule) -> Rule:
        RULES[exercise] = function
        return function

    return register


def number(exercise: str, digest: str, places: int, expects: str) -> None:
    """Register an exercise whose answer is a number."""
    RULES[exercise] = Number(exercise, digest, places, expects)


def check(exercise: str, answer: object) -> bool:
    """Print whether ``answer`` solves an exercise, and else what is off; return whether.

    ``exercise`` is the notebook's number and the exercise's, "07.1". Raises ``ValueError`` for an
    exercise that has no check.
    """
    if exercise not in RULES:
        raise ValueError(
            f"got exercise {exercise!r}, expected one of {', '.join(sorted(RULES))}; "
            "each notebook has three"
        )
    off = RULES[exercise](answer)
    stop = "" if off and off.endswith("?") else "."
    print(f"{exercise} is right." if off is None else f"{exercise}, not yet: {off}{stop}")
    return off is None


def several(
    answer: object, count: int, what: str, shares: bool = False
) -> tuple[list[float], str | None]:
    """The numbers of an answer that has so many, and what is off if it has not."""
    try:
        values = [float(value) for value in answer]
    except (TypeError, ValueError):
        values = []
    if len(values) != count:
        return values, f"expected {what}"
    if shares and not all(0 <= value <= 1 for value in values):
        return values, "expected shares from 0 to 1"
    return values, None


def tried(answer: object, *inputs: object) -> tuple[object, str | None]:
    """What a function gives for ``inputs``, and what is off if it gives nothing.

    Lists and arrays go in as copies, so that a function that overwrites them is judged by what it
    gives; layers and tensors as they are, since some rules ask for changes and gradients.
    """
    if not callable(answer):
        return None, f"got a {type(answer).__name__}, expected a function: hand it over uncalled"
    try:
        return answer(
            *(copy.copy(one) if isinstance(one, list | np.ndarray) else one for one in inputs)
        ), None
    except Exception as error:  # whatever a student's function raises is the message
        return None, f"the function raised {type(error).__name__}: {error}"


def tried_for_number(answer: object, *inputs: object) -> tuple[float, str | None]:
    """The number that a function gives for ``inputs``, and what is off if it gives none."""
    found, off = tried(answer, *inputs)
    return as_number(found) if off is None else (math.nan, off)
