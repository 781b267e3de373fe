"""The two training commands: from a folder of photos to a stage that ``training.train`` can run.

data ──► PhotoStore ──► AutoencoderStage ──► weights of stage 1
                   └──► LatentStore ──► CodecStage ──► weights of the codec
"""

from pathlib import Path

import torch

from perco_lite.autoencoder import Autoencoder
from perco_lite.autoencoder_stage import AutoencoderLoss, AutoencoderStage
from perco_lite.bitstream import unpack
from perco_lite.captions import train_tokenizer
from perco_lite.codec import PercoCodec
from perco_lite.codec_stage import CodecLoss, CodecStage, build_codec
from perco_lite.data import find_data, kodak_photos, list_photos, skimage_photos, tensor_to_image
from perco_lite.latent_store import cache_latents
from perco_lite.perceptual import PerceptualDistance
from perco_lite.photo_store import PhotoStore
from perco_lite.plotting import Tile, contact_sheet
from perco_lite.training import TrainingSettings, train

PREVIEW_PHOTOS = 2


def train_autoencoder_recipe(
    data: Path | None,
    output: Path,
    decoder_of: str | None = None,
    perceptual_weight: float = 0.05,
    seed: int = 0,
    **settings,
) -> dict:
    """Stage 1; ``decoder_of`` goes on with the decoder of existing weights, encoder frozen."""
    torch.manual_seed(seed)
    data = _find_training_data(data)
    store = PhotoStore(data)
    autoencoder = load_autoencoder(decoder_of) if decoder_of else Autoencoder()
    if decoder_of:
        autoencoder.encoder.requires_grad_(False)
    loss = AutoencoderLoss(autoencoder, _perceptual(data, perceptual_weight), perceptual_weight)
    folder = find_data("kodak")
    photos = list_photos(folder) if folder else []
    # colours first: the feature distance makes a step half as long again
    sharpen_from = 0 if decoder_of else round(0.4 * settings["steps"])
    stage = AutoencoderStage(store, loss, sharpen_from=sharpen_from, preview_photos=photos)
    return train(stage, TrainingSettings(output=str(output), seed=seed, **settings))


def train_codec_recipe(
    data: Path | None,
    autoencoder: Path,
    output: Path,
    alone: int = 600,
    perceptual_weight: float = 0.0,
    crop: int = 32,
    rates: str = "",
    seed: int = 0,
    **settings,
) -> dict:
    """Stage 2 on a trained autoencoder; the tokenizer is learned from the photos' own captions."""
    torch.manual_seed(seed)
    data = _find_training_data(data)
    frozen = load_autoencoder(str(autoencoder)).eval()
    store = PhotoStore(data)
    sentences = [text for texts in store.captions for text in texts] + _caption_sentences(data)
    codec = build_codec(
        frozen, train_tokenizer(sentences), {"rates": tuple(rates.split(","))} if rates else None
    )
    latents = cache_latents(frozen, store, Path(output) / "latents.safetensors")
    store.photos.clear()  # a gigabyte that nothing needs from here on
    perceptual = _perceptual(data, perceptual_weight)
    stage = CodecStage(
        codec,
        CodecLoss(codec, perceptual, perceptual_weight),
        latents,
        store.captions,
        crop=crop,
        denoise_from=alone,
        preview=preview_sheet,
    )
    return train(
        stage,
        TrainingSettings(
            output=str(output), warmup_steps=200, seed=seed, checkpoint_minutes=12, **settings
        ),
    )


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


def _find_training_data(data: Path | None) -> Path:
    found = data or find_data("train")
    if found is None:
        raise FileNotFoundError(
            "no training photos; give --data FOLDER (webdataset shards, or photos with a "
            "captions.json), or set PERCO_LITE_DATA to a folder that has train/"
        )
    if not list(Path(found).glob("*.tar")) and (Path(found) / "train").is_dir():
        found = Path(found) / "train"
    return Path(found)


def _caption_sentences(data: Path) -> list[str]:
    """More sentences for the tokenizer: captions/*_train.txt beside the photos, where it exists."""
    files = sorted((data.parent / "captions").glob("*_train.txt"))
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def _perceptual(data: Path, weight: float) -> PerceptualDistance | None:
    if not weight:
        return None
    return PerceptualDistance.from_file(data.parent / "weights" / "squeezenet1_0_caffe_fp32.npz")


def pack_weights(source: Path, target: Path) -> int:
    """Write a codec's weights as float16 safetensors, as they ship; returns the folder's bytes.

    The model card (README.md) of ``target`` stays. Raises what ``from_pretrained`` raises.
    """
    codec = PercoCodec.from_pretrained(str(source))
    codec.to(torch.float16).save_pretrained(target)
    return sum(file.stat().st_size for file in Path(target).rglob("*") if file.is_file())
