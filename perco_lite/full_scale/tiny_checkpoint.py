"""Random models of a few kilobytes, saved as the hub has the real ones: to try out every command.

    tiny_stable_diffusion(folder) ──► model_index.json, vae/, unet/, text_encoder/, tokenizer/, …
    tiny_blip(folder) ──────────────► config.json, model.safetensors, a processor

Written by diffusers' and transformers' own classes, so that what loads these loads the real ones.
Their weights are noise: nothing that they paint or say, and no figure of theirs, means anything.

Paper: none.
"""

import json
import tempfile
from pathlib import Path

import torch

WORDS = "a an the red green barn dog tree house on in with of water sky and two man woman".split()
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
SMALL["num_attention_heads"] = 2
TEXT = {**SMALL, "projection_dim": 32}
UNET = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
UNET |= {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
UNET |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
UNET |= {"attention_head_dim": 2, "cross_attention_dim": 32, "use_linear_projection": True}
VAE = {"block_out_channels": (8,) * 4, "layers_per_block": 1, "norm_num_groups": 4}
VAE |= {"down_block_types": ("DownEncoderBlock2D",) * 4}
VAE |= {"up_block_types": ("UpDecoderBlock2D",) * 4}


def tiny_stable_diffusion(
    folder: str | Path, prediction_type: str = "v_prediction", seed: int = 0, **unet
) -> Path:
    """Save a Stable Diffusion of 0.2 M random parameters; ``unet`` changes its U-Net's sizes.

    ``prediction_type``: "v_prediction" as 2.1, or "epsilon" as 1.5 and the base models. Returns
    the folder, which must not hold another model.
    """
    sizes = {"sample_size": 8, **UNET, **unet}, {"sample_size": 64, **VAE}, TEXT
    return random_stable_diffusion(folder, *sizes, prediction_type=prediction_type, seed=seed)


def random_stable_diffusion(
    folder: str | Path,
    unet: dict,
    vae: dict,
    text: dict,
    prediction_type: str = "v_prediction",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """The same of any sizes: the configs of U-Net, VAE and text encoder (as in ``memory``)."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
    from diffusers import UNet2DConditionModel as UNet
    from transformers import CLIPTextConfig, CLIPTextModel

    _refuse_full(Path(folder))
    tokenizer = _letter_tokenizer()
    text = {**text, "vocab_size": max(len(tokenizer), text.get("vocab_size", 0))}
    text |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    usual = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)  # made in it: in two kinds, the largest would not fit
        try:
            pipeline = StableDiffusionPipeline(
                vae=AutoencoderKL(**vae),
                unet=UNet(**unet),
                text_encoder=CLIPTextModel(CLIPTextConfig(**text)),
                tokenizer=tokenizer,
                scheduler=DDIMScheduler(
                    beta_start=0.00085,  # Stable Diffusion's own schedule
                    beta_end=0.012,
                    beta_schedule="scaled_linear",
                    prediction_type=prediction_type,
                    set_alpha_to_one=False,
                    steps_offset=1,
                    clip_sample=False,
                ),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
        finally:
            torch.set_default_dtype(usual)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Path(folder)


def tiny_blip(folder: str | Path, seed: int = 0) -> Path:
    """Save a BLIP of some thousand random parameters, which knows 19 words; returns the folder."""
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    _refuse_full(Path(folder))
    tokenizer = word_tokenizer()
    text = {**SMALL, "vocab_size": len(tokenizer), "encoder_hidden_size": 32}
    text |= {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    vision = {**SMALL, "image_size": 32, "patch_size": 16}
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        save_lively(BlipForConditionalGeneration(config), folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(images, tokenizer).save_pretrained(folder)
    return Path(folder)


def word_tokenizer(*more: str):
    """BERT's tokenizer with whole words in place of pieces; ``more`` are special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *more]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return BertTokenizerFast(tokenizer_object=tokenizer, bos_token="[DEC]")


@torch.no_grad()
def save_lively(model, folder: str | Path, **options) -> None:
    """Save with larger random weights than usual, so that what it says depends on the picture."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=0.5)
    model.save_pretrained(folder, **options)


def write_vocabulary(folder: str | Path) -> None:
    """The tokenizer's two files as releases of 2022 have them: letters, and the word "red"."""
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,!'")
    words = [*letters, *(f"{letter}</w>" for letter in letters), "re", "red</w>"]
    words += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {word: number for number, word in enumerate(words)}
    (Path(folder) / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    (Path(folder) / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n", encoding="utf-8")


def _letter_tokenizer():
    """CLIP's tokenizer, 77 tokens long, without most of its 49,408 pieces of words."""
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as place:
        write_vocabulary(place)
        return CLIPTokenizer.from_pretrained(place, model_max_length=77, pad_token="!")


def _refuse_full(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder, or delete it first")
