"""A small transformer that writes a sentence about features: which word comes next.

    features (B,49,1280) ──linear, places──► memory (B,49,W) ──► keys, values of every layer
    words (N,T), N captions of B photos ──► 2 × (attention to words, photo; MLP) ──► (N,T,W)
    ──score──► logits (N,T,V)

Symbols: 0 stands for the start and the end, 1 for a word outside of the vocabulary, 2… for words.

Paper: PerCo, Sec. 4.1 (captions by BLIP-2, with a language model of 2.7 billion parameters).
Differs from the paper: Vaswani et al.'s decoder (2017), norms first, about 2.7 M parameters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perco_lite.captioning.photo_features import CHANNELS, PLACES

Pairs = list[tuple[Tensor, Tensor]]  # keys and values (B,heads,T,W/heads) of every layer


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.pair = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B,T,W) -> what can be asked for, and what is answered, (B,heads,T,W/heads) each."""
        keys, values = self.pair(x).chunk(2, -1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, pair: tuple[Tensor, Tensor], causal: bool = False) -> Tensor:
        answer = F.scaled_dot_product_attention(self._split(self.query(x)), *pair, is_causal=causal)
        return self.out(answer.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.past, self.photo = (_Attention(width, heads) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.think = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.drop = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, photo: tuple[Tensor, Tensor], before: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        normed = self.norms[0](x)
        pair = self.past.keys_values(normed)
        if before is not None:
            pair = tuple(torch.cat(both, 2) for both in zip(before, pair, strict=True))
        # one new word may look at all before it
        x = x + self.drop(self.past(normed, pair, causal=before is None))
        # all captions of a photo ask it together: its keys and values are not repeated
        photos = len(photo[0])
        asked = self.norms[1](x).reshape(photos, -1, x.shape[-1])
        x = x + self.drop(self.photo(asked, photo).reshape(x.shape))
        return x + self.drop(self.think(self.norms[2](x))), pair


class CaptionDecoder(nn.Module):
    """The transformer; sizes are those of its ``config``.

    Args:
        vocabulary: number of symbols V.
        width: W. layers, heads, inner: of the transformer.
        longest: words of the longest caption, its end too.
        dropout: in training.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        inner: int = 512,
        longest: int = 16,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.longest = longest
        self.see = nn.Sequential(nn.Linear(CHANNELS, width), nn.LayerNorm(width))
        self.places = nn.Parameter(torch.randn(PLACES, width) * 0.02)
        self.words = nn.Embedding(vocabulary, width)
        self.order = nn.Parameter(torch.randn(longest, width) * 0.02)
        self.layers = nn.ModuleList(_Layer(width, heads, inner, dropout) for _ in range(layers))
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(dropout)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        nn.init.normal_(self.words.weight, std=width**-0.5)  # it scores the words as well

    def look(self, features: Tensor) -> Pairs:
        """Features (B,49,1280) in [0,6] -> keys and values for every layer, once a photo."""
        memory = self.drop(self.see(features) + self.places)
        return [layer.photo.keys_values(memory) for layer in self.layers]

    def forward(
        self, photos: Pairs, symbols: Tensor, before: Pairs | None = None
    ) -> tuple[Tensor, Pairs]:
        """What follows each of ``symbols`` (N,T), as (N,T,W) for ``score``, and what to go on from.

        N is a multiple of the photos' B: captions of one photo are neighbours. ``before``: what a
        call with the symbols so far has returned; T is 1 then.
        """
        start = 0 if before is None else before[0][0].shape[2]
        x = self.words(symbols) * self.words.embedding_dim**0.5
        x = self.drop(x + self.order[start : start + symbols.shape[1]])
        pairs = []
        for number, layer in enumerate(self.layers):
            x, pair = layer(x, photos[number], before and before[number])
            pairs.append(pair)
        return self.norm(x), pairs

    def score(self, x: Tensor) -> Tensor:
        """Logits (…,V) of the next symbol, from what ``forward`` returns (…,W)."""
        return F.linear(x, self.words.weight, self.bias)
