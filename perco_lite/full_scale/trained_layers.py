"""Which weights of a pretrained U-Net learn: some, all, or small ones beside them.

    "linear": every linear layer, and the first convolution (which has new channels)
    "all":    everything
    "lora":   W + B·A beside each attention and feed-forward layer, B·A of low rank; and the first
              convolution. What is saved is W + B·A: a U-Net like any other.

Paper: PerCo, Sec. 4.1: linear layers and the extended first convolution, so that little of what the
model knows is lost.
Differs from the paper: "all" (which PerCo (SD) found slightly better) and "lora" (Hu et al., 2021;
the library is `peft`), for GPUs that hold no more.
"""

import copy

import torch
from diffusers import UNet2DConditionModel
from torch import nn

CHOICES = ("linear", "all", "lora")
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]


def choose_layers(unet: UNet2DConditionModel, layers: str = "linear", rank: int = 16) -> None:
    """Set which parameters take a gradient; "lora" adds its own, with random A and B = 0.

    Raises ValueError for another choice, ImportError where "lora" lacks `peft`.
    """
    if layers not in CHOICES:
        raise ValueError(f"layers is {layers!r}, expected one of {', '.join(CHOICES)}")
    unet.requires_grad_(layers == "all")
    if layers == "lora":
        unet.add_adapter(_lora_config(rank))
    if layers == "linear":
        for module in unet.modules():
            if isinstance(module, nn.Linear):
                module.requires_grad_(True)
    unet.conv_in.requires_grad_(True)
    if unet.class_embedding is not None:  # new as well: it tells several rates apart
        unet.class_embedding.requires_grad_(True)


def trained_share(unet: nn.Module) -> float:
    """Share of a module's weights that take a gradient, in [0,1]."""
    sizes = [(p.numel(), p.requires_grad) for p in unet.parameters()]
    return sum(size for size, trained in sizes if trained) / sum(size for size, _ in sizes)


@torch.no_grad()
def without_adapters(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same U-Net as ordinary weights: a copy with its LoRA added in, or itself without one."""
    if not getattr(unet, "peft_config", None):
        return unet
    plain = copy.deepcopy(unet)
    plain.fuse_lora()
    plain.unload_lora()
    return plain.requires_grad_(False)


def _lora_config(rank: int):
    if rank < 1:
        raise ValueError(f"lora_rank is {rank}, expected at least 1; 16 is usual")
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError(
            "LoRA needs peft: pip install 'perco_lite[train]', or train other --layers"
        ) from error
    return LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS)
