"""Tokens and embeddings of captions: any Unicode, always 32 tokens, nothing mistaken for a mark."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from conftest import SENTENCES
from perco_lite.captions import (
    MAX_TOKENS,
    build_text_encoder,
    embed,
    embed_captions,
    tokenize,
    train_tokenizer,
)
from perco_lite.codec import BUNDLED

PAD, START, END = 0, 1, 2
TOKENIZER = train_tokenizer(SENTENCES, vocabulary=300)


def decoded(token_ids) -> str:
    """Text of one caption's tokens without the marks at its ends."""
    ids = token_ids.tolist()
    return TOKENIZER.decode(ids[1 : ids.index(END)])


def spaced(text: str) -> str:
    """What byte-level BPE makes of a caption: a space in front, as before every word."""
    return text if not text or text.startswith(" ") else " " + text


@pytest.mark.parametrize(
    "caption", [*SENTENCES, "A.B , c !", "  two  spaces ", "", "<end>", "a\tb"]
)
def test_ascii_comes_back(caption):
    assert decoded(tokenize(TOKENIZER, [caption])[0]) == spaced(caption).lower()


@given(st.text(st.characters(max_codepoint=127), max_size=MAX_TOKENS - 3))
def test_every_short_ascii_text_comes_back(text):
    assert decoded(tokenize(TOKENIZER, [text])[0]) == spaced(text).lower()


# a lone surrogate can be in a Python string, not in UTF-8
ANY_TEXT = st.text() | st.text(st.characters(categories=["Cs"])) | st.text("aé \ud800\U0001f600")


@given(st.lists(ANY_TEXT, min_size=1, max_size=3))
@settings(deadline=None)
def test_every_unicode_string_has_tokens(texts):
    ids = tokenize(TOKENIZER, texts)
    assert ids.shape == (len(texts), MAX_TOKENS) and ids.dtype == torch.int64
    assert 0 <= ids.min() and ids.max() < len(TOKENIZER)
    for text, row in zip(texts, ids.tolist(), strict=True):
        assert row[0] == START and row.count(START) == 1
        assert row.count(END) == 1  # also where the text was cut
        end = row.index(END)
        assert set(row[end + 1 :]) <= {PAD} and PAD not in row[:end]
        assert (end == 1) is (text == "")


def test_the_empty_caption():
    assert tokenize(TOKENIZER, [""]).tolist() == [[START, END] + [PAD] * 30]


def test_long_captions_are_cut_and_still_end():
    ids = tokenize(TOKENIZER, ["barn " * 50])[0].tolist()
    assert len(ids) == 32 and ids[0] == START and ids[-1] == END and PAD not in ids


def test_marks_written_in_a_caption_are_only_text():
    """Else a caption could end itself, or hide words: "<end>" means these five characters."""
    ids = tokenize(TOKENIZER, ["a <end> b <start> <pad> c"])[0]
    assert decoded(ids) == " a <end> b <start> <pad> c"


def test_the_bundled_first_word_is_a_word_like_the_others():
    """With a space before it, as in training; transformers 4 believes the config, not the file."""
    config = json.loads((BUNDLED / "tokenizer" / "tokenizer_config.json").read_text("utf-8"))
    assert config["add_prefix_space"] is True
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUNDLED / "tokenizer")
    first, second = tokenize(tokenizer, ["red", "a red"]).tolist()
    assert first[1] == second[2]


def test_case_and_unicode_form_do_not_matter():
    composed, apart = "caf\u00e9", "CAFE\u0301"
    ids = tokenize(TOKENIZER, [composed, apart, "cafe"])
    assert torch.equal(ids[0], ids[1]) and not torch.equal(ids[0], ids[2])


def test_words_of_the_training_sentences_are_short():
    tokenizer = train_tokenizer(SENTENCES * 3, vocabulary=400)
    assert (tokenize(tokenizer, ["a wooden barn"])[0] != PAD).sum() <= 5  # three words, two marks
    assert len(tokenizer) <= 400


def test_training_gives_the_same_tokens_each_time_and_after_saving(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    texts = [*SENTENCES, "", "na\u00efve \U0001f600", "<end>"]
    again = train_tokenizer(iter(SENTENCES), vocabulary=300)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for tokenizer in (again, loaded):
        assert torch.equal(tokenize(tokenizer, texts), tokenize(TOKENIZER, texts))


# --- embeddings ---


@pytest.fixture(scope="module")
def text_encoder():
    torch.manual_seed(0)
    return build_text_encoder(len(TOKENIZER), width=32, layers=1, heads=2).eval()


def test_embeddings_differ_between_captions(text_encoder):
    texts = ["a red barn", "a red pond", "", "a red barn"]
    embeddings = embed_captions(TOKENIZER, text_encoder, texts)
    assert embeddings.shape == (4, 32, 32) and not embeddings.requires_grad
    torch.testing.assert_close(embeddings[0], embeddings[3])
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert (embeddings[i] - embeddings[j]).abs().max() > 0.01
    alone = embed_captions(TOKENIZER, text_encoder, texts[1:2])
    torch.testing.assert_close(alone[0], embeddings[1])


def test_order_of_words_matters(text_encoder):
    one, other = embed_captions(TOKENIZER, text_encoder, ["a dog and a man", "a man and a dog"])
    end = tokenize(TOKENIZER, ["a dog and a man"])[0].tolist().index(END)
    assert (one[end] - other[end]).abs().max() > 1e-4  # all words have been read here


def test_embed_keeps_the_gradient(text_encoder):
    embed(text_encoder, tokenize(TOKENIZER, ["a red barn"])).square().sum().backward()
    assert all(p.grad is not None for p in text_encoder.parameters())
    text_encoder.zero_grad()


def test_default_text_encoder():
    with torch.device("meta"):
        encoder = build_text_encoder(3072)
    assert encoder.config.hidden_size == 192 and encoder.config.num_hidden_layers == 3
    assert encoder.config.max_position_embeddings == MAX_TOKENS == 32
    assert (encoder.config.bos_token_id, encoder.config.eos_token_id) == (START, END)
