"""Published checkpoints of PerCo (SD), as a codec of ours; nothing is trained or approximated.

    theirs                                         ours
    hyper_enc/  backbone.0 … backbone.14 ────────► hyper_encoder.layers.0 … .14
                backbone.8.conv_a.1.conv.4 ──────►   layers.8.trunk.2.layers.4   (conv_b: gate)
                quantizer._codebook.embed (1,K,32) ► quantizer.codebook (K,32)
    unet/       conv_in_extended (320,324,3,3) ──► unet.conv_in; all else by the same name
    vae/ text_encoder/ tokenizer/ scheduler/ ────► as they are, or those of a Stable Diffusion

Paper: PerCo (SD) (Koerber et al., 2024), github.com/Nikolai10/PerCo; its training script writes
this layout. The U-Net's old ``conv_in`` is in there too, but its code never runs it: left out.
Differs from the paper: latents are the VAE's mode, not a sample; photos keep their shape (theirs
become 512x512). Its noise schedule is kept: these weights never saw zero-terminal SNR.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from perco_lite.codec import PercoCodec
from perco_lite.condition import LocalConditioner
from perco_lite.full_scale.pretrained import WrongModel, check_keys, read_json
from perco_lite.full_scale.stable_diffusion import PAPER, assemble, find_checkpoint, load_frozen
from perco_lite.rates import RATES, RatePoint

FILE = "diffusion_pytorch_model.safetensors"
RENAMED = (  # ours to theirs, tried in order
    (r"hyper_encoder\.layers\.(\d+)\.trunk\.(\d)\.layers\.", r"backbone.\1.conv_a.{half}.conv."),
    (r"hyper_encoder\.layers\.(\d+)\.gate\.(\d)\.layers\.", r"backbone.\1.conv_b.{half}.conv."),
    (r"hyper_encoder\.layers\.(\d+)\.gate\.(\d)\.", r"backbone.\1.conv_b.{half}."),
    (r"hyper_encoder\.layers\.", r"backbone."),
    (r"quantizer\.codebook", r"quantizer._codebook.embed"),
    (r"quantizer\.vector_sum", r"quantizer._codebook.embed_avg"),
    (r"quantizer\.cluster_size", r"quantizer._codebook.cluster_size"),
    (r"quantizer\.initialised", r"quantizer._codebook.initted"),
)


def convert_checkpoint(
    source: Path, base: str | None = None, dtype: torch.dtype = torch.float32
) -> PercoCodec:
    """Build a codec from a folder of PerCo (SD).

    Args:
        source: what its training wrote: a whole pipeline, or a checkpoint with ``unet`` and
            ``hyper_enc`` alone.
        base: for the latter, the Stable Diffusion it was trained from: folder or hub id; None is
            2.1 from one of its mirrors.
        dtype: of the weights.
    Raises:
        FileNotFoundError: no such files, or no base to be had.
        ValueError: weights missing or too many (all are named), of other shapes, or damaged; a rate
            that is not the paper's.
    """
    source = Path(source)
    for part in ("hyper_enc", "unet"):
        if not (source / part / FILE).is_file():
            raise FileNotFoundError(
                f"no {part}/{FILE} in {source}; give a folder that PerCo (SD)'s training wrote, "
                "with hyper_enc/ and unet/ in it"
            )
    local = load_hyper_encoder(source / "hyper_enc")
    unet = load_unet(source / "unet", local.channels).to(dtype)
    whole = (source / "vae").is_dir() and (source / "text_encoder").is_dir()
    folder = source if whole else find_checkpoint(base, parts=("vae", "text_encoder"))
    parts = {**load_frozen(folder, dtype), "unet": unet, "scheduler": load_scheduler(folder)}
    return assemble(parts, local, dtype)


def load_hyper_encoder(folder: Path) -> LocalConditioner:
    """Their hyper-encoder and quantizer, float32; the rate follows from the config."""
    config = read_json(folder / "config.json")
    rate = find_rate(config.get("cfg_ss", 64), config.get("cfg_cs", 256))  # the class's defaults
    sizes = {"width": config.get("N", 192), "features": config.get("M", 320)}
    sizes["code_dim"] = config.get("codebook_dim", 32)
    local = LocalConditioner((rate.name,), config.get("in_channels", 4), **{**PAPER, **sizes})
    branch = local.branch(rate.name)
    weights = _read_weights(folder)
    load_renamed(branch, weights, {name: their_name(name) for name in branch.state_dict()}, folder)
    lengths = branch.quantizer.codebook.norm(dim=-1)
    if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-2):
        raise WrongModel(
            f"{folder}: its codes are {lengths.min():.3f} to {lengths.max():.3f} long, expected 1; "
            "the first release of PerCo (SD) had no cosine codes: take a later one"
        )
    return local.eval()


def load_unet(folder: Path, channels: int) -> UNet2DConditionModel:
    """Their U-Net, float32, which takes ``channels`` more than its latents."""
    config = read_json(folder / "config.json")
    inputs = config.get("in_channels", 4) + channels
    with torch.device("meta"):  # 3.4 GB that are about to be replaced
        unet = UNet2DConditionModel.from_config({**config, "in_channels": inputs})
    weights = _read_weights(folder)
    for name in ("conv_in.weight", "conv_in.bias"):
        weights.pop(name, None)
    names = {n: re.sub(r"^conv_in\.", "conv_in_extended.", n) for n in unet.state_dict()}
    load_renamed(unet, weights, names, folder)
    return unet.eval()


def load_scheduler(folder: Path) -> DDIMScheduler:
    """DDIM on the schedule they trained with; their pipeline sets the two values below as well."""
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    objective = config.get("prediction_type", "epsilon")
    if objective != "v_prediction":
        raise WrongModel(
            f"{folder} predicts {objective}, expected v_prediction, which PerCo (SD) was trained "
            "with; correct prediction_type in scheduler/scheduler_config.json if you know it was"
        )
    return DDIMScheduler.from_config({**config, "clip_sample": False, "steps_offset": 1})


def find_rate(side: int, codebook_size: int) -> RatePoint:
    """Rate of their grid side for a 512x512 photo and their number of codes; else ValueError."""
    for rate in RATES:
        if (512, codebook_size) == (side * rate.stride, rate.codebook_size):
            return rate
    known = ", ".join(f"{512 // r.stride}×{r.codebook_size}" for r in RATES)
    raise WrongModel(
        f"got a grid side of {side} with {codebook_size} codes, expected one of {known}; no "
        "`.perco` file can name this rate"
    )


def their_name(name: str) -> str:
    """PerCo (SD)'s name of one of our RateBranch's tensors."""
    for ours, theirs in RENAMED:
        found = re.match(ours, name)
        if found:
            # our blocks alternate with a ReLU, in theirs it is inside the block
            half = int(found[2]) // 2 if found.re.groups > 1 else ""
            return found.expand(theirs).replace("{half}", str(half)) + name[found.end() :]
    return name


def load_renamed(
    module: nn.Module, weights: dict[str, Tensor], names: Mapping[str, str], folder: Path
) -> None:
    """Fill a module from tensors under other names; all of them, and no more, or ValueError."""
    state = module.state_dict()
    missing = set(names.values()) - set(weights)
    check_keys(str(folder), missing, set(weights) - set(names.values()))
    filled, wrong = {}, []
    for ours, theirs in names.items():
        value, like = weights[theirs], state[ours]
        if ours.startswith("quantizer.") and value.shape == (1, *like.shape):
            value = value[0]  # of one codebook
        if ours == "quantizer.initialised":
            value = value.reshape(()).bool()
        if value.shape != like.shape:
            wrong.append(f"{theirs} {tuple(value.shape)}, expected {tuple(like.shape)}")
        filled[ours] = value if value.dtype == torch.bool else value.float()
    if wrong:
        raise WrongModel(f"{folder}: shapes do not fit its config: {'; '.join(wrong)}")
    module.load_state_dict(filled, strict=True, assign=True)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    try:
        return load_file(folder / FILE)
    except (SafetensorError, OSError) as error:
        raise WrongModel(f"{folder / FILE} is damaged or cut short; download it again") from error
