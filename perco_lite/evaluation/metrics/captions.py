"""How good captions are, by published measures: CIDEr-D and BLEU-4 against what people wrote.

    captions, references ──tokenize──► words ──► CIDEr-D (ours), BLEU-4 (torchmetrics)

Paper: PerCo compares captioners by what they bring in the picture alone.
"""

import re

from perco_lite.captioning.cider import CiderD

PROTOCOL = (
    "CIDEr-D (n = 1 to 4, σ = 6, document frequencies of the references, ×10 as COCO's server has "
    "it: 1.0 is a hundred per cent) and BLEU-4 (of the corpus, without smoothing), all references "
    "of a photo; lower case, words and numbers with their hyphens, clitics ('s) apart, punctuation "
    "removed, much as Stanford's PTBTokenizer that COCO's server runs in Java"
)
_WORD = re.compile(r"[^\W_]+(?:[-.][^\W_]+)*|'[a-z]+")


def tokenize(text: str) -> list[str]:
    """Words of a caption, as PROTOCOL says."""
    return _WORD.findall(text.lower().replace("’", "'"))


def score_captions(captions: list[str], references: list[list[str]]) -> dict[str, float]:
    """``cider_d`` and ``bleu_4`` of one caption for each photo.

    Raises ``ValueError`` where there are not as many captions as photos, or none.
    """
    from torchmetrics.functional.text import bleu_score

    if len(captions) != len(references) or not captions:
        raise ValueError(
            f"got {len(captions)} captions for {len(references)} photos; give one for each"
        )
    words = [tokenize(text) for text in captions]
    theirs = [[tokenize(text) for text in texts] for texts in references]
    lines = [" ".join(one) for one in words]
    their_lines = [[" ".join(one) for one in texts] for texts in theirs]
    bleu = bleu_score(lines, their_lines, n_gram=4)
    return {"cider_d": CiderD(theirs).mean(words), "bleu_4": float(bleu)}
