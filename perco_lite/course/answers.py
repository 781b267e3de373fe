"""Exercises whose answer is a number: is it right, and what is off where it is not.

    Number("07.1", …)(answer) ──► rounded, hashed, compared with the stored digest
                                    └──► None: right; else what is off, as half a sentence

The solution is not in the source in the open, and what is said about a wrong number are slips that
everybody makes: bits for bytes, ln for log2, one too many.

Paper: nothing on this.
"""

import hashlib
import math
from dataclasses import dataclass
from numbers import Real

DIGITS = 12  # of a digest, in hexadecimal
# What often goes wrong with a number, and how that would be put right.
SLIPS = {
    "8 times too large: bytes were asked for?": lambda x: x / 8,
    "8 times too small: bits were asked for?": lambda x: x * 8,
    "the sign is wrong": lambda x: -x,
    "off by one: one too many": lambda x: x - 1,
    "off by one: one too few": lambda x: x + 1,
    "100 times too large: a share was asked for, no percentage?": lambda x: x / 100,
    "100 times too small: a percentage was asked for?": lambda x: x * 100,
    "right but for the logarithm: base 2 was asked for?": lambda x: x / math.log(2),
    "right but for the logarithm: base e was asked for?": lambda x: x * math.log(2),
    "the square of what was asked for": lambda x: math.sqrt(abs(x)),
    "the root of what was asked for": lambda x: x * x,
    "the rest to 1 was asked for": lambda x: 1 - x,
    "the inverse was asked for": lambda x: 1 / x if x else math.inf,
}


@dataclass(frozen=True)
class Number:
    """An exercise whose answer is a number: ``places`` decimals count, the last one roughly.

    ``expects`` names the unit for the message to whoever gives something else.
    """

    exercise: str
    digest: str
    places: int
    expects: str

    def __call__(self, answer: object) -> str | None:
        """None for the right number, else what is off."""
        answer, off = as_number(answer)
        if off:
            return f"{off}: {self.expects}"
        if self._is_right(answer):
            return None
        for slip, mended in SLIPS.items():
            value = mended(answer)
            if slip.startswith("off by one") and self.places:
                continue
            if "bytes" in slip and not any(unit in self.expects for unit in ("byte", "bit")):
                continue
            # a count is a slip's only if it comes out whole: 8 is not the square of 3
            if self._is_right(value) and (self.places or math.isclose(value, round(value))):
                return slip
        exact = f"right to {self.places} decimals" if self.places else "a whole number"
        return f"not this number; asked for: {self.expects}, {exact}"

    def _is_right(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        unit = 10.0**-self.places
        steps = (-1, 0, 1) if self.places else (0,)  # a count is right or wrong
        near = (value + step * unit for step in steps)
        return any(digest(self.exercise, number, self.places) == self.digest for number in near)


def as_number(answer: object) -> tuple[float, str | None]:
    """A finite number, also of numpy or torch, and what is off if it is none."""
    value = answer.item() if getattr(answer, "shape", None) == () else answer
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return math.nan, f"got {_brief(value)}, expected a number"
    return value, None


def digest(exercise: str, value: float, places: int) -> str:
    """What is stored of a number that answers an exercise."""
    rounded = f"{value:.{places}f}"
    if not float(rounded):
        rounded = rounded.removeprefix("-")
    return hashlib.sha256(f"{exercise}:{rounded}".encode()).hexdigest()[:DIGITS]


def _brief(answer: object) -> str:
    text = repr(answer)
    return text if len(text) <= 40 else f"{text[:37]}..."
