"""Fixtures of the claims' tests: photos, folders of them, a workbench of a tiny codec."""

import json

import pytest

from conftest import make_photo
from perco_lite.claims.workbench import ClaimSettings, Workbench, claim_photos


@pytest.fixture(scope="session")
def tiny():
    """Settings of the smallest experiments."""
    return ClaimSettings(crop=64, steps=1, seeds=2, draws=3, training_steps=1, training_photos=3)


@pytest.fixture(scope="session", name="make_photo")
def photo_maker():
    """(seed, size) -> a smooth photo of random colours."""
    return lambda seed, size=(160, 144): make_photo(*size, seed)


@pytest.fixture
def photos(tmp_path, monkeypatch, make_photo):
    """A data folder with 3 photos as Kodak's, 3 as COCO's with captions, 3 to train on."""
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, start in (("kodak", 0), ("coco_eval", 10), ("train", 20)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            make_photo(start + i).save(tmp_path / "data" / name / f"kodim0{i + 1}.png")
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
def bench(tiny_codec, photos, tiny) -> Workbench:
    return Workbench(tiny_codec, claim_photos(), tiny)
