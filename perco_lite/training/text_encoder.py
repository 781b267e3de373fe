"""Training of the text encoder: it learns to tell which photo a caption belongs to.

    photo ──► SqueezeNet, frozen ──► (B,512) ──────► linear ──► (B,128) ─┐
                                                                         ├─► scores (B,B)
    caption ──► text encoder ──► (B,T,C) ──► mean ──► linear ──► (B,128) ─┘   own photo highest?

Paper: PerCo, Sec. 3.2 (the text encoder is CLIP's, trained contrastively by others and frozen);
the loss is CLIP's (Radford et al., 2021).
Differs from the paper: three layers, learned in minutes from a few thousand captioned photos.
(Learned from the denoising loss alone, its embeddings of all captions became nearly equal.)
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextModel

from perco_lite.captions import draw_caption, embed, tokenize
from perco_lite.perceptual import SqueezeNet
from perco_lite.training.photos import PhotoStore


class TextLoss(nn.Module):
    """CLIP's contrastive loss around a text encoder."""

    def __init__(self, text_encoder: CLIPTextModel, features: int = 512, shared: int = 128):
        super().__init__()
        self.text_encoder = text_encoder
        self.of_text = nn.Linear(text_encoder.config.hidden_size, shared)
        self.of_photo = nn.Linear(features, shared)
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

    def batch(self, step: int, count: int, generator: torch.Generator) -> dict[str, Tensor]:
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
