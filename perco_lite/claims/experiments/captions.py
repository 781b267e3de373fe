"""Experiment on captions: which text helps the denoiser most, by its v-loss on held-out photos.

The first edition of the claims, which notebook 15 tells of; ``dated`` and ``evidence`` decide now.

    COCO photo, five human captions, instance masks ──► six texts
    latents, condition, noise: the same ──► v-loss under each text

The v-loss is the objective itself and sees effects that no picture shows: the texts of a photo
share everything but the words.

Paper: PerCo, Sec. 4.4 (captions of BLIP-2, IDEFICS, and COCO's own).
Differs from the paper: no captioner was at hand. Another person's caption and a template filled
with the names of the photo's largest objects stand for two more sources.
"""

import json
from pathlib import Path

from PIL import Image

from perco_lite.claims.experiments.pictures import NOTHING
from perco_lite.claims.workbench import Outcome, Workbench, centre
from perco_lite.coding.entropy_coding import zlib_bytes
from perco_lite.data import find_data, image_to_tensor, load_photo, read_caption_lists
from perco_lite.unet import velocity_losses

WIDTH, HEIGHT = 320, 256  # of photos shrunk to that short side, as in training
OBJECTS = 3


def captions(bench: Workbench) -> Outcome:
    """v-loss with a human's caption, another human's, a template, another photo's, "NA", none.

    At the lowest and at the highest rate. Without COCO's photos: with the sample photos and the
    one caption that each has; what needs more is left out and named.
    """
    photos, notes = captioned_photos(bench)
    codec, conditioner, rows = bench.codec, bench.codec.conditioner, []
    for number, (name, image, texts) in enumerate(photos):
        other = photos[(number + 1) % len(photos)][2]["human"]
        texts = {**texts, "another photo's": other, "NA": NOTHING, "none": ""}
        latents = codec.autoencoder.encode(image_to_tensor(image).to(codec.device)).detach()
        for rate in dict.fromkeys((bench.lowest, bench.highest)):
            condition = conditioner.decode(conditioner.encode(latents, rate), rate).detach()
            losses = velocity_losses(codec, latents, condition, [*texts.values()], rate, number)
            for (setting, text), loss in zip(texts.items(), losses, strict=True):
                row = {"photo": name, "rate": rate, "setting": setting, "v_loss": loss}
                rows.append(row | {"zlib_bytes": zlib_bytes(text) if text else 0})
    return Outcome(rows, notes=notes)


def captioned_photos(bench: Workbench) -> tuple[list[tuple[str, Image.Image, dict]], list[str]]:
    """(name, image, {source: text}) of every photo, and what was left out."""
    limit = bench.settings.photos or None
    folder = find_data("coco_eval")
    if folder is None:
        own = zip(bench.names, bench.images, bench.captions, strict=True)
        missing = "another human, template: not measured without coco_eval (data/README.md)"
        return [(n, i, {"human": c}) for n, i, c in own], [missing]
    lists = read_caption_lists(folder / "captions.json")
    objects = largest_objects(folder / "instances.json")
    photos = []
    for name, texts in lists.items():
        if len(texts) < 2 or not (folder / name).is_file():
            continue
        texts = {"human": texts[0], "another human": texts[1], "template": fill(objects.get(name))}
        photos.append((name, shrink(load_photo(folder / name)), texts))
        if limit and len(photos) == limit:
            break
    return photos, []


def largest_objects(path: Path) -> dict[str, list[str]]:
    """Names of each photo's object categories in a COCO instances file, by area, largest first."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path}, which the template needs; see data/README.md")
    table = json.loads(path.read_text(encoding="utf-8"))
    names = {one["id"]: one["name"] for one in table["categories"]}
    files = {one["id"]: one["file_name"] for one in table["images"]}
    areas: dict[str, dict[str, float]] = {}
    for mask in table["annotations"]:
        photo = areas.setdefault(files[mask["image_id"]], {})
        name = names[mask["category_id"]]
        photo[name] = photo.get(name, 0.0) + mask["area"]
    return {p: sorted(found, key=found.get, reverse=True) for p, found in areas.items()}


def fill(objects: list[str] | None) -> str:
    """The template: "a photo of a dog, a car"; "a photo" where nothing was found."""
    if not objects:
        return "a photo"
    return "a photo of " + ", ".join(f"a {name}" for name in objects[:OBJECTS])


def shrink(photo: Image.Image) -> Image.Image:
    """The middle WIDTH x HEIGHT of a photo whose short side was brought to fit, bicubic."""
    scale = max(WIDTH / photo.width, HEIGHT / photo.height)
    size = max(round(photo.width * scale), WIDTH), max(round(photo.height * scale), HEIGHT)
    return centre(photo.resize(size, Image.Resampling.BICUBIC), WIDTH, HEIGHT)
