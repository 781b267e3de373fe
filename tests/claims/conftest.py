"""Fixtures of the claims' tests: folders of photos, networks."""

import json

import numpy as np
import pytest
import torch

from conftest import make_photo
from perco_lite import metrics
from perco_lite.claims import dated, plan, trained
from perco_lite.evaluation.metrics import realism, semantics


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A data folder with 3 photos as Kodak's, 3 as COCO's with captions, 3 to train on."""
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, start in (("kodak", 0), ("coco_eval", 10), ("train", 20)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            photo = make_photo(160, 144, start + i)
            photo.save(tmp_path / "data" / name / f"kodim0{i + 1}.png")
    texts = {f"kodim0{i}.png": [f"a red barn {i}", "two dogs run"] for i in (1, 2, 3)}
    folder = tmp_path / "data" / "coco_eval"
    (folder / "captions.json").write_text(json.dumps(texts))
    masks = [(1, 1, 50.0), (1, 2, 30.0), (1, 2, 30.0), (2, 1, 9.0)]
    table = {
        "images": [{"id": i, "file_name": f"kodim0{i}.png"} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "car"}],
        "annotations": [{"image_id": i, "category_id": c, "area": a} for i, c, a in masks],
    }
    (folder / "instances.json").write_text(json.dumps(table))
    return tmp_path


@pytest.fixture
def captioned(photos):
    """The same folder with photos to hold out, two captions each, and sentences of a training."""
    folder = photos / "data" / "val"
    folder.mkdir()
    texts = ["two dogs run", "a red barn", "dogs on a field", "a barn, red", "two", "three dogs"]
    for number in range(3):
        make_photo(64, 64, seed=30 + number).save(folder / f"{number}.png")
    pairs = {f"{n}.png": texts[2 * n : 2 * n + 2] for n in range(3)}
    (folder / "captions.json").write_text(json.dumps(pairs))
    (photos / "data" / "captions").mkdir()
    (photos / "data" / "captions" / "few_train.txt").write_text("A red barn.\nsomething else\n")
    masks = photos / "data" / "coco_eval" / "instances.json"
    table = json.loads(masks.read_text())
    table["images"] = [one | {"width": 160, "height": 144} for one in table["images"]]
    box = [[10.0, 10.0, 90.0, 10.0, 90.0, 120.0, 10.0, 120.0]]
    table["annotations"] = [one | {"segmentation": box} for one in table["annotations"]]
    masks.write_text(json.dumps(table))
    return photos


class Vectors(torch.nn.Module):
    """In place of Inception: mean colour and contrast of a patch, (B,3,H,W) uint8 -> (B,6)."""

    num_features = 6

    def forward(self, patches):
        flat = patches.float().flatten(2) / 255
        return torch.cat([flat.mean(2), flat.std(2)], 1)


class Colours:
    """In place of DeepLab: the strongest colour of a pixel."""

    labels, classes, protocol = {0: "dog", 1: "car", 2: "boat"}, 3, "colours"

    def __call__(self, image):
        return np.asarray(image).argmax(2).astype(np.int64)


class Distance(torch.nn.Module):
    """In place of LPIPS in a loss."""

    def __init__(self, net):
        super().__init__()

    def forward(self, image, target):
        return (image - target).abs().mean((1, 2, 3))


@pytest.fixture
def networks(monkeypatch):
    """Every network that claims look through, a tiny one in its place."""

    def lpips(net):
        def far(a, b):
            return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() / 255)

        far.protocol = "mean error"
        return far

    monkeypatch.setattr(metrics, "load_lpips", lpips)
    monkeypatch.setattr(realism, "PATCH", 64)
    for module in (realism, dated):
        monkeypatch.setattr(module, "load_inception", lambda resize="torchmetrics": Vectors())
    for module in (semantics, dated):
        monkeypatch.setattr(module, "load_segmenter", Colours)
    for module in (trained, plan):
        monkeypatch.setattr(module, "Lpips", Distance)
