"""`perco train text`, optional: a text encoder learns to tell which photo a caption belongs to.

    photo ──► SqueezeNet, frozen ──► (B,512) ──────► linear ──► (B,128) ─┐
                                                                         ├─► scores (B,B)
    caption ──► text encoder ──► (B,T,C) ──► mean ──► linear ──► (B,128) ─┘   own photo highest?

Paper: PerCo, Sec. 3.2 (the text encoder is CLIP's, trained contrastively by others and frozen);
the loss is CLIP's (Radford et al., 2021).
Differs from the paper: three layers, learned in minutes from a few thousand captioned photos.
(Learned from the denoising loss alone, the embeddings of all captions are nearly equal.)
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel

from perco_lite.captions import (
    build_text_encoder,
    draw_caption,
    embed,
    tokenize,
    train_tokenizer,
)
from perco_lite.perceptual import SqueezeNet
from perco_lite.training.autoencoder import squeezenet_file
from perco_lite.training.caption_model import read_sentences
from perco_lite.training.loop import train
from perco_lite.training.photos import PhotoStore
from perco_lite.training.settings import TextSettings
from perco_lite.training.shards import find_training_data

FEATURES = 512  # SqueezeNet's


class TextLoss(nn.Module):
    """CLIP's contrastive loss around a text encoder."""

    def __init__(self, text_encoder: CLIPTextModel):
        super().__init__()
        self.text_encoder = text_encoder
        self.of_text = nn.Linear(text_encoder.config.hidden_size, 128)
        self.of_photo = nn.Linear(FEATURES, 128)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, token_ids: Tensor, features: Tensor) -> dict[str, Tensor]:
        """Losses of token ids (B,T) and the features (B,512) of the photos they describe."""
        words = (token_ids != self.text_encoder.config.pad_token_id).float()[..., None]
        embeddings = embed(self.text_encoder, token_ids)
        text = F.normalize(self.of_text((embeddings * words).sum(1) / words.sum(1)), dim=-1)
        photo = F.normalize(self.of_photo(features), dim=-1)
        scores = text @ photo.T * self.log_scale.exp().clamp(max=100)
        own = torch.arange(len(scores), device=scores.device)
        loss = (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2
        return {"loss": loss, "own_photo": (scores.argmax(1) == own).float().mean()}


class TextStage:
    """What ``training.train`` needs to train the text encoder on photos with captions."""

    def __init__(self, tokenizer, module: TextLoss, captions: list[list[str]], features: Tensor):
        self.tokenizer, self.module, self.features = tokenizer, module, features
        self.token_ids = [tokenize(tokenizer, texts) for texts in captions]

    def batch(self, step: int, count: int, generator: torch.Generator, number: int = 0) -> dict:
        photos = torch.randperm(len(self.features), generator=generator)[:count]
        captions = [draw_caption(self.token_ids[p], generator) for p in photos.tolist()]
        return {"token_ids": torch.stack(captions), "features": self.features[photos]}

    def export(self, folder: Path) -> None:
        self.module.text_encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")

    def preview(self, path: Path) -> None:
        """Nothing to see: the log's ``own_photo`` says how often the right photo is found."""


@torch.no_grad()
def photo_features(
    network: SqueezeNet, store: PhotoStore, photos: list[int], side: int = 160
) -> Tensor:
    """SqueezeNet features (N,512) of those photos, each scaled to ``side`` pixels squared.

    Their mean and standard deviation over the photos are taken out.
    """
    parts = []
    for i in tqdm(range(0, len(photos), 16), desc="features", unit="batch", mininterval=2):
        images = [store.photos[p][None].float() / 127.5 - 1 for p in photos[i : i + 16]]
        images = [F.interpolate(i, (side, side), mode="bilinear", antialias=True) for i in images]
        parts.append(network.pooled(torch.cat(images)))
    features = torch.cat(parts)
    return (features - features.mean(0)) / (features.std(0) + 1e-6)


def train_text_recipe(data: str | Path | None, output: Path, **options) -> dict:
    """Tokenizer and text encoder, from photos with at least two captions each; ``TextSettings``."""
    settings = TextSettings(data=data, output=output, **options)
    torch.manual_seed(settings.seed)
    data = find_training_data(data)
    store = PhotoStore(data)
    # photos with one caption have it from a template, the same for a hundred of them
    chosen = [i for i, texts in enumerate(store.captions) if len(texts) > 1]
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(settings.seed))
    chosen = [chosen[i] for i in order[: settings.photos].tolist()]
    if len(chosen) < 2:
        raise ValueError(
            f"got {len(chosen)} photos with two captions or more in {data}, expected at least 2; "
            "train the codec without --text"
        )
    tokenizer = learn_tokenizer(data, store)
    features = photo_features(SqueezeNet.from_file(squeezenet_file(data)), store, chosen)
    captions = [store.captions[i] for i in chosen]
    store.photos.clear()
    loss = TextLoss(build_text_encoder(len(tokenizer)))
    return train(TextStage(tokenizer, loss, captions, features), settings)


def learn_tokenizer(data: str | Path, store: PhotoStore):
    """From the photos' captions, and from captions/*_train.txt beside them where it exists."""
    sentences = [text for texts in store.captions for text in texts]
    files = sorted((Path(data).parent / "captions").glob("*_train.txt"))
    return train_tokenizer(sentences + read_sentences(files))
