"""Is it still the same thing? CLIP score (caption to photo) and mIoU (label maps of a segmenter).

    photo, caption ──CLIP──► two unit vectors ──► 100 x cosine ──► Score
    photo ──segmenter──► label map (H,W)
    label map of the reconstruction, of the original or drawn by people ──miou──► Score

Networks come from ``transformers``: a folder, or a hub id that is in the hub's cache. Nothing is
downloaded unless ``PERCO_LITE_DOWNLOAD=1``; what does not load is a reason, not a figure.

Paper: PerCo, Sec. 4.1 (CLIP score, ViT-B/32; mIoU).
Differs from the paper: its mIoU rests on a ViT-Adapter; here it is DeepLab (``deeplab``) or any
segmenter of ``transformers``, by default a small SegFormer, so that figures compare with our own
only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from perco_lite.data import find_file
from perco_lite.evaluation.metrics.deeplab import FILE as DEEPLAB
from perco_lite.evaluation.metrics.deeplab import DeepLab, load_deeplab
from perco_lite.evaluation.metrics.intervals import Score, percentiles
from perco_lite.metrics import Unavailable, first_line
from perco_lite.perceptual import may_download

CLIP = "openai/clip-vit-base-patch32"
SEGMENTER = "nvidia/segformer-b0-finetuned-ade-512-512"
SMALL_SET = 500  # photos; above it an interval would be narrow, and take minutes
IGNORE = 255  # label of what has no label, as in most data sets

# What label sets other than COCO's call the same thing; compared without spaces.
_SYNONYMS = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch"}
_SYNONYMS |= {"tvmonitor": "tv", "televisionreceiver": "tv"}

ClipScore = Callable[[Image.Image, str], float | None]


class Segmenter:
    """A segmentation network: photo (PIL RGB, WxH) -> label map (H,W) int64 in [0, classes)."""

    def __init__(self, model: torch.nn.Module, processor, name: str):
        self.model, self.processor = model, processor
        self.labels: dict[int, str] = {int(i): text for i, text in model.config.id2label.items()}
        self.classes = len(self.labels)
        self.protocol = (
            f"{name}, {self.classes} classes, {_resize_rule(processor)}, "
            f"transformers {version('transformers')}"
        )

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> np.ndarray:
        inputs = self.processor(images=_rgb(image), return_tensors="pt").to(self.model.device)
        logits = self.model(**inputs).logits  # (1,classes,h,w), of the resized photo
        logits = torch.nn.functional.interpolate(
            logits.float(), size=image.size[::-1], mode="bilinear", align_corners=False
        )
        return logits[0].argmax(0).cpu().numpy()


def load_clip(path: str = CLIP) -> ClipScore:
    """Load CLIP; ``Unavailable`` where it does not load.

    The function takes (photo, caption) and gives 100 x the cosine of their embeddings, 0 where it
    is negative, as torchmetrics does for one pair; captions are cut to the length CLIP takes, and
    without one there is no score: None. Its ``protocol`` says how the score is computed.
    ``path``: a folder in transformers' layout, or a hub id.
    """
    model, processor = _load("CLIP score", path, "CLIPModel", "CLIPProcessor")
    name = path if path == CLIP else f"weights of {path}"
    length = model.config.text_config.max_position_embeddings

    @torch.inference_mode()
    def clip_score(image: Image.Image, caption: str) -> float | None:
        if not caption.strip():
            return None
        options = {"return_tensors": "pt", "truncation": True, "max_length": length}
        inputs = processor(text=[caption], images=[_rgb(image)], **options).to(model.device)
        out = model(**inputs)  # its embeddings are unit vectors
        return max(100 * float((out.text_embeds * out.image_embeds).sum()), 0.0)

    clip_score.protocol = (
        f"CLIP score, 100 x cosine, {name}, {_resize_rule(processor.image_processor)}, "
        f"transformers {version('transformers')}"
    )
    return clip_score


def load_segmenter(path: str | None = None) -> Segmenter | DeepLab:
    """Load a segmenter; ``Unavailable`` where none loads.

    ``path``: a folder or a hub's name, of one of ``transformers``. Default: DeepLab, where it is on
    this machine, else SEGMENTER.
    """
    if path is None:
        try:
            return load_deeplab()
        except Unavailable as error:
            if find_file("weights", DEEPLAB):  # no other judge in the place of one that is refused
                raise
            first = error
        try:
            return load_segmenter(SEGMENTER)
        except Unavailable as error:
            raise Unavailable(f"{first}. {error}") from error
    parts = _load("mIoU", path, "AutoModelForSemanticSegmentation", "AutoImageProcessor")
    return Segmenter(*parts, path if path == SEGMENTER else f"weights of {path}")


def confusion(
    prediction: np.ndarray, truth: np.ndarray, classes: int, ignore: int = IGNORE
) -> np.ndarray:
    """Count pixels by (true class, predicted class): (classes, classes) int64.

    Both are (H,W) integers in [0, classes); pixels whose truth is ``ignore`` do not count.
    Raises ``ValueError`` for other shapes or labels.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    if prediction.shape != truth.shape or truth.ndim != 2:
        raise ValueError(
            f"got label maps of shape {prediction.shape} and {truth.shape}, expected one (H,W)"
        )
    counted = truth != ignore
    for labels, name in ((prediction[counted], "prediction"), (truth[counted], "truth")):
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(
                f"got labels {labels.min()}..{labels.max()} in the {name}, expected 0.."
                f"{classes - 1}, or {ignore} where the truth is not known; check the classes"
            )
    pairs = truth[counted].astype(np.int64) * classes + prediction[counted].astype(np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def miou(
    prediction: np.ndarray | Iterable[np.ndarray],
    truth: np.ndarray | Iterable[np.ndarray],
    classes: int,
    ignore: int = IGNORE,
    protocol: str = "",
) -> Score:
    """Mean intersection over union, in [0, 1], over the classes that occur in either.

    Label maps as for ``confusion``: one pair, or as many of each, whose pixels are then counted
    together as segmentation benchmarks do, read one at a time, with an interval by drawing photos
    anew for up to ``SMALL_SET``. None where nothing is labelled.
    """
    one = isinstance(prediction, np.ndarray)
    pairs = [(prediction, truth)] if one else zip(prediction, truth, strict=True)
    cells = []  # those that are not zero: 150 x 150 classes would be 180 kB a photo
    for pair in pairs:
        count = confusion(*pair, classes, ignore)
        cells.append((np.flatnonzero(count), count[count > 0]))
    text = f"mIoU over classes that occur, {len(cells)} photos counted together"
    text = f"{text}, {protocol}" if protocol else text
    value = _mean_iou(cells, classes)
    if value is None:
        return Score(None, f"{text}: {'no pixel has a label' if cells else 'no photos'}")
    interval = None
    if 1 < len(cells) <= SMALL_SET:
        draws = np.random.default_rng(0).integers(len(cells), size=(1000, len(cells)))
        values = (_mean_iou([cells[i] for i in chosen], classes) for chosen in draws)
        interval = percentiles([v for v in values if v is not None])
    return Score(value, text, interval)


def _mean_iou(cells: list[tuple[np.ndarray, np.ndarray]], classes: int) -> float | None:
    total = np.zeros(classes**2)
    for places, counts in cells:
        total[places] += counts
    total = total.reshape(classes, classes)
    common = total.diagonal()
    union = total.sum(0) + total.sum(1) - common
    return float((common[union > 0] / union[union > 0]).mean()) if union.any() else None


def label_map(
    annotations: Sequence[Mapping], size: tuple[int, int], labels: Mapping[int, str]
) -> np.ndarray:
    """Draw COCO instances of one photo as a label map (H,W) uint8 in a segmenter's own classes.

    ``annotations``: each with ``category`` (its name) and ``segmentation`` (polygons
    [x0, y0, x1, y1, …], or an uncompressed run-length ``{"size": [h, w], "counts": […]}``).
    ``size``: (width, height). ``labels``: ``Segmenter.labels``. Instances are drawn large ones
    first. What no instance covers, and categories the segmenter does not know, are ``IGNORE``.
    """
    numbers = {}
    for number, text in labels.items():
        for name in text.split(","):  # ADE20K's labels are lists of synonyms
            key = name.lower().replace(" ", "")
            numbers.setdefault(_SYNONYMS.get(key, key), number)
    canvas = np.full((size[1], size[0]), IGNORE, np.uint8)
    masks = [(_mask(each["segmentation"], size), each["category"]) for each in annotations]
    for mask, category in sorted(masks, key=lambda pair: -int(pair[0].sum())):
        canvas[mask] = numbers.get(category.lower().replace(" ", ""), IGNORE)
    return canvas


def _mask(segmentation, size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, Mapping):
        counts = segmentation["counts"]  # runs of 0, of 1, of 0 …, down the columns
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        return flat.reshape(size).T
    image = Image.new("1", size)
    for polygon in segmentation:
        ImageDraw.Draw(image).polygon(polygon, fill=1)
    return np.asarray(image)


def _resize_rule(processor) -> str:
    sides = ", ".join(f"{key} {side}" for key, side in dict(processor.size).items() if side)
    crop = " and its middle cut out" if getattr(processor, "do_center_crop", False) else ""
    return f"resized to {sides}{crop}"


def _load(metric: str, path: str, model: str, processor: str) -> tuple:
    """Instances of two classes of transformers; ``Unavailable`` where one does not load."""
    try:
        import transformers
        from huggingface_hub import try_to_load_from_cache

        if not (may_download() or Path(path).exists()):
            # transformers would ask the hub all the same, again and again
            if not try_to_load_from_cache(path, "config.json"):
                raise FileNotFoundError("it is not in the hub's cache")
        classes = getattr(transformers, model), getattr(transformers, processor)
        here = {"local_files_only": not may_download()}
        network, prepare = (kind.from_pretrained(path, **here) for kind in classes)
        return network.eval(), prepare
    except Exception as error:  # transformers raises a dozen kinds for what it cannot load
        raise Unavailable(
            f"{metric}: {path} does not load ({first_line(error)}); give a folder of weights, or "
            "set PERCO_LITE_DOWNLOAD=1 to download them"
        ) from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode != "RGB":
        raise ValueError(f"got a photo of mode {image.mode}, expected RGB; use data.to_rgb")
    return image
