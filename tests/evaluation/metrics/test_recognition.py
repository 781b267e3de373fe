"""What a classifier still recognises: shares against counts by hand, and the network itself."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conftest import make_photo
from perco_lite import data
from perco_lite.captioning.photo_features import CHANNELS, PhotoFeatures, squash
from perco_lite.evaluation.codecs.controls import blur, shuffle_tiles
from perco_lite.evaluation.metrics import recognition
from perco_lite.evaluation.metrics.recognition import load_recogniser, own_photo, same_class
from perco_lite.metrics import Unavailable


def vectors(features, classes):
    """Features along axes, and class scores."""
    made = torch.zeros(len(features), CHANNELS + 1000)
    for number, (axis, kind) in enumerate(zip(features, classes, strict=True)):
        made[number, axis] = made[number, CHANNELS + kind] = 1 + number
    return iter(made)


def test_shares_are_counted_over_photos():
    score = own_photo(vectors((0, 1, 2, 3), (0,) * 4), vectors((0, 1, 3, 3), (0,) * 4))
    assert score.value == 0.75 and "nearest of 4 originals" in score.protocol
    assert "chance 0.250" in score.protocol and score.interval[0] < 0.75 <= score.interval[1]
    score = same_class(vectors((0, 1), (7, 9)), vectors((5, 6), (7, 8)))
    assert score.value == 0.5 and "2 photos" in score.protocol
    assert own_photo(vectors((0,), (0,)), vectors((0,), (0,))).value is None


def test_the_network_is_missing_or_anothers(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    with pytest.raises(Unavailable, match="perco download metrics"):
        load_recogniser()
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "efficientnet_lite0.safetensors"
    save_file({"_fc.weight": torch.zeros(2, 3)}, path)
    with pytest.raises(Unavailable, match="other weights than the published efficientnet_lite0"):
        load_recogniser()


def test_classes_come_from_the_features(monkeypatch):
    torch.manual_seed(0)
    eyes = PhotoFeatures()
    monkeypatch.setattr(recognition, "fold_batch_norm", lambda published: eyes.state_dict())
    head = {"_fc.weight": torch.randn(1000, CHANNELS), "_fc.bias": torch.randn(1000)}
    photo = make_photo()
    seen = recognition.recogniser(head)(photo)
    features = eyes(squash([photo]))[0].mean(0)
    assert torch.allclose(seen[:CHANNELS], features, atol=1e-6)
    expected = head["_fc.weight"] @ features + head["_fc.bias"]
    assert torch.allclose(seen[CHANNELS:], expected, atol=1e-4)


def test_it_recognises_scikit_images_photos():
    """A cat, a cup of coffee and a rocket, blurred; but not their tiles in another order."""
    try:
        see = load_recogniser()
    except Unavailable as error:
        pytest.skip(str(error))
    photos = {sample.name: sample.image for sample in data.skimage_photos()}
    classes = {name: int(see(photos[name])[CHANNELS:].argmax()) for name in photos}
    assert classes["chelsea.png"] in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
    assert classes["rocket.jpg"] in (540, 657, 744)  # drilling platform, missile, projectile
    assert classes["coffee.png"] in (504, 925, 967, 968)  # mug, consomme, espresso, cup
    originals = [see(image) for image in photos.values()]
    blurred = [see(blur(image, 2)) for image in photos.values()]
    shuffled = [see(shuffle_tiles(image, 0)) for image in photos.values()]
    assert own_photo(iter(originals), iter(blurred)).value == 1
    shares = [same_class(iter(originals), iter(some)).value for some in (blurred, shuffled)]
    assert shares[0] > shares[1]
    assert np.isfinite(originals[0]).all()
