"""Scores of captions: words, known answers, and what is refused."""

import pytest

from perco_lite.evaluation.metrics.captions import score_captions, tokenize


def test_words_are_what_the_protocol_says():
    assert tokenize("A man's T-shirt, 3.5 m long!") == "a man 's t-shirt 3.5 m long".split()
    assert tokenize(" Zwei Hunde — «Ö» ") == ["zwei", "hunde", "ö"]
    assert tokenize("...") == []


def test_the_same_sentence_is_a_perfect_one():
    references = [["A dog runs on the grass."], ["Two cats sleep in a red box."]]
    perfect = score_captions(["a dog runs on the grass", "two cats sleep in a red box"], references)
    assert perfect["bleu_4"] == pytest.approx(1) and perfect["cider_d"] == pytest.approx(10)
    swapped = score_captions(["two cats sleep in a red box", "a dog runs on the grass"], references)
    assert swapped["bleu_4"] == 0 and swapped["cider_d"] == 0


def test_bleu_of_a_corpus_by_hand():
    # 5 of 6 words, 3 of 5 pairs, 2 of 4 triples, 1 of 3 fours; as long as the reference
    scores = score_captions(["a dog runs on red grass"], [["a dog runs on the grass"]])
    assert scores["bleu_4"] == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25, rel=1e-4)


def test_one_caption_for_each_photo():
    with pytest.raises(ValueError, match="got 2 captions for 1 photos"):
        score_captions(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="got 0 captions"):
        score_captions([], [])
