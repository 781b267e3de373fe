"""Any text there and back, ordinary captions in few bytes, the same bytes on every machine."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from perco_lite.coding import tables
from perco_lite.coding.caption_model import (
    MAX_LETTERS,
    MAX_WORDS,
    CaptionModel,
    arrays_id,
    bundled,
    split,
)
from tests.coding.conftest import fixed

any_text = st.text(st.characters(exclude_categories=()), max_size=60)  # lone surrogates too
# made once on one machine; the table and these bytes are part of the file format
STORED = {
    "A cat sits on a wooden bench near the window.": "820f43d441",
    "two people riding horses": "12b9aa",
    "Kodak's 3 red doors, TV and a FRISBEE!": "1a04edde721f0eeab90d09a9ac68170f03de87",
    "żółw 🐢": "000f6d0b335b3283244aa3491fb738c9e19ebf68ffea0433d9",
    "a xylophonist plays": "00240578ad6b9594d0672d",
}
TABLE_ID = 0xFD03


@fixed
@given(st.one_of(any_text, st.text(" .,'-aAbB1é\n", max_size=30)))
@example("")
@example("A")
@example(".")
@example(" . ")
@example("TV.")
@example("A man's 3 dogs, a cat & the cats' toys..  ")
@example("ein Füchslein \ud83d und 🦊\0 — шесть")
def test_any_text_round_trips(text):
    model = bundled()
    assert model.holds(text) and model.decode(model.encode(text)) == text


def test_split_by_hand():
    assert split("") == (0, [])
    assert split("A dog's ball.") == (3, [" a", " dog", "'s", " ball"])
    assert split("TV, 2 of them") == (0, [" TV", ",", " 2", " of", " them"])
    assert split("no  stop .") == (2, [" no", " ", " stop", " "])
    assert split("Ähre") == (0, [" Ähre"]), "capitals are ASCII's: Unicode's change with time"


def test_the_empty_caption_costs_nothing():
    assert bundled().encode("") == b"" and bundled().decode(b"") == ""


@pytest.mark.parametrize("text", sorted(STORED))
def test_stored_captions_still_read(text):
    assert bundled().encode(text).hex() == STORED[text]
    assert bundled().decode(bytes.fromhex(STORED[text])) == text


def test_a_plain_caption_takes_about_ten_bytes():
    captions = [
        "A man in a blue shirt is riding a bicycle down a city street.",
        "Two children play with a dog on a sandy beach near the water.",
        "a white bowl filled with fruit sitting on top of a wooden table",
    ]
    sizes = [len(bundled().encode(caption)) for caption in captions]
    assert max(sizes) <= 12
    for caption, size in zip(captions, sizes, strict=True):
        costs = bundled().costs(caption)
        assert [word for word, _ in costs[1:-1]] == split(caption)[1]
        assert costs[0][0] == "style" and costs[-1][0] == "end"
        assert sum(bits for _, bits in costs) / 8 - 1 < size < sum(b for _, b in costs) / 8 + 1


def test_letters_are_counted_with_their_word():
    costs = bundled().costs("a zyxwvut")
    assert [word for word, _ in costs] == ["style", " a", " zyxwvut", "end"] and costs[2][1] > 30


@fixed
@given(st.binary(max_size=40))
def test_any_bytes_are_the_code_of_their_text_or_refused(data):
    try:
        text = bundled().decode(data)
    except ValueError as error:
        assert "damaged" in str(error) or "utf-8" in str(error)
    else:
        assert bundled().encode(text) == data


@pytest.mark.parametrize(
    "text", ["dog " * MAX_WORDS + "dog", "żółw" * MAX_LETTERS, "a" * 5000, "\n" * 101]
)
def test_what_is_too_long_is_for_deflate(text):
    assert not bundled().holds(text)
    with pytest.raises(ValueError, match="code it as UTF-8 or deflated"):
        bundled().encode(text)


def test_longest_texts_round_trip():
    for text in ("dog" + " dog" * (MAX_WORDS - 1), "q" * (MAX_LETTERS - 1)):
        assert bundled().decode(bundled().encode(text)) == text


@pytest.mark.parametrize(
    "text, message", [("q" * (MAX_LETTERS + 1), "letters"), ("dog" + " dog" * MAX_WORDS, "words")]
)
def test_a_code_that_does_not_end_is_refused(text, message, monkeypatch):
    with monkeypatch.context() as patch:  # a coder without limits, as one over unlucky bytes
        patch.setattr(CaptionModel, "holds", lambda self, text: True)
        data = bundled().encode(text)
    with pytest.raises(ValueError, match=f"more than [0-9]+ {message}"):
        bundled().decode(data)


def test_a_known_word_spelled_out_is_refused(monkeypatch):
    model = bundled()
    smaller = dict(model._symbol)
    del smaller[" dog"]
    with monkeypatch.context() as patch:
        patch.setattr(model, "_symbol", smaller)
        spelled = model.encode("a dog")
    with pytest.raises(ValueError, match="not the code of the caption"):
        model.decode(spelled)


def test_the_table_is_small_and_named_by_its_content():
    path = tables.resources.files("perco_lite.coding").joinpath("caption_model.npz")
    assert path.stat().st_size <= 3_000_000
    arrays = bundled().arrays()
    assert arrays_id(arrays) == bundled().table_id == TABLE_ID
    again = CaptionModel.from_arrays(arrays)
    assert again.encode("a dog on a bed") == bundled().encode("a dog on a bed")
    arrays["styles"] = arrays["styles"] + np.uint32(1)
    assert arrays_id(arrays) != TABLE_ID


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 not a table"])
def test_a_missing_or_damaged_table_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(tables.resources, "files", lambda package: tmp_path)
    if content is None:
        with pytest.raises(FileNotFoundError, match="make caption-model"):
            bundled.__wrapped__()
        return
    (tmp_path / "caption_model.npz").write_bytes(content)
    with pytest.raises(ValueError, match="caption_model.npz is damaged"):
        bundled.__wrapped__()
