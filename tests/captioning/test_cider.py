"""CIDEr-D: by hand, and as pycocoevalcap has it."""

import math
import random

import pytest

from perco_lite.captioning.cider import CiderD


def test_by_hand():
    # two photos; n-grams of one photo weigh log 2, those of both nothing
    rated = CiderD([[["a", "dog"]], [["a", "cat"]]])
    # of n = 1: only "dog" weighs, cosine 1; of n = 2: "a dog", cosine 1; of n = 3, 4: none
    assert rated.score(0, ["a", "dog"]) == pytest.approx(10 * (1 + 1 + 0 + 0) / 4)
    assert rated.score(0, ["a", "cat"]) == rated.score(0, []) == 0
    # one pair of words against none: a length one less
    assert rated.score(0, ["dog"]) == pytest.approx(10 / 4 * math.exp(-1 / 72))
    assert rated.mean([["a", "dog"], ["a", "dog"]]) == pytest.approx(2.5)


def test_saying_a_word_again_gains_nothing():
    rated = CiderD([[["a", "dog", "runs"]], [["a", "cat"]]])
    once, often = rated.score(0, ["dog"]), rated.score(0, ["dog", "dog", "dog"])
    assert often < once


def test_as_many_captions_as_photos():
    with pytest.raises(ValueError, match="got 1 captions for 2 photos"):
        CiderD([[["a"]], [["b"]]]).mean([["a"]])


def test_is_pycocoevalcap_s():
    scorer = pytest.importorskip("pycocoevalcap.cider.cider", reason="pycocoevalcap is a yardstick")
    draw = random.Random(0)
    words = "a dog cat runs on the green grass with two red balls".split()

    def sentence():
        return draw.choices(words, k=draw.randint(1, 9))

    references = [[sentence() for _ in range(draw.randint(1, 5))] for _ in range(30)]
    captions = [sentence() for _ in references]
    ours = CiderD(references)
    theirs, each = scorer.Cider().compute_score(
        {i: [" ".join(text) for text in texts] for i, texts in enumerate(references)},
        {i: [" ".join(text)] for i, text in enumerate(captions)},
    )
    assert [ours.score(i, text) for i, text in enumerate(captions)] == pytest.approx(list(each))
    assert ours.mean(captions) == pytest.approx(theirs)
