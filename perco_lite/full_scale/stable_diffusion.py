"""From Stable Diffusion to a codec: the pretrained parts, made ready for the local condition.

    checkpoint ─┬─ vae ──────────────────────────► autoencoder (mode, scaled)
                ├─ unet ── conv_in (320,4,3,3) ──► conv_in (320,4+320,3,3), new channels zero
                ├─ text_encoder, tokenizer ──────► as they are (77 tokens)
                └─ scheduler ────────────────────► v-prediction, zero-terminal SNR
    new: hyper-encoder and quantizer of each rate at the paper's sizes, nearest upsampling

Paper: PerCo, Sec. 3 and 4.1, around Stable Diffusion 2.1 as PerCo (SD) has it (the paper's own
latent diffusion model is not public).
Differs from the paper: the new input channels start at zero (random in PerCo (SD)), so that before
training the U-Net paints exactly as it was pretrained, and the old bias is kept; zero-terminal SNR;
several rates may share a U-Net, which then has a class embedding that starts at zero.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn

from perco_lite.autoencoder import FACTOR, StableDiffusionAutoencoder
from perco_lite.codec import PercoCodec
from perco_lite.condition import LocalConditioner
from perco_lite.full_scale.pretrained import WrongModel, fetch, load_strictly, read_json
from perco_lite.rates import RATES, get_rate

GUIDANCE = 3.0  # PerCo (SD)'s
# a scheduler's settings that zero-terminal SNR and v-prediction need; the betas stay the model's
SCHEDULE = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",  # so that sampling starts at the step where SNR is zero
    "clip_sample": False,
    "set_alpha_to_one": True,
}
PAPER = {
    "width": 192,
    "features": 320,
    "code_dim": 32,
    "decoder_width": 0,
    "extra_channels": 0,
    "quantizer_decay": 0.8,
    "quantizer_init": "uniform",
}
WEIGHTS = dict.fromkeys(("vae", "unet"), "diffusion_pytorch_model") | {"text_encoder": "model"}
SINGLE_FILE = (
    ": not a checkpoint in diffusers' layout, or cut short (a single .ckpt or .safetensors file "
    "becomes one with StableDiffusionPipeline.from_single_file and save_pretrained)"
)
EXPECTED = {
    "vae": ("AutoencoderKL",),
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}


def build_sd_codec(
    model_id: str | Path | Sequence[str | Path] | None = None,
    rates: Sequence[str] = ("0.0019",),
    convert_epsilon: bool = False,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    conditioner: dict | None = None,
    seed: int = 0,
) -> PercoCodec:
    """Build a codec around a checkpoint; all but the new parts is pretrained.

    Args:
        model_id: folder or hub id, or several to try in order; None for Stable Diffusion 2.1.
        rates: what it will serve; one, as in the paper, changes nothing inside the U-Net.
        convert_epsilon: take a noise-predicting U-Net too, which paints noise until trained.
        dtype: of the weights; float32 to train them, bfloat16 or float16 to look at.
        variant: "fp16" loads the hub's half-size files, where it has them.
        conditioner: LocalConditioner's sizes, where other than the paper's.
        seed: draws the new weights.
    Raises:
        FileNotFoundError: nothing to be had; names all places tried and why each failed.
        ValueError: unknown rate, another family or objective, weights missing or too many, damaged.
    """
    rates = [rates] if isinstance(rates, str) else rates
    ordered = sorted({get_rate(name) for name in rates}, key=RATES.index)
    if not ordered:
        raise ValueError("got no rates, expected at least one; see `perco rates`")
    folder = find_checkpoint(model_id, convert_epsilon, variant)
    parts = load_pretrained(folder, dtype, variant)
    with torch.random.fork_rng(devices=[]):  # the same new weights on every machine
        torch.manual_seed(seed)
        local = LocalConditioner(
            tuple(rate.name for rate in ordered),
            parts["autoencoder"].config.latent_channels,
            **{**PAPER, **(conditioner or {})},
        )
    extend_input(parts["unet"], local.channels)
    if len(ordered) > 1:
        add_rate_embedding(parts["unet"])
    return assemble(parts, local, dtype)


def assemble(parts: dict, local: LocalConditioner, dtype: torch.dtype) -> PercoCodec:
    """Put a conditioner and pretrained parts together."""
    local = nn.Module.to(local.eval(), dtype=dtype)  # local.to would warn of float16
    return PercoCodec(**parts, conditioner=local, guidance_scale=GUIDANCE, temperature=1.0)


def find_checkpoint(
    model_id: str | Path | Sequence[str | Path] | None,
    convert_epsilon: bool = False,
    variant: str | None = None,
    parts: Sequence[str] = tuple(WEIGHTS),
) -> Path:
    """Folder of a Stable Diffusion 1 or 2 checkpoint in diffusers' layout, checked and complete.

    Of its weights, those of ``parts`` are downloaded. Raises FileNotFoundError naming all that was
    tried, WrongModel for another family or objective.
    """
    suffix = f".{variant}.safetensors" if variant else ".safetensors"
    weights = [f"{part}/{WEIGHTS[part]}{suffix}" for part in parts]
    return fetch(model_id, weights, lambda folder: check_family(folder, convert_epsilon))


def load_pretrained(folder: Path, dtype: torch.dtype, variant: str | None = None) -> dict:
    """Load the five parts of a checked folder, under our names for them; ValueError names keys."""
    options = {"variant": variant} if variant else {}
    return {
        **load_frozen(folder, dtype, **options),
        "unet": load_strictly(UNet2DConditionModel, folder / "unet", dtype, **options),
        "scheduler": build_sd_scheduler(read_json(folder / "scheduler" / "scheduler_config.json")),
    }


def load_frozen(folder: Path, dtype: torch.dtype, **options) -> dict:
    """Load what no training changes: VAE, text encoder, tokenizer."""
    from transformers import CLIPTextModel, CLIPTokenizer

    return {
        "autoencoder": load_strictly(StableDiffusionAutoencoder, folder / "vae", dtype, **options),
        "text_encoder": load_strictly(CLIPTextModel, folder / "text_encoder", dtype, **options),
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
    }


def build_sd_scheduler(config: dict) -> DDIMScheduler:
    """DDIM with a checkpoint's own betas, v-prediction and zero-terminal SNR."""
    return DDIMScheduler.from_config({**config, **SCHEDULE})


@torch.no_grad()
def extend_input(unet: UNet2DConditionModel, channels: int) -> None:
    """Let a pretrained U-Net take ``channels`` more, after its own; at first it ignores them."""
    old = unet.conv_in
    new = nn.Conv2d(
        old.in_channels + channels,
        old.out_channels,
        old.kernel_size,
        padding=old.padding,
        device=old.weight.device,
        dtype=old.weight.dtype,
    )
    new.weight.zero_()
    new.weight[:, : old.in_channels] = old.weight
    new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)


def add_rate_embedding(unet: UNet2DConditionModel) -> None:
    """Tell a U-Net the rate by a class embedding that is added to the timestep's; zero at first."""
    like = unet.time_embedding.linear_2.weight
    embedding = nn.Embedding(len(RATES), len(like), device=like.device, dtype=like.dtype)
    unet.class_embedding = embedding
    nn.init.zeros_(embedding.weight)
    unet.register_to_config(num_class_embeds=len(RATES))


def check_family(folder: Path, convert_epsilon: bool = False) -> None:
    """Read the configs of a folder and raise WrongModel unless a codec can be built around it."""
    index = read_json(folder / "model_index.json", SINGLE_FILE)
    kind = index.get("_class_name")
    if kind == "PercoCodec":
        raise WrongModel(f"{folder} holds a codec already; load it with PercoCodec.from_pretrained")
    parts = {name: part[1] for name, part in index.items() if isinstance(part, list) and part[1]}
    wrong = [name for name, classes in EXPECTED.items() if parts.get(name) not in classes]
    extra = sorted(set(parts) & {"text_encoder_2", "text_encoder_3", "transformer", "prior"})
    found = [f"{name} is {parts.get(name) or 'missing'}" for name in wrong]
    _refuse(folder, kind, found + [f"it has a {name}" for name in extra])
    unet, vae, text = (
        read_json(folder / part / "config.json") for part in ("unet", "vae", "text_encoder")
    )
    channels = vae.get("latent_channels", 4)
    side = 2 ** (len(vae.get("block_out_channels", ())) - 1)
    checks = {
        "input channels": (unet.get("in_channels", 4), channels),  # inpainting: 9
        "output channels": (unet.get("out_channels", 4), channels),
        "class embedding": (unet.get("class_embed_type") or unet.get("num_class_embeds"), None),
        "added embedding": (unet.get("addition_embed_type"), None),  # SDXL
        "text width": (text.get("hidden_size"), unet.get("cross_attention_dim", 1280)),
        "pixels per latent": (side, FACTOR),
    }
    found = [f"{n}: {got}, not {want}" for n, (got, want) in checks.items() if got != want]
    _refuse(folder, kind, found)
    _check_objective(folder, convert_epsilon)


def _check_objective(folder: Path, convert_epsilon: bool) -> None:
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    objective = config.get("prediction_type", "epsilon")  # diffusers' default
    if objective == "v_prediction" or (objective == "epsilon" and convert_epsilon):
        return
    if objective == "epsilon":
        raise WrongModel(
            f"{folder} predicts noise (epsilon), the codec needs v-prediction: take a checkpoint "
            "that has it (Stable Diffusion 2.1 at 768), or pass convert_epsilon=True (perco train "
            "codec: --convert-epsilon) and train; untrained, the converted one paints noise"
        )
    raise WrongModel(f"{folder} predicts {objective!r}, expected v_prediction or epsilon")


def _refuse(folder: Path, kind: str | None, found: list[str]) -> None:
    if found:
        raise WrongModel(
            f"{folder} is a {kind} ({'; '.join(found)}), expected Stable Diffusion 1 or 2: a U-Net "
            "that paints the VAE's latents after one CLIP text encoder"
        )
