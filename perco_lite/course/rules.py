"""``check`` an exercise's answer: a number by its digest, or a function that tries the answer out.

    check("07.1", answer) ──► RULES["07.1"](answer) ──► None: right; else what is off

Where an answer is a function, it is called with small inputs, and what is said names the input, not
the result. The numbers' digests are made by ``answers.digest``.

Paper: nothing on this.
"""

from collections.abc import Callable
from numbers import Real

import numpy as np

from perco_lite.course.answers import Number

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
            "the others have their check in the notebook"
        )
    off = RULES[exercise](answer)
    print(f"{exercise} is right." if off is None else f"{exercise}, not yet: {off}.")
    return off is None


def tried(answer: object, *inputs: object) -> tuple[object, str | None]:
    """What a function gives for ``inputs``, and what is off if it gives nothing."""
    if not callable(answer):
        return None, f"got a {type(answer).__name__}, expected a function: hand it over uncalled"
    try:
        return answer(*inputs), None
    except Exception as error:  # whatever a student's function raises is the message
        return None, f"the function raised {type(error).__name__}: {error}"


@rule("03.1")
def _decibels(answer: object) -> str | None:
    try:
        first, second, third = (float(value) for value in answer)
    except (TypeError, ValueError):
        return "expected three PSNRs, for K = 16, 64 and 256"
    if not 10 < first < 40:
        return "a PSNR of patches in [-1, 1] lies between 10 and 40 dB; the peak is 2"
    if not first < second < third:
        return "more bits, and yet no smaller error: is each codebook revived?"
    return None


@rule("03.2")
def _who_wins(answer: object) -> str | None:
    if answer not in ("random", "trained"):
        return 'expected "random" or "trained"'
    return None if answer == "random" else "so one would think; run it"


@rule("03.3")
def _no_codebook(answer: object) -> str | None:
    import torch

    features = torch.randn(32, 64, 1, 1, generator=torch.Generator().manual_seed(0)) * 3
    features.requires_grad_()
    found, off = tried(answer, features)
    if off:
        return off
    if not isinstance(found, tuple) or len(found) != 2:
        return "expected the quantized features and the indices"
    quantized, indices = found
    if not isinstance(quantized, torch.Tensor) or quantized.shape != features.shape:
        return "what comes back has another shape than the features"
    if indices.is_floating_point() or indices.min() < 0 or indices.max() > 255:
        return "four levels of four channels are whole numbers from 0 to 255"
    if not quantized.requires_grad or torch.autograd.grad(quantized.sum(), features)[0].norm() == 0:
        return "no gradient reaches the features"
    return None


number("04.1", "cb68473f0af0", 3, "bits a letter")
number("04.2", "472ad8fe34eb", 0, "bytes")


@rule("04.3")
def _decode(answer: object) -> str | None:
    from fractions import Fraction

    shares = {"!": Fraction(1, 13), "a": Fraction(11, 13), "h": Fraction(1, 13)}
    for text in ("h", "aah!", "!haaa"):
        low, width = Fraction(0), Fraction(1)
        for letter in text:
            low += width * sum(p for other, p in shares.items() if other < letter)
            width *= shares[letter]
        for number in (low, low + width / 2):
            found, off = tried(answer, number, shares, len(text))
            if off:
                return off
            if not isinstance(found, str) or len(found) != len(text):
                return f"expected a text of {len(text)} letters, got {found!r}"
            if found != text:
                same = next(i for i, (a, b) in enumerate(zip(found, text, strict=True)) if a != b)
                return f"{number} should give {len(text)} letters, of which {same} are right"
    return None


@rule("05.1")
def _own_table(answer: object) -> str | None:
    for sentence in ("a red barn beside a pond", "A quokka runs."):
        if not hasattr(answer, "encode") or not hasattr(answer, "decode"):
            return f"got a {type(answer).__name__}, expected what build_caption_model gives"
        if answer.decode(answer.encode(sentence)) != sentence:
            return f"it does not give {sentence!r} back"
    return None


number("05.2", "2833eb39795f", 3, "a share")


@rule("05.3")
def _drawn_sentence(answer: object) -> str | None:
    from perco_lite.coding.caption_model import bundled
    from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder

    for data in (bytes(range(60, 120)), b"\x07" * 80):
        found, off = tried(answer, data)
        if off:
            return off
        if found != bundled().decode_from(RangeDecoder(data), RangeEncoder()):
            return "that is not the sentence that the table reads in these bytes"
    return None


number("07.1", "1041d5a69bda", 3, "the clean value")
number("07.2", "690ca5006dda", 2, "how many times")


@rule("07.3")
def _median(answer: object) -> str | None:
    for values in ([0.0, 0.0, 10.0], [1.0, 2.0, 3.0, 40.0], [-5.0]):
        found, off = tried(answer, np.array(values))
        if off:
            return off
        if not isinstance(found, Real):
            return f"expected a number from the function, got a {type(found).__name__}"
        error = np.abs(np.array(values) - np.asarray(found)).mean()
        others = np.abs(np.array(values)[:, None] - np.linspace(-10, 50, 6001)).mean(axis=0)
        if error > others.min() + 1e-6:
            better = "the mean" if np.isclose(found, np.mean(values)) else "that"
            return f"for {values} another guess has a smaller absolute error than {better}"
    return None


@rule("08.1")
def _decided(answer: object) -> str | None:
    try:
        one, *_, twenty = shares = [float(value) for value in answer]
    except (TypeError, ValueError):
        return "expected the shares at 1, 2, 5 and 20 steps"
    if len(shares) != 4 or not all(0 <= share <= 1 for share in shares):
        return "expected four shares from 0 to 1"
    if one > 0.2:
        return "one step cannot decide: it paints the mean of both directions"
    return None if twenty > 0.6 else "twenty steps decide most pictures: was the model trained?"


number("08.2", "16d5bc128afb", 3, "the velocity")


@rule("08.3")
def _widened(answer: object) -> str | None:
    import torch

    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 5, 3, padding=1)
    wide, off = tried(answer, conv, 2)
    if off:
        return off
    if not isinstance(wide, torch.nn.Conv2d) or wide.in_channels != 5:
        return "expected a convolution with two more input channels"
    image = torch.randn(1, 5, 6, 6)
    if not torch.allclose(wide(image), conv(image[:, :3]), atol=1e-5):
        return "its output is not the old one"
    wide(image).square().sum().backward()
    if wide.weight.grad is None or not wide.weight.grad[:, 3:].any():
        return "the new weights get no gradient, so they would never learn"
    return None


number("12.1", "21459fdef671", 3, "the share of the union")
number("12.2", "94a2cfbba135", 3, "FID")


@rule("12.3")
def _cheat(answer: object) -> str | None:
    from PIL import Image, ImageFilter

    from perco_lite.metrics import psnr

    noise = np.random.default_rng(0)
    plain = np.kron(noise.integers(40, 216, (16, 16, 3)), np.ones((8, 8, 1)))
    photo = Image.fromarray(
        np.clip(plain + noise.normal(0, 6, plain.shape), 0, 255).astype("uint8")
    )
    photo = photo.filter(ImageFilter.GaussianBlur(0.7))
    wave = 128 + 90 * np.sin(np.arange(128) * 2.1)[None, :, None] * np.ones((128, 1, 3))
    other = Image.fromarray(wave.astype("uint8"))
    found, off = tried(answer, photo, other)
    if off:
        return off
    if not isinstance(found, Image.Image) or found.size != photo.size:
        return "expected a PIL image of the photo's size"
    if psnr(photo, found) <= psnr(photo, photo.filter(ImageFilter.GaussianBlur(2))):
        return "the blur is still nearer to the photo"
    borrowed = (np.asarray(found, float) - np.asarray(photo, float)) * (wave - 128)
    if borrowed.mean() < 20:  # nothing of the other's texture: about 0
        return "the other photo's texture is not to be seen in it"
    return None
