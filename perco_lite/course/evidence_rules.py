"""Exercises of the notebooks on evidence.

Paper: nothing on this.
"""

import numpy as np

from perco_lite.course.rules import number, rule, tried

number("15.1", "3e24f3114d35", 3, "a corrected p-value")
number("15.2", "4e3fe9036398", 0, "photos")


@rule("15.3")
def _same(answer: object) -> str | None:
    draws, unsure = np.linspace(-1, 1, 1000), "cannot be told from these photos"
    cases = {
        "all between the limits": (0.05 * draws, 1.0, "holds"),
        "all above the upper one": (2 + 0.05 * draws, 1.0, "does not hold here"),
        "all below the lower one": (-2 + 0.05 * draws, 1.0, "does not hold here"),
        "on both sides of the upper one": (1 + draws, 1.0, unsure),
        "far beyond both": (9 * draws, 1.0, unsure),
        "far beyond both, and hardly any between": (50 * draws, 1.0, unsure),
        "beyond the upper one, but 2 of 100": (3 * draws + 3.87, 1.0, unsure),
    }
    for what, (values, matters, expected) in cases.items():
        found, off = tried(answer, values, matters)
        if off:
            return off
        if found != expected:
            return f"wrong for draws that lie {what}"
    return None
