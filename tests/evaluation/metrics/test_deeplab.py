"""DeepLab's frame with a network of our own; with its file and runtime, the photos of COCO."""

import numpy as np
import pytest
from PIL import Image

from perco_lite import data
from perco_lite.data import find_data
from perco_lite.evaluation.datasets import open_dataset, read_instances
from perco_lite.evaluation.metrics import deeplab, semantics
from perco_lite.evaluation.metrics.deeplab import CLASSES, FILE, SIDE, DeepLab, load_deeplab
from perco_lite.metrics import Unavailable


class Reds:
    """In place of TensorFlow Lite: what is red is a bird, what is grey (the frame) a train."""

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        return [{"index": 3}]

    def get_output_details(self):
        return [{"index": 7}]

    def set_tensor(self, index, photo):
        assert index == 3 and photo.shape == (1, SIDE, SIDE, 3) and photo.dtype == np.uint8
        self.photo = photo.astype(int)

    def invoke(self):
        red = self.photo[..., 0] > self.photo[..., 1] + 100
        grey = (self.photo == deeplab.GREY).all(-1)
        found = np.where(red, CLASSES.index("bird"), np.where(grey, CLASSES.index("train"), 0))
        self.found = found.astype(np.int64)

    def get_tensor(self, index):
        assert index == 7
        return self.found


@pytest.fixture
def fresh():
    load_deeplab.cache_clear()
    yield
    load_deeplab.cache_clear()


@pytest.mark.parametrize("size", [(640, 480), (48, 90), (513, 513)])
def test_a_photo_comes_back_at_its_size_without_the_frame(size):
    segmenter, image = DeepLab(Reds()), Image.new("RGB", size, (10, 10, 10))
    width, height = size
    image.paste((250, 0, 0), (0, 0, width // 2, height))
    labels = segmenter(image)
    assert labels.shape == (height, width) and labels.dtype == np.int64
    expected = np.zeros((height, width), int)
    expected[:, : width // 2] = 3
    assert (labels == expected).mean() > 0.98 and set(np.unique(labels)) == {0, 3}
    assert segmenter.classes == 21 and segmenter.labels[3] == "bird"
    with pytest.raises(ValueError, match="mode L, expected RGB"):
        segmenter(image.convert("L"))


def test_what_is_missing_or_another_file_is_a_reason(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.delenv("PERCO_LITE_DOWNLOAD", raising=False)
    with pytest.raises(Unavailable, match=f"DeepLab: no {FILE}"):
        load_deeplab()
    with pytest.raises(Unavailable, match="DeepLab: no .*segformer.* does not load"):
        semantics.load_segmenter()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / FILE).write_bytes(b"another")
    with pytest.raises(Unavailable, match="is not the published file: refused"):
        load_deeplab()
    monkeypatch.setattr(semantics, "_load", lambda *_: pytest.fail("another judge in its place"))
    with pytest.raises(Unavailable, match="is not the published file: refused"):
        semantics.load_segmenter()


def test_it_finds_what_people_drew(fresh):
    """About 0.63 on all 100 photos; chance would be near 0.05."""
    try:
        segmenter = load_deeplab()
    except Unavailable as error:
        pytest.skip(str(error))
    if find_data("coco_eval") is None:
        pytest.skip("no photos of COCO on this machine")
    dataset = open_dataset("coco_eval", limit=20)
    annotations, maps = read_instances(dataset.instances), []
    for photo in dataset.photos:
        image = dataset.load(photo)
        size, instances = annotations.get(photo.name, (image.size, []))
        drawn = semantics.label_map(instances, size, segmenter.labels)
        maps.append((segmenter(image), drawn))
    assert semantics.miou(*zip(*maps, strict=True), segmenter.classes).value > 0.4
