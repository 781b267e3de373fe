"""Exercises of the notebooks on evidence.

Paper: nothing on this.
"""

from numbers import Real

import numpy as np

from perco_lite.course.rules import number, rule, tried

number("14.1", "7308062f02d0", 2, "a distance")
number("14.2", "1c27a1902f98", 3, "octaves")


@rule("14.3")
def _kid(answer: object) -> str | None:
    import torch
    from torchmetrics.image.kid import poly_mmd

    noise = np.random.default_rng(0)
    # torchmetrics' is of sets of one size
    for count, width, shift in ((6, 4, 0.0), (9, 3, 1.0)):
        x, y = noise.normal(size=(2, count, width)) + np.array([0.0, shift])[:, None, None]
        found, off = tried(answer, x, y)
        if off:
            return off
        expected = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
        if not isinstance(found, Real) or not np.isclose(found, expected, atol=1e-6):
            same = "of one distribution" if not shift else "of two distributions"
            return f"wrong for {count} vectors of {width} numbers, {same}"
    return None


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
