"""Which metrics can be computed here, and that each gets what it should."""

import json

import numpy as np
import pytest
from PIL import Image
from torch import nn

from perco_lite.evaluation import scoring
from perco_lite.evaluation.datasets import open_dataset, read_instances
from perco_lite.evaluation.metrics import dists, realism, recognition, semantics
from perco_lite.evaluation.scoring import PHOTO_METRICS, SET_METRICS, SetScorer, load_photo_metrics
from perco_lite.metrics import Unavailable

RED, BLUE = (250, 10, 10), (10, 10, 250)


class ColourSegmenter:
    """Labels what is red 1 and what is blue 2, all else 0."""

    classes, labels, protocol = 3, {0: "wall", 1: "person", 2: "sky"}, "colours"

    def __call__(self, image):
        pixels = np.asarray(image).astype(int)
        red, blue = pixels[..., 0] > 200, pixels[..., 2] > 200
        return np.where(red & ~blue, 1, np.where(blue & ~red, 2, 0)).astype(np.int64)


@pytest.fixture
def folder(tmp_path):
    """Two photos, 16x8, their left halves red and the rest blue, with masks of the left 4."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        image = Image.new("RGB", (16, 8), BLUE)
        image.paste(RED, (0, 0, 8, 8))
        image.save(folder / name)
    box = [0, 0, 3, 0, 3, 7, 0, 7]  # a polygon's corners are pixels, and inside
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 16, "height": 8}],
        "categories": [{"id": 5, "name": "person"}],
        "annotations": [{"image_id": 1, "category_id": 5, "segmentation": [box], "area": 32}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def unavailable(reason):
    def load(*arguments):
        raise Unavailable(reason.format(*arguments))

    return load


def score(dataset, names, reconstruct, folder):
    scorer = SetScorer(names, dataset, folder)
    assert scorer.names == tuple(names), scorer.missing
    photos = {photo.name: photo for photo in dataset.photos}
    return scorer.score(sorted(photos), lambda n: dataset.load(photos[n]), lambda n: reconstruct(n))


def test_miou_of_predictions_and_of_masks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(semantics, "load_segmenter", ColourSegmenter)
    dataset = open_dataset(str(folder))

    def reconstruct(name):
        """A quarter of the red has turned blue."""
        image = dataset.load(dataset.photos[0])
        image.paste(BLUE, (6, 0, 8, 8))
        return image

    found = score(dataset, ("miou", "miou_masks"), reconstruct, tmp_path)
    # of each photo's 16 columns, 8 are red and 6 remain; 8 are blue and 10 are called so
    assert found["miou"].value == pytest.approx((6 / 8 + 8 / 10) / 2)
    assert "reconstruction against original, both by colours" in found["miou"].protocol
    assert found["miou_masks"].value == pytest.approx(1.0), "only what has a mask counts"
    found = score(dataset, ("miou_masks",), lambda n: Image.new("RGB", (16, 8), BLUE), tmp_path)
    assert found["miou_masks"].value == 0
    larger = open_dataset(str(folder), resize="32x16")
    found = score(larger, ("miou_masks",), lambda n: Image.new("RGB", (32, 16), RED), tmp_path)
    assert found["miou_masks"].value == pytest.approx(1.0), "masks follow the resize rule"


def test_masks_need_a_file_of_masks(folder):
    dataset = open_dataset(str(folder))
    with pytest.raises(ValueError, match="is no file of COCO instances"):
        read_instances(folder / "a.png")
    (folder / "instances.json").unlink()
    scorer = SetScorer(("miou_masks",), open_dataset(str(folder)), folder)
    assert "has no instances.json" in scorer.missing["miou_masks"] and scorer.names == ()
    assert dataset.instances is not None


def test_fid_and_kid_share_one_look_at_each_photo(folder, tmp_path, monkeypatch):
    looks = []

    class Network(nn.Module):
        def forward(self, batch):
            looks.append(len(batch))
            return batch.float().mean((2, 3))

    monkeypatch.setattr(realism, "load_inception", lambda resize: Network())
    dataset = open_dataset(str(folder))
    images = {"a.png": Image.new("RGB", (16, 8), RED), "b.png": Image.new("RGB", (16, 8), BLUE)}
    found = score(dataset, ("fid", "kid"), images.__getitem__, tmp_path)
    assert sum(looks) == 1 + 2 + 2, "a made-up photo, the originals, the reconstructions"
    originals = [dataset.load(photo) for photo in dataset.photos]
    for name, metric in (("fid", realism.fid), ("kid", realism.kid)):
        expected = metric(originals, images.values(), Network())
        assert found[name].value == pytest.approx(expected.value)


def test_patches_and_squashed_photos_go_through_the_network_as_their_protocols_say(
    tmp_path, monkeypatch
):
    looks = []

    class Network(nn.Module):
        def __init__(self, resize):
            super().__init__()
            self.resize = resize

        def forward(self, batch):
            looks.append((self.resize, tuple(batch.shape)))
            return batch.float().mean((2, 3))

    monkeypatch.setattr(realism, "load_inception", Network)
    grain = np.random.default_rng(0).integers(0, 256, (3, 384, 640, 3), np.uint8)
    for number, pixels in enumerate(grain):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    dataset = open_dataset(str(tmp_path))
    names = ("fid_256", "kid_256", "kid_512")

    def darker(name):
        return Image.open(tmp_path / name).convert("RGB").point(lambda value: value // 2)

    found = score(dataset, names, darker, tmp_path)
    assert set(looks[2:]) == {("torchmetrics", (4, 3, 256, 256)), ("clean-fid", (1, 3, 512, 512))}
    assert all(found[name].value > 1 for name in names)
    assert "256-pixel patches of two shifted grids, as MS-ILLM" in found["fid_256"].protocol
    assert "3 originals (12 vectors), 3 reconstructions (12)" in found["kid_256"].protocol
    assert "whole photos squashed to 512x512" in found["kid_512"].protocol
    Image.new("RGB", (640, 100)).save(tmp_path / "low.png")
    found = score(open_dataset(str(tmp_path)), names, darker, tmp_path)
    assert found["fid_256"].value, found["fid_256"].protocol
    assert "4 originals (12 vectors)" in found["fid_256"].protocol
    assert "1 of them smaller than a patch and left out" in found["fid_256"].protocol
    assert found["kid_512"].value is not None


def test_a_metric_that_photos_do_not_allow_says_why(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(realism, "load_inception", lambda resize: nn.Flatten())
    dataset = open_dataset(str(folder))
    photos = {photo.name: dataset.load(photo) for photo in dataset.photos}
    found = score(dataset, ("kid_256",), photos.__getitem__, tmp_path)
    assert found["kid_256"].value is None
    assert "got 0 256-pixel patches of originals, expected 2;" in found["kid_256"].protocol


def test_clip_score_is_of_the_reconstruction_and_its_caption(monkeypatch):
    def clip(image, caption):
        return float(image.getpixel((0, 0))[0] + len(caption)) if caption else None

    clip.protocol = "CLIP"
    monkeypatch.setattr(semantics, "load_clip", lambda: clip)
    function = load_photo_metrics(("clip_score",)).functions["clip_score"]
    original, other = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    assert function(original, other, "abc") == 13
    assert function(original, other, None) is None


def test_what_does_not_load_is_a_reason(monkeypatch, folder):
    monkeypatch.setattr(semantics, "load_clip", unavailable("CLIP: no weights"))
    monkeypatch.setattr(semantics, "load_segmenter", unavailable("mIoU: no weights"))
    monkeypatch.setattr(realism, "load_inception", unavailable("Inception: no weights"))
    monkeypatch.setattr(recognition, "load_recogniser", unavailable("lite0: no weights"))
    monkeypatch.setattr(scoring.metrics, "load_lpips", unavailable("LPIPS {}: none"))
    monkeypatch.setattr(dists, "load_dists", unavailable("DISTS: none"))
    loaded = load_photo_metrics((*PHOTO_METRICS, *SET_METRICS))
    assert set(loaded.functions) == {"psnr", "ms_ssim", "flat_colour_error"}
    assert loaded.missing == {
        "lpips_alex": "LPIPS alex: none",
        "lpips_vgg": "LPIPS vgg: none",
        "dists": "DISTS: none",
        "clip_score": "CLIP: no weights",
    }
    assert all(loaded.protocols[name] for name in loaded.functions)
    missing = SetScorer(SET_METRICS, open_dataset(str(folder)), folder).missing
    assert set(missing) == set(SET_METRICS) - {"pattern"}
    assert missing["kid"] == missing["fid"] == "Inception: no weights"
    assert missing["kid"] == missing["fid_256"] == missing["kid_512"] == "Inception: no weights"


def test_a_network_that_fails_on_its_first_photo_is_a_reason_too(monkeypatch, folder):
    def broken(image):
        raise RuntimeError("wrong weights")

    monkeypatch.setattr(semantics, "load_segmenter", lambda: broken)
    broken.protocol, broken.classes = "broken", 2
    scorer = SetScorer(("miou",), open_dataset(str(folder)), folder)
    assert scorer.missing == {"miou": "wrong weights"}
