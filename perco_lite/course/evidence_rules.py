"""Exercises of notebooks 13 to 16: evidence, Stable Diffusion.

Paper: nothing on this.
"""

import numpy as np

from perco_lite.course.answers import digest
from perco_lite.course.rules import number, rule, several, tried, tried_for_number

number("13.1", "2f64de8fe19d", 2, "dB")
number("13.2", "c6251b22b3d1", 2, "a ratio of deviations")


@rule("13.3")
def _pooled(answer: object) -> str | None:
    for psnrs in ([20.0, 40.0], [24.0, 24.0, 30.0], [18.0, 21.5, 33.0], [55.0, 65.0]):
        found, off = tried_for_number(answer, psnrs)
        if off:
            return off
        expected = -10 * np.log10(np.mean(10 ** (-np.asarray(psnrs) / 10)))
        if not np.isclose(found, expected, rtol=0, atol=0.006):  # two decimals do
            return f"wrong for {psnrs}"
    return None


number("14.1", "6951e368acbf", 3, "a distance")
number("14.2", "1c27a1902f98", 3, "octaves")


@rule("14.3")
def _kid(answer: object) -> str | None:
    import torch
    from torchmetrics.image.kid import poly_mmd

    noise = np.random.default_rng(0)
    # torchmetrics' is of sets of one size
    for count, width, shift in ((6, 4, 0.0), (9, 3, 1.0)):
        x, y = noise.normal(size=(2, count, width)) + np.array([0.0, shift])[:, None, None]
        found, off = tried_for_number(answer, x, y)
        if off:
            return off
        expected = float(poly_mmd(torch.from_numpy(x), torch.from_numpy(y)))
        if not np.isclose(found, expected, atol=1e-6):
            same = "of one distribution" if not shift else "of two distributions"
            return f"wrong for {count} vectors of {width} numbers, {same}"
    return None


number("15.1", "44859c3deb2f", 4, "a corrected p-value")
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
            return f"wrong for draws that lie {what}: got {found!r:.50}"
    return None


@rule("16.1")
def _changes(answer: object) -> str | None:
    parts = {"file", "new parts", "U-Net"}
    if not isinstance(answer, (set, list, tuple)) or not answer or not set(answer) <= parts:
        return f"expected some of {', '.join(sorted(parts))}"
    return None if set(answer) == parts - {"U-Net"} else "count the parameters of each part"


number("16.2", "6d9814d17dab", 3, "the value that guidance makes")


@rule("16.3")
def _batches(answer: object) -> str | None:
    values, off = several(answer, 2, "two batches, without and with checkpointing")
    if off:
        return off
    right = [digest("16.3", values[0], 0) == "beec43775860"]
    right.append(digest("16.3", values[1], 0) == "0bffa1829b3a")
    wrong = [("without", "with")[i] for i in (0, 1) if not right[i]]
    return f"not the largest of those tried {' and '.join(wrong)} checkpointing" if wrong else None
