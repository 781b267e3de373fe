"""check: right answers pass, wrong ones are told what is off and never the answer."""

import math

import numpy as np
import pytest
import torch

from perco_lite.course import check
from perco_lite.course.answers import SLIPS, Number, digest
from perco_lite.course.rules import RULES, tried
from tests.course.conftest import ROOT

QUARTER = Number("00.0", digest("00.0", 2.25, 2), 2, "bits")


@pytest.mark.parametrize("right", [2.25, 2.254, np.float32(2.25), torch.tensor(2.25)])
def test_a_right_number(right):
    assert QUARTER(right) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (18.0, "bytes were asked for"),
        (2.25 / 8, "bits were asked for"),
        (-2.25, "sign"),
        (3.4, "not this number"),
        (225, "no percentage"),
        (2.25 * math.log(2), "base 2"),
        (7.0, "not this number; asked for: bits, right to 2 decimals"),
        ("2.25", "got '2.25', expected a number: bits"),
        (True, "expected a number"),
        (math.nan, "expected a number"),
        (np.ones(3), "expected a number"),
        (None, "expected a number"),
    ],
)
def test_what_is_off(wrong, said):
    off = QUARTER(wrong)
    assert said in off and (isinstance(wrong, str) or "2.25" not in off)


def test_zero_has_one_digest_and_breaks_no_slip():
    nothing = Number("00.1", digest("00.1", -0.0, 1), 1, "bits")
    assert nothing(0) is None and nothing(-0.01) is None and nothing(5) is not None
    assert QUARTER(0) is not None and all("2.25" not in slip for slip in SLIPS)


def test_a_count_is_no_slip_by_rounding():
    three = Number("00.2", digest("00.2", 3, 0), 0, "places")
    assert three(8) == "not this number; asked for: places, a whole number"
    assert three(9) == "the square of what was asked for" and three(3) is None
    assert three(4) == "off by one: one too many" and three(2) == "off by one: one too few"
    assert three(24).startswith("not this number"), "nobody asked for bytes"


def test_a_quantizer_rounds_before_it_passes_on():
    maps = torch.randn(64, 4, generator=torch.Generator().manual_seed(1)) / 8
    weights = torch.tensor([64, 16, 4, 1])

    def quantizer(features, rounded=True, by=1):
        bounded = 1.5 * torch.tanh(features.flatten(1) @ maps) + 1.5
        levels = bounded.detach().round()
        passed = levels + bounded - bounded.detach() if rounded else bounded
        return (passed @ maps.T)[:, :, None, None], (levels.long() @ weights) // by

    rule = RULES["03.3"]
    assert rule(quantizer) is None
    assert "one index for two" in rule(lambda features: quantizer(features, rounded=False))
    assert "one index for two" in rule(lambda features: quantizer(features, by=16))


def test_check_says_so(capsys):
    assert not check("07.1", 3.7)
    assert capsys.readouterr().out.startswith("07.1, not yet: not this number")
    with pytest.raises(ValueError, match="got exercise '99.1', expected one of .*07.1"):
        check("99.1", 1)


@pytest.mark.parametrize("exercise", RULES)
@pytest.mark.parametrize("nonsense", [None, "words", [], {}, object(), lambda *_: None, 1e9])
def test_nonsense_is_wrong_and_breaks_nothing(exercise, nonsense, capsys):
    assert check(exercise, nonsense) is False
    assert ", not yet: " in capsys.readouterr().out


def test_what_a_function_raises_is_said():
    said = "the function raised ZeroDivisionError: division by zero"
    assert tried(lambda x: 1 / x, 0) == (None, said)
    assert tried(2) == (None, "got a int, expected a function: hand it over uncalled")


def test_the_median_is_found_by_its_error():
    rule = RULES["07.3"]
    assert rule(np.median) is None and rule(lambda values: sorted(values)[len(values) // 2]) is None
    assert "than the mean" in rule(np.mean) and "than that" in rule(np.max)


def test_cheats_that_do_not_cheat():
    from PIL import Image, ImageFilter

    rule = RULES["12.3"]
    assert "texture is not to be seen" in rule(lambda photo, other: photo)
    assert "or hardly" in rule(lambda photo, other: Image.blend(photo, other, 0.002))
    assert "still nearer" in rule(lambda photo, other: other)
    assert "size" in rule(lambda photo, other: photo.resize((3, 3)))
    assert "nearer" in rule(lambda photo, _: photo.filter(ImageFilter.GaussianBlur(2)))


def test_every_check_is_asked_for_and_solved():
    """Each rule belongs to an exercise whose solution runs it, and no notebook asks for another."""
    found = set()
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        text = path.read_text(encoding="utf-8")
        solutions = text[text.index("Solutions") :]
        asked = {name for name in RULES if f'check(\\"{name}\\"' in text}
        assert asked == {name for name in RULES if f'check(\\"{name}\\"' in solutions}
        assert all(name.startswith(path.name[:2]) for name in asked)
        found |= asked
    assert found == set(RULES)


def test_one_picture_for_all():
    rule = RULES["10.3"]

    def nearest(pictures, features):
        seen = features(pictures)
        return pictures[torch.cdist(seen, seen).square().mean(1).argmin()]

    assert rule(nearest) is None
    assert "none of the pictures" in rule(lambda pictures, features: pictures.mean(0))
    for mean in (lambda away: away.mean(1), lambda away: away.max(1).values):
        other = lambda pictures, features: pictures[  # noqa: E731
            mean(torch.cdist(features(pictures), features(pictures))).argmin()  # noqa: B023
        ]
        assert "by the mean of their squared distances, another" in rule(other)
    assert "by their places, another" in rule(lambda pictures, features: pictures[0])
    only_place = rule(lambda pictures, features: nearest(pictures, lambda x: x))
    assert "by the distance from the middle, another" in only_place


def test_shares_that_no_judge_gives():
    rule = RULES["10.1"]
    assert rule((0.0, 0.98, 0.88)) is None
    assert "the mean" in rule((0.5, 0.9, 0.9)) and "trained" in rule((0.0, 0.1, 0.2))


def test_a_message_is_the_file():
    import base64

    rule = RULES["00.3"]
    assert rule(lambda data: base64.b64encode(data).decode()) is None
    assert "characters, 160 fit" in rule(lambda data: " ".join(map(str, data)))
    assert "not those that were sent" in rule(lambda data: base64.b64encode(data[1:]).decode())
    assert "no base64" in rule(lambda data: "abc")


def test_a_table_of_ones_own():
    from perco_lite.coding.caption_model import bundled
    from perco_lite.training.caption_model import build_caption_model

    assert RULES["05.1"](build_caption_model(["a red barn", "two dogs run"])) is None
    assert "that is the package's" in RULES["05.1"](bundled())
    assert "expected what build_caption_model gives" in RULES["05.1"]({})


def test_sameness_needs_both_sides():
    rule = RULES["15.3"]
    assert "above the upper" in rule(lambda draws, matters: "holds")

    def by_the_mean(draws, matters):
        return "holds" if abs(draws.mean()) < matters else "does not hold here"

    assert "on both sides of the upper" in rule(by_the_mean)


@pytest.mark.parametrize(
    "exercise, right, wrong",
    [
        ("02.2", (141.8, 14.7, 1.3e-6), {(14.7, 141.8, 0): "nearer", (9, 8, 7): "far corner"}),
        (
            "03.1",
            (17.0, 18.9, 20.1),
            {(11, 20, 39): "6 dB", (18, 17, 19): "revived", (5, 6, 7): "peak"},
        ),
        ("06.1", (6.0, 6.4, 6.3), {(6.4, 6.0, 6.3): "cost least", (6, 40, 7): "18 and some"}),
        ("09.1", (5.6, 5.1, 2.2), {(5.6, 5.8, 5.7): "dials", (5, 4, -1): "never negative"}),
        ("11.1", (0.1, 1.0, 6.7), {(26.1, 25.2, 19.5): "not what is left", (0, 0, 0.1): "scaled"}),
        (
            "11.3",
            ("branches.rate_0_0313.a", "branches.rate_0_0313.codebook"),
            {
                ("unet.a",): "the rest",
                (): "nowhere yet",
                ("branches.rate_0_0313.a",): "more than that",
                (("a", "b"), ()): "one list",
            },
        ),
        ("16.1", ("file", "new parts"), {("file", "U-Net"): "count", ("bits",): "expected some"}),
        ("16.2", 1.1, {0.5: "not this number", -1.1: "sign"}),
        ("16.3", (4, 16), {(4, 12): "tried with c", (8, 24): "without and with", (4,): "two"}),
        (
            "13.3",
            lambda p: round(-10 * np.log10(np.mean(10 ** (-np.array(p) / 10))), 2),
            {
                np.mean: "wrong for [20.0, 40.0]",
                print: "got None, expected a number",
                lambda p: p.clear() or 1.0: "wrong for [20.0, 40.0]",
                lambda p: -10 * np.log10(np.mean([10 ** (-x / 10) for x in set(p)])): "24.0, 30.0",
            },
        ),
    ],
)
def test_slips_are_named(exercise, right, wrong):
    assert RULES[exercise](right) is None
    for answer, said in wrong.items():
        assert said in RULES[exercise](answer)


def test_a_layer_that_is_changed_in_place():
    def in_place(conv, more):
        conv.weight = torch.nn.Parameter(torch.cat([conv.weight, torch.zeros(5, more, 3, 3)], 1))
        conv.in_channels += more
        return conv

    assert RULES["08.3"](in_place) == "it changed the layer that it was given; make a new one"
