"""Count sentences into the table that codes captions: `perco train captions`.

    captions/*_train.txt, a sentence a line ──► split ──► vocabulary: the words seen twice
    ──► n-grams of words, n-grams of the letters of rare words ──► caption_model.npz

Paper: none; PerCo's coder of captions (zlib) has nothing to train.
Differs from the paper: the counts of 110,421 human captions (COCO, Flickr8k) go with the program.
"""

import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from perco_lite.coding.caption_model import FIRST_WORD, UNKNOWN, CaptionModel, split
from perco_lite.coding.ngram_model import count_ngrams
from perco_lite.data import find_data
from perco_lite.files import write_whole

WORD_ORDER = LETTER_ORDER = 4
RARE = 3  # words seen at most this often teach how unknown words are spelled


def read_sentences(paths: Iterable[Path]) -> list[str]:
    """Lines of UTF-8 text files, without the empty ones; ``ValueError`` for other text."""
    sentences = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error}); convert it") from error
        sentences += [line.strip() for line in lines if line.strip()]
    return sentences


def build_caption_model(sentences: list[str], order: int = WORD_ORDER) -> CaptionModel:
    """Train on sentences; the result does not depend on their order."""
    styles, texts = zip(*map(split, sentences), strict=True)
    seen = Counter(word for words in texts for word in words)
    vocabulary = sorted((w for w, n in seen.items() if n > 1), key=lambda w: (-seen[w], w))
    symbols = {word: FIRST_WORD + i for i, word in enumerate(vocabulary)}
    by_word = count_ngrams(
        [[symbols.get(word, UNKNOWN) for word in words] for words in texts],
        FIRST_WORD + len(vocabulary),
        order,
    )
    spelled = [[byte + 1 for byte in word.encode("utf-8")] for word in seen if seen[word] <= RARE]
    by_letter = count_ngrams(spelled, 257, LETTER_ORDER)
    # one more of each, so that every style can be said
    return CaptionModel(vocabulary, np.bincount(styles, minlength=4) + 1, by_word, by_letter)


def train_captions(data: Path | None, output: Path) -> dict:
    """Train on the `*_train.txt` of a folder and write the table; returns what came of it.

    Without ``data``: the folder `captions` of PERCO_LITE_DATA. Raises ``FileNotFoundError`` where
    there is no such folder or file in it.
    """
    folder = Path(data) if data else find_data("captions")
    paths = sorted(folder.glob("*_train.txt")) if folder else []
    if not paths:
        where = folder or "PERCO_LITE_DATA/captions"
        raise FileNotFoundError(
            f"no *_train.txt in {where}; put captions there, one a line, or give a folder of such "
            "files with --data"
        )
    sentences = read_sentences(paths)
    if len(sentences) < 2:
        raise ValueError(f"got {len(sentences)} sentences in {folder}, expected thousands")
    model = build_caption_model(sentences)
    stream = io.BytesIO()
    np.savez_compressed(stream, **model.arrays())
    write_whole(output, stream.getvalue())
    return {
        "table": str(output),
        "table_id": f"{model.table_id:#06x}",
        "bytes": len(stream.getvalue()),
        "sentences": len(sentences),
        "words": len(model.words),
        "ngrams": [len(level.symbols) for level in model.by_word.levels],
        "letter_ngrams": [len(level.symbols) for level in model.by_letter.levels],
    }
