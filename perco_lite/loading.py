"""Weights, a device and a dtype become a codec, or one line of why not.

    weights, device, dtype ──load_codec──► PercoCodec ──set_sampler──► with another scheduler
    an autoencoder, sizes ──build_codec──► PercoCodec with random weights, to be trained

Paper: nothing on this.

Taught in notebook 00.
"""

import hashlib
import platform
from pathlib import Path

import torch

from perco_lite.autoencoder import Autoencoder
from perco_lite.captions import build_text_encoder
from perco_lite.codec import BUNDLED, PercoCodec
from perco_lite.condition import LocalConditioner
from perco_lite.files import check_weights, explain, is_hub_id
from perco_lite.unet import build_scheduler, build_unet, start_silent

SAMPLERS = ("fast", "paper", "ddim", "dpm++")  # "paper" is "ddim" by the name of its place
DTYPES = ("float32", "bfloat16", "float16")


def load_codec(
    weights: str | None = None, device: str | None = None, dtype: str | None = None
) -> PercoCodec:
    """Load bundled or other weights onto a device (default: CUDA where there is one), silently.

    ``dtype``: one of DTYPES, default float32; the others take half the memory, and a GPU is faster
    in them. Raises ``FileNotFoundError`` or ``ValueError``, each in one line that says what to do.
    """
    quiet_libraries()
    dtype = dtype or DTYPES[0]
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}, expected one of {', '.join(DTYPES)}")
    device = find_device(device)
    _check_weights(weights)
    try:
        codec = PercoCodec.from_pretrained(weights, dtype=getattr(torch, dtype))
    except Exception as error:  # of a dozen kinds, for files that are missing or cut
        if weights is None and isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"the weights in {weights or BUNDLED} do not load ({explain(error)}); "
            "download or train them again"
        ) from error
    codec.set_progress_bar_config(disable=True)
    try:
        return codec.to(device)
    except RuntimeError as error:  # torch's OutOfMemoryError is one
        size = sum(p.numel() * p.element_size() for m in _modules(codec) for p in m.parameters())
        raise ValueError(
            f"the weights ({size / 2**30:.1f} GiB) do not fit on {device}; close what else runs "
            "there, take --dtype bfloat16 or --device cpu, or in Python enable_model_cpu_offload()"
        ) from error


def _modules(codec: PercoCodec) -> list[torch.nn.Module]:
    return [m for m in codec.components.values() if isinstance(m, torch.nn.Module)]


def quiet_libraries() -> None:
    """Keep the libraries' notes and progress bars out of a command's output."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def build_codec(
    autoencoder: Autoencoder,
    tokenizer,
    conditioner: dict | None = None,
    unet: dict | None = None,
    text_encoder: dict | None = None,
) -> PercoCodec:
    """A codec with random weights around a trained autoencoder; the dicts override lite sizes."""
    local = LocalConditioner(**(conditioner or {}))
    text = build_text_encoder(len(tokenizer), **(text_encoder or {}))
    denoiser = build_unet(local.channels, text.config.hidden_size, **(unet or {}))
    if local.config.residual:
        start_silent(denoiser)
    return PercoCodec(autoencoder, local, denoiser, text, tokenizer, build_scheduler())


def find_device(name: str | None = None) -> torch.device:
    """Device called ``name`` (default: CUDA where there is one); ValueError if it does not work."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except Exception as error:  # AssertionError, RuntimeError and others, by device
        raise ValueError(
            f"no device {name!r} on this machine ({explain(error)}); take cpu, or leave it out"
        ) from error
    return device


def _check_weights(weights: str | None) -> None:
    """Say at once what is wrong with a folder, where diffusers would go and ask the hub."""
    if weights is None:
        return
    folder = Path(weights)
    if not folder.is_dir():
        if folder.exists() or not is_hub_id(weights):
            raise FileNotFoundError(f"no folder of weights at {weights or repr(weights)}; check it")
        return  # owner/name on the hub
    check_weights(folder)


def set_sampler(codec: PercoCodec, name: str | None) -> str | None:
    """Swap the scheduler where the name asks for it; returns ``decompress``'s ``sampler``.

    None: what the weights were made for. ValueError for a name not in SAMPLERS.
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    if name is None or name == "fast":
        return name
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}, expected one of {', '.join(SAMPLERS)}")
    kind = DPMSolverMultistepScheduler if name == "dpm++" else DDIMScheduler
    codec.scheduler = kind.from_config(codec.scheduler.config)
    return "paper"


def weights_digest(codec: PercoCodec) -> str:
    """16 hex digits of all weights as float16: what a picture depends on, and not only a file.

    Weights with the same codebooks share their model id and read each other's files, but what they
    paint from them differs; tables of figures are told apart by this. Names are not part of it:
    they are the libraries', and other releases of them have others.
    """
    digests = []
    for module in _modules(codec):
        for values in module.state_dict().values():
            if values.is_floating_point():
                half = values.detach().to("cpu", torch.float16).contiguous().numpy()
                digests.append(hashlib.sha256(repr(half.shape).encode() + half.tobytes()).digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:16]


def device_name() -> str:
    """Name of the processor or GPU, for every figure that depends on it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    name = platform.processor() or platform.machine()
    if cpuinfo.exists():
        names = [x.split(":")[1] for x in cpuinfo.read_text().splitlines() if "model name" in x]
        name = names[0].strip() if names else name
    return f"{name}, {torch.get_num_threads()} threads"
