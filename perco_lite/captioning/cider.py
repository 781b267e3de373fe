"""How much a caption says of what people say of the same photo: CIDEr-D.

    words ──► n-grams of 1 to 4 words, each weighed by how few photos it occurs with (TF-IDF)
    ──► cosine with each reference, clipped, less for other lengths ──► 10 × mean over n, references

Paper: none; Vedantam et al., *CIDEr*, 2015, as on COCO's caption server ("CIDEr-D", σ = 6).
Here and not a library's, since the training asks it for rewards; a test holds it equal to
pycocoevalcap's.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence

LONGEST, SIGMA = 4, 6.0  # n-grams; words of difference in length
Words = Sequence[Hashable]


class CiderD:
    """Scores against references; how telling an n-gram is comes from ``references`` themselves.

    ``references``: for each photo the words (or numbers of words) of each of its captions.
    """

    def __init__(self, references: Sequence[Sequence[Words]]):
        photos = Counter()
        for texts in references:
            photos.update({ngram for text in texts for ngram in _ngrams(text)})
        unseen = math.log(max(len(references), 1))
        self.weights = defaultdict(lambda: unseen)
        self.weights.update({ngram: unseen - math.log(count) for ngram, count in photos.items()})
        self.references = references
        self._vectors: dict[int, list] = {}

    def score(self, photo: int, words: Words) -> float:
        """CIDEr-D in [0,10] of a caption of photo number ``photo``."""
        if photo not in self._vectors:
            self._vectors[photo] = [self._vector(text) for text in self.references[photo]]
        own, norms, length = self._vector(words)
        total = 0.0
        for theirs, their_norms, their_length in self._vectors[photo]:
            alike = [0.0] * LONGEST
            for ngram, value in own.items():
                if other := theirs.get(ngram):
                    alike[len(ngram) - 1] += min(value, other) * other
            cosines = (
                a / (n * m) if n and m else 0.0
                for a, n, m in zip(alike, norms, their_norms, strict=True)
            )
            total += sum(cosines) * math.exp(-((length - their_length) ** 2) / (2 * SIGMA**2))
        return 10 * total / (LONGEST * max(len(self._vectors[photo]), 1))

    def mean(self, captions: Sequence[Words]) -> float:
        """Mean score of one caption for each photo, in their order."""
        if len(captions) != len(self.references):
            raise ValueError(
                f"got {len(captions)} captions for {len(self.references)} photos; give one each"
            )
        return sum(map(self.score, range(len(captions)), captions)) / max(len(captions), 1)

    def _vector(self, words: Words) -> tuple[dict, list[float], int]:
        counts = _ngrams(words)
        vector = {ngram: count * self.weights[ngram] for ngram, count in counts.items()}
        squares = [0.0] * LONGEST
        for ngram, value in vector.items():
            squares[len(ngram) - 1] += value * value
        # the published code takes the number of pairs for the length
        return vector, [math.sqrt(s) for s in squares], max(len(words) - 1, 0)


def _ngrams(words: Words) -> Counter:
    return Counter(
        tuple(words[i : i + n]) for n in range(1, LONGEST + 1) for i in range(len(words) - n + 1)
    )
