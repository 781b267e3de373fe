"""The training commands: from a folder of photos to a stage that ``training.train`` can run.

data ──► PhotoStore ──► AutoencoderStage ──► weights of the autoencoder ─┐
                   ├──► TextStage ──► weights of the text encoder ───────┤
                   └──► LatentStore ──► CodecStage ◄─────────────────────┘ ──► weights of the codec
"""

import json
import warnings
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import AutoTokenizer, CLIPTextModel

from perco_lite.autoencoder import Autoencoder
from perco_lite.captions import build_text_encoder, train_tokenizer
from perco_lite.codec import PercoCodec
from perco_lite.coding.bitstream import unpack
from perco_lite.condition import LocalConditioner
from perco_lite.data import find_data, kodak_photos, list_photos, skimage_photos, tensor_to_image
from perco_lite.files import explain, write_whole
from perco_lite.loading import build_codec
from perco_lite.perceptual import (
    SQUEEZENET_FILE,
    Lpips,
    PerceptualDistance,
    SqueezeNet,
    may_download,
)
from perco_lite.plotting import Tile, contact_sheet
from perco_lite.training.autoencoder import AutoencoderLoss, AutoencoderStage
from perco_lite.training.codec import CodecLoss, CodecStage
from perco_lite.training.latents import cache_latents
from perco_lite.training.loop import TrainingSettings, train
from perco_lite.training.photos import PhotoStore
from perco_lite.training.shards import is_url
from perco_lite.training.text_encoder import TextLoss, TextStage, photo_features

PREVIEW_PHOTOS = 2
# of stage 1: LPIPS (squeeze), or our own distance of SqueezeNet 1.0's features, from a local file
PERCEPTUAL_WEIGHTS = {"lpips": 1.0, "squeezenet": 0.02}


def train_autoencoder_recipe(
    data: str | Path | None,
    output: Path,
    start: str | None = None,
    decoder_of: str | None = None,
    perceptual: str = "lpips",
    perceptual_weight: float | None = None,
    latent_noise: float = 0.03,
    hold_latents: float = 0.0,
    crop: int = 128,
    seed: int = 0,
    **settings,
) -> dict:
    """Stage 1, from new weights or going on from those of ``start``.

    ``decoder_of`` goes on with the decoder of existing weights and leaves the encoder as it is;
    ``hold_latents``, a weight, lets the encoder of ``start`` move its latents a little.
    ``perceptual``: one of PERCEPTUAL_WEIGHTS, which has the default weight of each. Where LPIPS
    cannot be had, a warning says why, and the run trains without.
    """
    torch.manual_seed(seed)
    if perceptual not in PERCEPTUAL_WEIGHTS:
        known = ", ".join(PERCEPTUAL_WEIGHTS)
        raise ValueError(f"perceptual is {perceptual!r}, expected one of {known}")
    if perceptual_weight is None:
        perceptual_weight = PERCEPTUAL_WEIGHTS[perceptual]
    if hold_latents and not start:
        raise ValueError(
            f"got hold_latents {hold_latents:g} without start, expected the weights whose latents "
            "to hold on to; give --start too"
        )
    data = find_training_data(data)
    store = PhotoStore(data)
    source = decoder_of or start
    autoencoder = load_autoencoder(source) if source else Autoencoder()
    if decoder_of:
        autoencoder.encoder.requires_grad_(False)
    else:
        autoencoder.fold_statistics()
    autoencoder.keeps_latents = bool(decoder_of or hold_latents)
    distance = None
    if perceptual_weight:
        distance = _lpips() if perceptual == "lpips" else _perceptual(data, perceptual_weight)
    loss = AutoencoderLoss(autoencoder, distance, perceptual_weight, latent_noise, hold_latents)
    folder = find_data("kodak")
    photos = list_photos(folder) if folder else []
    # colours first: the feature distance makes a step half as long again
    sharpen_from = 0 if decoder_of else round(0.6 * settings["steps"])
    stage = AutoencoderStage(store, loss, crop, sharpen_from, photos)
    return train(stage, TrainingSettings(output=str(output), seed=seed, **settings))


def train_text_recipe(
    data: str | Path | None, output: Path, photos: int = 6000, seed: int = 0, **settings
) -> dict:
    """Tokenizer and text encoder, from photos with at least two captions each."""
    torch.manual_seed(seed)
    data = find_training_data(data)
    store = PhotoStore(data)
    # photos with one caption have it from a template, the same for a hundred of them
    chosen = [i for i, texts in enumerate(store.captions) if len(texts) > 1]
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
    chosen = [chosen[i] for i in order[:photos].tolist()]
    if len(chosen) < 2:
        raise ValueError(
            f"got {len(chosen)} photos with two captions or more in {data}, expected at least 2; "
            "train the codec without --text"
        )
    tokenizer = _train_tokenizer(data, store)
    network = SqueezeNet.from_file(_squeezenet_file(data))
    features = photo_features(network, store, chosen)
    captions = [store.captions[i] for i in chosen]
    store.photos.clear()
    loss = TextLoss(build_text_encoder(len(tokenizer)))
    stage = TextStage(tokenizer, loss, captions, features)
    return train(stage, TrainingSettings(output=str(output), seed=seed, **settings))


def train_codec_recipe(
    data: str | Path | None,
    autoencoder: Path,
    output: Path,
    text: Path | None = None,
    start: Path | None = None,
    freeze_codes: bool = False,
    alone: int = 600,
    perceptual_weight: float = 0.0,
    crop: int = 24,
    rates: str = "",
    timesteps: int | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 0,
    **settings,
) -> dict:
    """Stage 2 on a trained autoencoder.

    ``text``: a folder of `perco train text`, whose text encoder then stays as it is; without it one
    is trained with the U-Net, and its tokenizer learned from the photos' captions. ``start``: a
    codec to go on from; of its weights, those that have no counterpart are named and start anew.
    """
    torch.manual_seed(seed)
    data = find_training_data(data)
    frozen = load_autoencoder(str(autoencoder)).eval()
    store = PhotoStore(data)
    tokenizer = (
        AutoTokenizer.from_pretrained(text / "tokenizer") if text else _train_tokenizer(data, store)
    )
    codec = build_codec(frozen, tokenizer, {"rates": tuple(rates.split(","))} if rates else None)
    if start:
        for part, kind in (("conditioner", LocalConditioner), ("unet", UNet2DConditionModel)):
            old = kind.from_pretrained(start, subfolder=part, torch_dtype=torch.float32)
            names = adopt_weights(getattr(codec, part), old)
            print(f"{part}: {len(names)} tensors start anew: {', '.join(names) or 'none'}")
    if text:
        codec.text_encoder.load_state_dict(
            CLIPTextModel.from_pretrained(text / "text_encoder").state_dict()
        )
        codec.text_encoder.requires_grad_(False)
    if gradient_checkpointing:
        codec.unet.enable_gradient_checkpointing()
    latents = cache_latents(frozen, store, Path(output) / "latents.safetensors")
    store.photos.clear()  # a gigabyte that nothing needs from here on
    perceptual = _perceptual(data, perceptual_weight)
    stage = CodecStage(
        codec,
        CodecLoss(
            codec, perceptual, perceptual_weight, freeze_codes=freeze_codes, timesteps=timesteps
        ),
        latents,
        store.captions,
        crop=crop,
        denoise_from=alone,
        preview=preview_sheet,
    )
    settings = {"warmup_steps": 200, "checkpoint_minutes": 12, **settings}
    return train(stage, TrainingSettings(output=str(output), seed=seed, **settings))


def adopt_weights(module: nn.Module, source: nn.Module) -> list[str]:
    """Copy the tensors that two modules have in common, by name and shape; names of the others."""
    theirs = source.state_dict()
    ours = module.state_dict()
    fresh = [n for n, v in ours.items() if n not in theirs or theirs[n].shape != v.shape]
    module.load_state_dict({n: v for n, v in theirs.items() if n in ours and n not in fresh}, False)
    return fresh


def load_autoencoder(path: str) -> Autoencoder:
    """Weights of stage 1, or the autoencoder inside a whole codec's folder."""
    folder = Path(path)
    if (folder / "autoencoder" / "config.json").exists():
        folder = folder / "autoencoder"
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"no autoencoder weights in {path}; train them first with `perco train autoencoder`"
        )
    return Autoencoder.from_pretrained(folder, torch_dtype=torch.float32)


def preview_sheet(codec: PercoCodec, path: Path) -> None:
    """Sample photos, and what they decode to at every rate so far: picture and first estimate."""
    codec.set_progress_bar_config(disable=True)
    rows = []
    for sample in (kodak_photos() or skimage_photos())[:PREVIEW_PHOTOS]:
        image = sample.image.crop(
            (0, 0, min(512, sample.image.width), min(384, sample.image.height))
        )
        painted, estimated = [Tile(image, sample.name)], [Tile(None)]
        for rate in codec.rates:
            data = codec.compress(image, sample.caption, rate)
            painted.append(Tile(codec.decompress(data, 8), f"{rate}: {len(data)} bytes"))
            with torch.no_grad():
                estimate = codec.autoencoder.decode(codec.condition(unpack(data))[:, :4])
            estimated.append(Tile(tensor_to_image(estimate), f"{rate}: estimate from the bits"))
        rows += [painted, estimated]
    contact_sheet(rows, tile_width=256).save(path)


def find_training_data(data: str | Path | None) -> str | Path:
    """``data``, or the folder of training photos where ``find_data`` finds it; a URL as it is."""
    if data and is_url(data):
        return str(data)
    found = data or find_data("train")
    if found is None:
        raise FileNotFoundError(
            "no training photos; give --data FOLDER (webdataset shards, or photos with a "
            "captions.json), or set PERCO_LITE_DATA to a folder that has train/"
        )
    if not list(Path(found).glob("*.tar")) and (Path(found) / "train").is_dir():
        found = Path(found) / "train"
    return Path(found)


def _train_tokenizer(data: str | Path, store: PhotoStore):
    """From the photos' captions, and from captions/*_train.txt beside them where it exists."""
    sentences = [text for texts in store.captions for text in texts]
    for file in sorted((Path(data).parent / "captions").glob("*_train.txt")):
        sentences += file.read_text(encoding="utf-8").splitlines()
    return train_tokenizer(sentences)


def _lpips() -> Lpips | None:
    try:
        return Lpips("squeeze", may_download())
    except (ImportError, OSError) as error:
        warnings.warn(f"training without the perceptual term: {explain(error)}", stacklevel=2)
        return None


def _perceptual(data: str | Path, weight: float) -> PerceptualDistance | None:
    if not weight:
        return None
    return PerceptualDistance.from_file(_squeezenet_file(data))


def _squeezenet_file(data: str | Path) -> Path:
    return Path(data).parent / "weights" / SQUEEZENET_FILE


def pack_weights(source: Path, target: Path) -> int:
    """Write a codec's weights as float16 safetensors, as they ship; returns the folder's bytes.

    The model card (README.md) of ``target`` stays. Raises what ``from_pretrained`` raises.
    """
    codec = PercoCodec.from_pretrained(str(source))
    codec.to(torch.float16).save_pretrained(target)
    for config in Path(target).rglob("*.json"):
        facts = json.loads(config.read_text(encoding="utf-8"))
        if facts.pop("_name_or_path", None) is not None:  # a folder of whoever trained them
            write_whole(config, (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode())
    return sum(file.stat().st_size for file in Path(target).rglob("*") if file.is_file())
