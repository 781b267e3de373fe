"""A caption as words a trained table foresees: text ⇄ about ten bytes, exactly.

    "A dog runs."  ──► style (capital, full stop) + " a" " dog" " runs"
    style, words ──shares of ngram_model──► range coder ──► bytes
    a word the table does not know ──► UNKNOWN, then its bytes one by one, from a second table

The tables are in ``caption_model.npz``, which ``make caption-model`` trains and which is part of
the file format: a file coded with one table reads with no other. ``table_id`` tells them apart.

Paper: PerCo codes the caption with Lempel-Ziv (zlib -9).
Differs from the paper: a static model of English captions; the end of the caption is a symbol too.

Taught in notebook 05.
"""

import math
import re
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from perco_lite.coding.ngram_model import END, NgramModel
from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder
from perco_lite.coding.tables import arrays_id, read_table

UNKNOWN = 1  # the symbol before a word spelled out; 0 is END, and the vocabulary starts at 2
FIRST_WORD = 2
MAX_WORDS = 100  # a longer text is for deflate: so decoding stays below 50 ms, whatever the bytes
MAX_LETTERS = 400  # bytes spelled out in one caption
MAX_CHARACTERS = 4000  # what is longer is not even looked at

NO_CODE = "not the code of the caption it decodes to: the data is damaged"

# A word brings the space before it along. ASCII only, so that no version of Unicode changes it.
_WORD = re.compile(
    r" ?[A-Za-z\u0080-\U0010FFFF]+|'[a-z]+| ?[0-9]+| ?[^\sA-Za-z0-9\u0080-\U0010FFFF]|\s", re.ASCII
)
_CAPITAL, _STOP = 1, 2


class CaptionModel:
    """Two n-gram models, of words and of the bytes of unknown words, and the vocabulary.

    ``words`` are the vocabulary in the order of their symbols, from 2; ``styles`` (4,) how often
    captions have neither, a capital, a full stop, or both. ``table_id`` (16 bits) names all of it.
    """

    def __init__(
        self,
        words: list[str],
        styles: ArrayLike,
        by_word: NgramModel,
        by_letter: NgramModel,
        table_id: int | None = None,
    ):
        self.words, self.by_word, self.by_letter = words, by_word, by_letter
        self.styles = np.asarray(styles, dtype=np.int64)
        self.table_id = arrays_id(self.arrays()) if table_id is None else table_id
        self._symbol = {word: FIRST_WORD + i for i, word in enumerate(words)}

    def holds(self, text: str) -> bool:
        """Whether a text is short enough for ``encode``, which English captions are."""
        words = split(text)[1] if len(text) <= MAX_CHARACTERS else []
        letters = sum(len(_spelling(word)) for word in words if word not in self._symbol)
        return len(text) <= MAX_CHARACTERS and len(words) <= MAX_WORDS and letters <= MAX_LETTERS

    def encode(self, text: str) -> bytes:
        """Code a text; raises ``ValueError`` for one that the model does not hold."""
        coder = RangeEncoder()
        self.encode_into(coder, text)
        return coder.finish()

    def encode_into(self, coder: RangeEncoder, text: str) -> None:
        """Code a text behind what ``coder`` holds already; raises as ``encode``."""
        for _, share in self.walk(text):
            coder.encode(*share)

    def walk(self, text: str) -> Iterator[tuple[str, tuple[int, int, int]]]:
        """Each symbol of a text as (what it says, its (start, size, total)): the coder's view.

        What it says is "style", "end", a word, or "" for the letters of the word before. Raises
        ``ValueError`` for a text that the model does not hold.
        """
        if not self.holds(text):
            raise ValueError(
                f"got a text of {len(text)} characters, expected at most {MAX_WORDS} words with "
                f"{MAX_LETTERS} letters in unknown ones: code it as UTF-8 or deflated"
            )
        style, words = split(text)
        yield "style", _share(self.styles, style)
        state = self.by_word.start()
        for word in words:
            symbol = self._symbol.get(word, UNKNOWN)
            yield word, _share(self.by_word.shares(state), symbol)
            state = self.by_word.step(state, symbol)
            if symbol == UNKNOWN:
                yield from self._walk_letters(_spelling(word))
        yield "end", _share(self.by_word.shares(state), END)

    def costs(self, text: str) -> list[tuple[str, float]]:
        """Bits of each symbol of a text, letters counted with their word; for people to read.

        Floats, so never part of coding. Raises ``ValueError`` for what the model does not hold.
        """
        costs: list[tuple[str, float]] = []
        for what, (_, size, total) in self.walk(text):
            bits = math.log2(total / size)
            if what:
                costs.append((what, bits))
            else:
                costs[-1] = (costs[-1][0], costs[-1][1] + bits)
        return costs

    def _walk_letters(self, raw: bytes) -> Iterator[tuple[str, tuple[int, int, int]]]:
        state = self.by_letter.start()
        for symbol in [byte + 1 for byte in raw] + [END]:
            yield "", _share(self.by_letter.shares(state), symbol)
            state = self.by_letter.step(state, symbol)

    def decode(self, data: bytes) -> str:
        """Inverse of ``encode``; raises ``ValueError`` for bytes it cannot have made.

        Time is bounded by MAX_WORDS and MAX_LETTERS. Each text has one code: whatever decodes to
        the same text by another way is refused.
        """
        again = RangeEncoder()
        text = self.decode_from(RangeDecoder(data), again)
        if again.finish() != bytes(data):
            raise ValueError(NO_CODE)
        return text

    def decode_from(self, decoder: RangeDecoder, again: RangeEncoder) -> str:
        """Text that ``encode_into`` coded here, coded once more into ``again``.

        Raises as ``decode``, but leaves it to the caller to compare ``again`` with the bytes.
        """

        def read(sizes: np.ndarray) -> int:
            return decoder.read(np.cumsum(sizes), again)

        words: list[str] = []
        style, letters, known = read(self.styles), 0, False
        state = self.by_word.start()
        while symbol := read(self.by_word.shares(state)):
            if len(words) == MAX_WORDS:
                raise ValueError(f"more than {MAX_WORDS} words in a caption: the data is damaged")
            state = self.by_word.step(state, symbol)
            if symbol != UNKNOWN:
                words.append(self.words[symbol - FIRST_WORD])
                continue
            spelled, at = bytearray(), self.by_letter.start()
            while letter := read(self.by_letter.shares(at)):
                spelled.append(letter - 1)
                at = self.by_letter.step(at, letter)
                letters += 1
                if letters > MAX_LETTERS:
                    raise ValueError(f"more than {MAX_LETTERS} letters: the data is damaged")
            words.append(spelled.decode("utf-8", "surrogatepass"))  # its error is a ValueError
            known |= words[-1] in self._symbol
        text = _join(style, words)
        if known or split(text) != (style, words):
            raise ValueError(NO_CODE)
        return text

    def arrays(self) -> dict[str, np.ndarray]:
        """The whole model as named arrays of bytes and small integers."""
        words = np.frombuffer("\n".join(self.words).encode("utf-8"), dtype=np.uint8)
        own = {"vocabulary": words, "styles": self.styles.astype("<u4")}
        return own | self.by_word.arrays("word") | self.by_letter.arrays("letter")

    @classmethod
    def from_arrays(cls, arrays) -> "CaptionModel":
        """Inverse of ``arrays``; raises ``KeyError`` where one is missing."""
        text = arrays["vocabulary"].tobytes().decode("utf-8")
        words = text.split("\n") if text else []
        by_word, by_letter = (NgramModel.from_arrays(arrays, p) for p in ("word", "letter"))
        return cls(words, arrays["styles"], by_word, by_letter, arrays_id(arrays))


def split(text: str) -> tuple[int, list[str]]:
    """Style and words of any text; a first capital becomes small and a last full stop goes."""
    style = 0
    if re.match("[A-Z](?![A-Z])", text):
        style, text = style | _CAPITAL, text[0].lower() + text[1:]
    if text.endswith("."):
        style, text = style | _STOP, text[:-1]
    return style, _WORD.findall(" " + text) if text else []


def _join(style: int, words: list[str]) -> str:
    text = "".join(words)[1:]
    if style & _CAPITAL:
        text = text[:1].upper() + text[1:]
    return text + ("." if style & _STOP else "")


def _spelling(word: str) -> bytes:
    return word.encode("utf-8", "surrogatepass")


def _share(sizes: np.ndarray, symbol: int) -> tuple[int, int, int]:
    ends = np.cumsum(sizes)
    return int(ends[symbol] - sizes[symbol]), int(sizes[symbol]), int(ends[-1])


@cache
def bundled() -> CaptionModel:
    """The table of the package, read once.

    Raises ``FileNotFoundError`` where it is missing, ``ValueError`` where it is damaged.
    """
    model = read_table("caption_model.npz", CaptionModel.from_arrays)
    if model is None:
        raise FileNotFoundError("caption_model.npz is missing; make it with `make caption-model`")
    return model
