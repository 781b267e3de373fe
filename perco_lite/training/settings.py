"""Settings of every training, with their defaults; the command line reads them here. No torch.

    TrainingSettings ─┬─► AutoencoderSettings, TextSettings, FewStepSettings, CaptionerSettings
                      │                                                         PriorSettings
                      └─► CodecSettings ─┬─► LiteCodecSettings
                                         └─► BaseCodecSettings (around Stable Diffusion)

Paper: PerCo, Sec. 4.1; its numbers are in full_scale/configs/paper.yaml.
Differs from the paper: everything shorter and smaller.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

# "adamw8bit" keeps its averages in a quarter of the memory, "muon" needs fewer steps
CHOICES = {
    "lr_schedule": ("cosine", "constant"),
    "optimizer": ("adamw", "adamw8bit", "muon"),
    "mixed_precision": ("no", "bf16", "fp16"),
}
# of stage 1: LPIPS (squeeze), or our own distance of SqueezeNet 1.0's features, from a local file
PERCEPTUAL_WEIGHTS = {"lpips": 1.0, "squeezenet": 0.02}
# options of 0.1 by their names of today; accepted until 0.3
RENAMED = {"alone": "conditioner_warmup_steps", "decay": "lr_schedule"}


def option(default, help: str = "", **limits):
    """A field that says what it is for, and what limits (``min``, ``max``) it has."""
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one run; ``steps`` fixes the schedule, ``minutes`` only a slice of it."""

    output: Path
    # text, for a Path would lose a slash of a URL
    data: str | None = option(None, "Shards, a folder of photos, or URLs of shards.")
    steps: int = option(1000, "Length of the schedule.")
    minutes: float | None = option(None, "Stop after a slice; run again to go on.")
    batch_size: int = option(16, "Over all processes and passes.", min=1)
    accumulation: int = option(1, "Passes a step: less memory.", min=1)
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    lr_schedule: str = option("cosine", "After the warm-up: cosine or constant.")
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    optimizer: str = option("adamw", "adamw, adamw8bit (less memory) or muon (fewer steps).")
    ema_decay: float = 0.999
    checkpoint_minutes: float = 5.0
    tensorboard: bool = False
    seed: int = 0
    # most CPUs are slower in bf16 than in float32
    mixed_precision: str = option("no", "no, bf16 or fp16.")


@dataclass(frozen=True)
class AutoencoderSettings(TrainingSettings):
    """Stage 1. ``decoder_of`` trains on the decoder of existing weights alone; ``hold_latents``
    lets the encoder of ``start`` move its latents a little."""

    output: Path = Path("out/train/autoencoder")
    steps: int = option(3000, "Length of the schedule.")
    crop: int = option(128, "Pixels a side, a multiple of 8.", min=16)
    perceptual: str = option("lpips", "lpips, or squeezenet: features of a local file.")
    perceptual_weight: float | None = option(None, "Default: 1 of lpips, 0.02 of squeezenet.")
    latent_noise: float = 0.03
    start: str | None = option(None, "Weights to go on from.")
    hold_latents: float = option(0.0, "Weight of keeping to the latents of --start.", min=0)
    decoder_of: str | None = option(None, "Weights whose decoder is trained on; the encoder stays.")
    teacher: str | None = option(None, "Folder of TAESD's two files: latents, pictures to imitate.")
    whole: bool = option(False, "New weights work at H/2 and H too: sharper, slower.")


@dataclass(frozen=True)
class TextSettings(TrainingSettings):
    """The text encoder's training."""

    output: Path = Path("out/train/text")
    steps: int = option(500, "Length of the schedule.")
    photos: int = option(6000, "Photos with captions, at most.")
    batch_size: int = 256


@dataclass(frozen=True)
class CaptionerSettings(TrainingSettings):
    """The captioner's decoder, around frozen image features."""

    output: Path = Path("out/train/captioner")
    steps: int = option(6800, "Length of the schedule.")
    batch_size: int = option(16, "Photos a step, five captions each.", min=1)
    learning_rate: float = 8e-4
    warmup_steps: int = 150
    weight_decay: float = 0.05
    checkpoint_minutes: float = 10.0
    reward_steps: int = option(1300, "Last steps: learn from CIDEr of its own captions.", min=0)
    dropout: float = option(0.1, min=0, max=1)
    label_smoothing: float = option(0.1, min=0, max=1)
    rarest: int = option(5, "Words seen less often in the captions are never said.", min=1)
    features: str | None = option(
        None, "EfficientNet-lite0's .pth; default: the features of --start, or the bundled ones."
    )
    start: str | None = option(None, "Folder of a captioner to go on from; default: a new decoder.")


@dataclass(frozen=True)
class CodecSettings(TrainingSettings):
    """Stage 2, whatever it is trained around."""

    output: Path = Path("out/train/codec")
    steps: int = option(4000, "Length of the schedule.")
    learning_rate: float = 8e-4
    warmup_steps: int = 200
    timesteps: int | None = option(None, "Noise levels to train on; default all, paper: 50.")
    perceptual_weight: float = 0.0
    crop: int = option(24, "Latents a side.", min=1)
    rates: str = option("0.0019,0.0098,0.0313,0.1250", "Comma-separated rates.")
    gradient_checkpointing: bool = option(False, "Less memory, a third more time.")
    checkpoint_minutes: float = 12.0


@dataclass(frozen=True)
class LiteCodecSettings(CodecSettings):
    """Stage 2 on a small autoencoder of one's own. With ``text`` its text encoder stays as it is;
    without, one is trained with the U-Net, on a tokenizer learned from the photos' captions."""

    autoencoder: Path = option(
        Path("out/train/autoencoder/weights"), "Weights of stage 1, or of a whole codec."
    )
    text: Path | None = option(None, "Weights of `perco train text`.")
    start: Path | None = option(None, "A codec to go on from.")
    freeze_codes: bool = option(False, "Leave hyper-encoders and codebooks as they are.")
    residual: bool = option(True, "The U-Net adds to what the bits' estimate says.")
    conditioner_warmup_steps: int = option(
        600, "First steps: hyper-encoders and codebooks, without the U-Net."
    )


@dataclass(frozen=True)
class BaseCodecSettings(CodecSettings):
    """Stage 2 around a pretrained Stable Diffusion, ``base``."""

    timesteps: int | None = 50
    perceptual_weight: float = 0.1
    crop: int = 64
    rates: str = "0.0019"
    captions: Path | None = option(None, "Of `perco caption`, for photos without.")
    convert_epsilon: bool = option(
        False, "Take a base that predicts noise; it learns to predict v."
    )
    layers: str = option("linear", "Of the base: linear, all or lora.")
    lora_rank: int = 16
    text_dropout: float = option(0.1, min=0, max=1)
    quantizer_init: str = option("uniform", "uniform, data or kmeans.")
    revive: float = option(0.0, "Replace codes used less than this share of the mean.", min=0)
    per_shard: int = option(1000, "Photos to take at a visit.", min=1)


@dataclass(frozen=True)
class FewStepSettings(TrainingSettings):
    """Stage 3, on a codec of stage 2."""

    output: Path = Path("out/train/fast")
    start: str | None = option(None, "A codec of stage 2; default: the bundled one.")
    steps: int = option(6000, "Length of the schedule.")
    batch_size: int = option(4, "Over all processes and passes.", min=1)
    crop: int = option(192, "Pixels a side, a multiple of 64.", min=64)
    learning_rate: float = 2e-4
    optimizer: str = option("muon", "adamw, adamw8bit (less memory) or muon (fewer steps).")
    ema_decay: float = 0.998
    freeze_codes: bool = option(False, "Leave encoder and codes alone: files stay readable.")
    few_steps: str = option("", "RATE:STEPS, 1 to 4, comma-separated; others take 1.")
    adversarial_weight: float = option(0.1, "Of the discriminator at 0.0313; 0: without.", min=0)
    adversarial_from: int = option(300, "First step that heeds the discriminator.", min=0)
    caption_weight: float = option(0.0, "Of the caption's turn; 0: none, the words stay.", min=0)
    caption_data: str | None = option(None, "Photos with captions for it; default: --data.")
    pattern_weight: float = option(0.0, "Of a loss against waves that photos do not have.", min=0)


@dataclass(frozen=True)
class PriorSettings:
    """The index priors of a codec's rates."""

    data: str | None = option(None, "Shards, a folder of photos, or URLs of shards.")
    output: Path = Path("out/train/prior/index_prior.npz")
    weights: str | None = option(None, "A codec; default: the bundled one.")
    photos: int = option(7_000, "Photos to learn from, at most.")
    large: int = option(6_500, "Of these, seen a second time enlarged.")
    steps: int = option(6000, "Length of training, for each rate.")
    batch_size: int = option(1024, "Codes a step.")
    width: int = option(32, "Numbers inside the network.")
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    device: str | None = None
    seed: int = 0


def current_name(name: str) -> str:
    """Today's name of an option; of an old one, stderr says so."""
    if name in RENAMED:
        old, new = (n.replace("_", "-") for n in (name, RENAMED[name]))
        print(f"notice: --{old} is called --{new} now; 0.3 drops the old name", file=sys.stderr)
    return RENAMED.get(name, name)
