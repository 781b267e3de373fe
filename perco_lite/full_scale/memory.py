"""How much memory and arithmetic full size takes, computed from shapes: no GPU, no download.

    configs of Stable Diffusion 2.1 ──► parts on torch's "meta" device: shapes without numbers
    a pass through them ──► every tensor that is made, until it is let go ──► most bytes at a time
                      └──► multiplications and additions ──► FLOP

    decoding = weights + larger of (a U-Net pass, the VAE's decoder)
    training = weights (4 bytes) + the U-Net's copy in half precision (2 bytes)
             + 12 bytes a trained weight (AdamW 8, EMA 4)
             + what a pass forwards and back holds, gradients among it (4 bytes a number)

Paper: none; it trained on GPUs of 80 GB.
Differs from what a GPU shows: the CUDA context (about half a GiB), workspaces of convolutions and
the allocator's gaps come on top; of what a training pass holds, mixed precision keeps a part in 2
bytes, so that the last term is the most it can be.
"""

import weakref
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from perco_lite.condition import LocalConditioner
from perco_lite.full_scale.stable_diffusion import PAPER, add_rate_embedding, extend_input
from perco_lite.full_scale.trained_layers import choose_layers
from perco_lite.unet import predict_velocity

GIB = 2**30
# as on the hub: unet/config.json, vae/config.json, text_encoder/config.json of Stable Diffusion 2.1
UNET = {
    "sample_size": 96,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "sample_size": 768,
}
TEXT = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
TOKENS, LATENTS = 77, 4  # of a caption; channels
PER_TRAINED = {"adamw": 12, "adamw8bit": 6, "muon": 8}  # bytes for the averages, and for EMA


def build_parts(rates: tuple[str, ...] = ("0.0313",), **sizes) -> dict[str, nn.Module]:
    """Unet (extended), autoencoder, text encoder and conditioner at full size, without numbers.

    ``sizes``: configs for ``unet``, ``vae``, ``text``, ``conditioner`` other than SD 2.1's.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel(**sizes.get("unet", UNET)),
            "autoencoder": AutoencoderKL(**sizes.get("vae", VAE)),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**sizes.get("text", TEXT))),
            "conditioner": LocalConditioner(rates, **(PAPER | sizes.get("conditioner", {}))),
        }
    extend_input(parts["unet"], parts["conditioner"].channels)
    if len(rates) > 1:
        add_rate_embedding(parts["unet"])
    return {name: part.requires_grad_(False).eval() for name, part in parts.items()}


def count_parameters(module: nn.Module, trained_only: bool = False) -> int:
    """Weights of a module, or those that take a gradient."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained_only)


@dataclass(frozen=True)
class Need:
    """Bytes that a job takes on a GPU: of weights (with all that training adds) and of a pass."""

    weights: int
    working: int

    @property
    def gib(self) -> float:
        """Both, in GiB."""
        return (self.weights + self.working) / GIB

    def fits(self, card: int) -> bool:
        """Whether a card sold as ``card`` GB holds it, with 1 GiB for CUDA's own needs and gaps."""
        return self.gib + 1 <= 0.93 * card  # of a T4's 16, 15 are there, and the driver takes some


def decoding_need(parts: dict[str, nn.Module], height: int, width: int, bytes_each: int) -> Need:
    """To decode one photo of that many pixels with guidance; ``bytes_each`` is 2 or 4."""
    dtype = {2: torch.bfloat16, 4: torch.float32}[bytes_each]
    unet, vae = (nn.Module.to(parts[name], dtype=dtype) for name in ("unet", "autoencoder"))
    latents = torch.empty(1, LATENTS, height // 8, width // 8, dtype=dtype, device="meta")
    with torch.no_grad():
        painting = most_bytes(lambda: unet_pass(unet, 2, height, width))
        developing = most_bytes(lambda: vae.decode(latents))
    weights = bytes_each * sum(count_parameters(part) for part in parts.values())
    return Need(weights, max(painting, developing))


def training_need(
    parts: dict[str, nn.Module],
    layers: str = "linear",
    lora_rank: int = 16,
    batch: int = 4,
    crop: int = 64,
    gradient_checkpointing: bool = True,
    optimizer: str = "adamw",
) -> Need:
    """To train on ``batch`` crops of ``crop`` latents a side in one pass; changes ``parts``.

    LPIPS, which rates above 0.05 bpp train with and which goes through the VAE's decoder, comes on
    top.
    """
    unet, conditioner = parts["unet"], parts["conditioner"].requires_grad_(True)
    choose_layers(unet, layers, lora_rank)
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    trained = count_parameters(unet, True) + count_parameters(conditioner, True)
    weights = 4 * sum(count_parameters(part) for part in parts.values())
    weights += 2 * count_parameters(unet) + PER_TRAINED[optimizer] * trained
    unet.train()
    side = 8 * crop
    passing = most_bytes(lambda: unet_pass(unet, batch, side, side).sum().backward())
    unet.zero_grad(set_to_none=True)
    photos = torch.empty(batch, 3, side, side, device="meta")
    with torch.no_grad():
        encoding = most_bytes(lambda: parts["autoencoder"].encode(photos))
    # LoRA is saved as a whole U-Net: one more of 4 bytes, when that of 2 bytes is gone
    saving = 2 * count_parameters(unet) if layers == "lora" else 0
    return Need(weights, max(passing, 4 * trained, encoding, saving))


def unet_pass(unet: nn.Module, batch: int, height: int, width: int) -> torch.Tensor:
    """A pass without numbers, for photos of that many pixels; (batch,4,height/8,width/8).

    For the lite U-Net too, which works on patches of latents.
    """
    config, like = unet.config, {"dtype": unet.dtype, "device": "meta"}
    channels = config.in_channels * LATENTS // config.out_channels  # of a latent and its condition
    inputs = torch.empty(batch, channels, height // 8, width // 8, **like)
    text = torch.empty(batch, TOKENS, config.cross_attention_dim, **like)
    numbers = torch.empty(batch, dtype=torch.int64, device="meta")
    noisy, condition = inputs.tensor_split([LATENTS], dim=1)
    return predict_velocity(unet, noisy, numbers, condition, text, numbers)


def most_bytes(function) -> int:
    """Most bytes alive at a time among the tensors that a call makes; those it was given are free.

    Attention is counted as GPUs work it out, without the matrix of all pairs.
    """
    with _fused_attention(), _LiveBytes() as live:
        function()
    return live.most


def count_flop(function) -> int:
    """Floating-point operations of a call; a multiplication with its addition counts as two."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


class _LiveBytes(TorchDispatchMode):
    """Adds up storages as operations make them, and takes them away as they are let go."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        for tensor in _tensors((args, kwargs)):
            self._note(tensor.untyped_storage(), 0)  # made before, or by us
        output = operation(*args, **(kwargs or {}))
        for tensor in _tensors(output):
            storage = tensor.untyped_storage()
            self._note(storage, storage.nbytes())
        return output

    def _note(self, storage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def _fused_attention():
    """Attention as CUDA does it; the meta device alone would hold a matrix of all pairs."""
    plain = functional.scaled_dot_product_attention

    def fused(query, key, value, attn_mask=None, *args, **options):
        operation = torch.ops.aten._scaled_dot_product_efficient_attention
        return operation(query, key, value, attn_mask, torch.is_grad_enabled())[0]

    functional.scaled_dot_product_attention = fused  # no mode reaches what checkpointing repeats
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = plain


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
