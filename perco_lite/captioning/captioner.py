"""A photo becomes a sentence: the captioner, its weights on disk, and its search for words.

    photo ──► PhotoFeatures ──► CaptionDecoder ──beam search──► symbols ──► "A dog runs."

Its words are words of the table that codes captions, so what it writes costs few bytes.

Paper: PerCo, Sec. 4.1 (captions by BLIP-2).
Differs from the paper: see the model card; ten megabytes, and no hub.
"""

import json
import re
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from perco_lite.captioning.decoder import CaptionDecoder
from perco_lite.captioning.photo_features import PhotoFeatures, dequantize, quantize, squash
from perco_lite.coding.caption_model import FIRST_WORD, UNKNOWN, split
from perco_lite.coding.ngram_model import END

BUNDLED = Path(__file__).parent.parent / "weights" / "captioner"
FILE, CONFIG = "captioner.safetensors", "config.json"
BEAMS = 5


class Captioner:
    """Writes what a photo shows, as ``captioner(image)``; ``words`` are the symbols' from 2 on."""

    def __init__(self, eyes: PhotoFeatures, decoder: CaptionDecoder, words: list[str]):
        self.eyes, self.decoder, self.words = eyes, decoder.eval(), words
        self._symbol = {word: FIRST_WORD + i for i, word in enumerate(words)}

    def __call__(self, image: Image.Image, beams: int = BEAMS) -> str:
        """A sentence about a PIL photo of any size; the same photo, the same sentence."""
        return self.describe([image], beams)[0]

    @torch.inference_mode()
    def describe(self, photos: list[Image.Image], beams: int = BEAMS) -> list[str]:
        """A sentence for each PIL photo. ``beams``: sentences kept while searching; 1 = greedy."""
        if beams < 1:
            raise ValueError(f"got {beams} beams, expected 1 (greedy) or more")
        if not photos:
            return []
        features = self.eyes(squash(photos).to(self.decoder.places.device))
        return [self.sentence(found) for found in search(self.decoder, features, beams)]

    def sentence(self, symbols: list[int]) -> str:
        """Words of symbols, as most captions are written: a capital, a full stop."""
        text = tidy("".join(self.words[s - FIRST_WORD] for s in symbols if s >= FIRST_WORD))
        return text[:1].upper() + text[1:] + "." * bool(text)

    def symbols(self, caption: str) -> list[int]:
        """Symbols of a caption's words, without its end; 1 for those outside of the vocabulary."""
        return [self._symbol.get(word, UNKNOWN) for word in split(tidy(caption.lower()))[1]]

    def to(self, device: str | torch.device) -> "Captioner":
        self.eyes.to(device)
        self.decoder.to(device)
        return self

    # ------------------------------------------------------------------------------ on a disk

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``captioner.safetensors`` (eyes in int8, the rest float16), ``config.json``."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        eyes = quantize(self.eyes.state_dict())
        halves = {n: v.detach().half() for n, v in self.decoder.state_dict().items()}
        parts = {"eyes": eyes, "decoder": halves}
        tensors = {f"{p}.{n}": v.cpu().contiguous() for p in parts for n, v in parts[p].items()}
        save_file(tensors, Path(folder) / FILE, {"format": "pt"})
        config = {"decoder": self.decoder.config, "words": self.words}
        text = json.dumps(config, ensure_ascii=False, indent=0)
        (Path(folder) / CONFIG).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path | None = None, device="cpu") -> "Captioner":
        """Load the bundled captioner, or that of a folder, in float32.

        Raises ``FileNotFoundError`` where there is none, ``ValueError`` where it is damaged.
        """
        folder = Path(folder or BUNDLED)
        for file in (CONFIG, FILE):
            if not (folder / file).is_file():
                raise FileNotFoundError(
                    f"no captioner in {folder} ({file} is missing); make one with `perco train "
                    "captioner`, or write the caption yourself"
                )
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            eyes, decoder = PhotoFeatures(), CaptionDecoder(**config["decoder"])
            words = list(map(str, config["words"]))
            tensors = load_file(folder / FILE)
            eyes.load_state_dict(dequantize(_part(tensors, "eyes.")))
            decoder.load_state_dict({n: v.float() for n, v in _part(tensors, "decoder.").items()})
            if len(words) + FIRST_WORD != decoder.config["vocabulary"]:
                raise ValueError(f"{len(words)} words, expected {decoder.config['vocabulary'] - 2}")
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"the captioner in {folder} is damaged ({reason:.200}); install perco_lite again, "
                "or train it again"
            ) from error
        return cls(eyes, decoder, words).to(device)


def tidy(text: str) -> str:
    """One space between words, none before punctuation: many captions come in loose words."""
    return re.sub(r" (?=[.,;:!?']( |$)|'s\b)", "", " ".join(text.split()))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


@torch.no_grad()
def search(decoder: CaptionDecoder, features: Tensor, beams: int = BEAMS) -> list[list[int]]:
    """The likeliest symbols for each photo's features (B,49,1280), by beam search, without the end.

    Of ``beams`` beginnings each grows by every word, and the best ``beams`` of all these stay; one
    that has ended stays as it is. In the end, the highest mean log-probability of a word wins, of
    those that have ended, if any.
    """
    count, device = len(features), features.device
    photos = decoder.look(features)
    # all beams begin alike: but for one of them, they must not be counted
    scores = torch.full((count, beams), -torch.inf, device=device)
    scores[:, 0] = 0
    symbols = torch.full((count * beams, 1), END, device=device)
    ended = torch.zeros(count * beams, dtype=torch.bool, device=device)
    before = None
    for step in range(decoder.longest):
        following, before = decoder(photos, symbols[:, -1:], before)
        steps = decoder.score(following[:, -1]).float()
        steps[:, [UNKNOWN, END] if step == 0 else UNKNOWN] = -torch.inf  # a word, at least
        steps = steps.log_softmax(-1)
        steps[ended] = -torch.inf
        steps[ended, END] = 0
        total = (scores.view(-1, 1) + steps).view(count, -1)
        scores, best = total.topk(beams)
        rows = best // steps.shape[1] + torch.arange(count, device=device)[:, None] * beams
        rows, following = rows.flatten(), (best % steps.shape[1]).view(-1, 1)
        symbols = torch.cat([symbols[rows], following], 1)
        before = [(keys[rows], values[rows]) for keys, values in before]
        ended = ended[rows] | (following[:, 0] == END)
        if ended.all():
            break
    scores[~ended.view(count, beams)] -= 1e4  # cut short
    lengths = (symbols[:, 1:] != END).sum(1).view(count, beams) + 1
    winners = (scores / lengths).argmax(1) + torch.arange(count, device=device) * beams
    return [[s for s in row if s != END] for row in symbols[winners].tolist()]
