"""Captions: their tokens and embeddings (the global condition).

    caption ──► tokenizer ──► token_ids (B,32) ──► text encoder ──► text_embeddings (B,32,C)

Paper: PerCo, Sec. 3.2 (z_g: a BLIP-2 caption of at most 32 tokens, embedded by a text encoder).
Differs from the paper: captions are given or stored, never guessed here; a three-layer encoder with
a vocabulary of 3,072 learned from caption sentences, trained together with the U-Net.

Taught in notebook 08.
"""

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

MAX_TOKENS = 32  # the paper's limit
_START, _END, _PAD = "<start>", "<end>", "<pad>"


def train_tokenizer(sentences: Iterable[str], vocabulary: int = 3072) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from caption sentences; lower-cases, knows every Unicode string."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in (_START, _END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        add_prefix_space=True,  # else transformers 4 takes it away again
        bos_token=_START,
        eos_token=_END,
        pad_token=_PAD,
        unk_token=_PAD,
        model_max_length=MAX_TOKENS,
    )


def build_text_encoder(
    vocabulary: int, width: int = 192, layers: int = 3, heads: int = 6
) -> CLIPTextModel:
    """A small CLIP text encoder with random weights."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=width * 8 // 3,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            projection_dim=width,
            max_position_embeddings=MAX_TOKENS,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def warn_of_unheard(tokenizer, caption: str) -> None:
    """Warn, always in the same words, of a caption longer than the model hears."""
    limit = tokenizer.model_max_length
    clean = caption.encode("utf-8", "replace").decode("utf-8")
    if len(tokenizer(clean, split_special_tokens=True, verbose=False).input_ids) > limit:
        warnings.warn(
            f"the model hears the first {limit} tokens of a caption, some {limit * 2 // 3} words; "
            "what comes after costs bytes and changes nothing",
            stacklevel=3,
        )


def tokenize(tokenizer, captions: list[str]) -> Tensor:
    """Token ids (B,T) int64, cut and padded to the model's length; "" is start, end, padding."""
    # lone surrogates can be stored in a file but mean nothing to a tokenizer
    clean = [c.encode("utf-8", "replace").decode("utf-8") for c in captions]
    return tokenizer(
        clean,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        split_special_tokens=True,  # a caption that says "<end>" means these five characters
        return_tensors="pt",
    ).input_ids


def draw_caption(token_ids: Tensor, generator: torch.Generator) -> Tensor:
    """One of a photo's captions at random: token ids (N,T) -> (T,)."""
    return token_ids[int(torch.randint(len(token_ids), (), generator=generator))]


def embed(text_encoder: CLIPTextModel, token_ids: Tensor) -> Tensor:
    """Text embeddings (B,T,C): the encoder's last hidden states."""
    return text_encoder(token_ids.to(next(text_encoder.parameters()).device)).last_hidden_state


@torch.no_grad()
def embed_captions(tokenizer, text_encoder: CLIPTextModel, captions: list[str]) -> Tensor:
    """Captions -> text embeddings (B,T,C), without gradient."""
    return embed(text_encoder, tokenize(tokenizer, captions))


def use_older_names(folder: Path) -> None:
    """Give the prefix and the class back that transformers 5 dropped and renamed, but still reads.

    Without them transformers 4 finds no tokenizer, and leaves the text encoder's weights random.
    """
    for file in (folder / "text_encoder").glob("*.safetensors"):
        weights = load_file(file)
        if not any(key.startswith("text_model.") for key in weights):
            prefixed = {f"text_model.{key}": tensor for key, tensor in weights.items()}
            save_file(prefixed, file, metadata={"format": "pt"})
    for file in (folder / "model_index.json", folder / "tokenizer" / "tokenizer_config.json"):
        text = file.read_text(encoding="utf-8")
        text = text.replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"')
        file.write_text(text, encoding="utf-8")
