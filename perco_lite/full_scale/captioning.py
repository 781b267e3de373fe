"""Captions from pictures: a pretrained captioner, run once over a folder before training.

    photos ──processor──► pixels (B,3,384,384) ──BLIP or BLIP-2──► tokens (B,≤32) ──► one line each

Paper: PerCo, Sec. 4.1 (BLIP-2, at most 32 tokens; PerCo (SD) takes blip2-opt-2.7b-coco, greedily).
Differs from the paper: the small BLIP by default, which a laptop runs; and captions are made once
and kept in a file, where PerCo (SD) makes them anew at every training step.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from perco_lite.full_scale.pretrained import WrongModel, fetch, load_strictly, read_json

CAPTIONER = "Salesforce/blip-image-captioning-base"
MAX_TOKENS = 32  # the paper's limit
KINDS = {"blip": "BlipForConditionalGeneration", "blip-2": "Blip2ForConditionalGeneration"}


class Captioner:
    """BLIP or BLIP-2 from a folder or the hub; in half precision on a GPU.

    Args:
        model: folder or hub id, or several to try; BLIP-2 is "Salesforce/blip2-opt-2.7b-coco"
            (8 GB on a GPU).
        device: where it runs.
    Raises:
        FileNotFoundError: nothing to be had; names all that was tried and why each failed.
        ValueError: another kind of model, weights missing or too many, damaged.
    """

    def __init__(self, model: str | Path | Sequence[str | Path] = CAPTIONER, device="cpu"):
        import transformers

        folder = fetch(model, ["model.safetensors"], _check_kind)
        kind = getattr(transformers, KINDS[read_json(folder / "config.json")["model_type"]])
        self.device = torch.device(device)
        dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self.processor = transformers.AutoProcessor.from_pretrained(folder)
        self.model = load_strictly(kind, folder, dtype).to(self.device)

    @torch.no_grad()
    def describe(self, photos: list[Image.Image]) -> list[str]:
        """One line for each PIL RGB photo, of at most 32 tokens; the same photo, the same line."""
        pixels = self.processor(images=photos, return_tensors="pt").pixel_values
        tokens = self.model.generate(
            pixel_values=pixels.to(self.device, self.model.dtype),
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
        )
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


def _check_kind(folder: Path) -> None:
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in list(KINDS):  # which takes what cannot be hashed, too
        raise WrongModel(
            f"{folder} is a {kind!s:.60} model, expected {' or '.join(KINDS)}; for example "
            f"{CAPTIONER}"
        )
