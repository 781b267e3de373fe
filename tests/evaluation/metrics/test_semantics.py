"""CLIP score and mIoU: drawn masks by hand; tiny random networks in the format of real ones."""

import json
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perco_lite.evaluation.metrics.semantics import (
    confusion,
    label_map,
    load_clip,
    load_segmenter,
    miou,
)
from perco_lite.metrics import Unavailable


def noise(size=(40, 30), seed=0):
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(array)


def prepared(folder, kind, **settings):
    """The folder, with a file of what is done to a photo before the network sees it."""
    settings = {"image_processor_type": kind, "do_resize": True, "do_normalize": True, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """CLIP of a few thousand random parameters, laid out as openai/clip-vit-base-patch32 is."""
    from transformers import CLIPConfig, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    small["num_attention_heads"] = 2
    tokens = [*"abdegnor", *(c + "</w>" for c in "abdegnor"), "<|startoftext|>", "<|endoftext|>"]
    start, end = len(tokens) - 2, len(tokens) - 1
    marks = {"bos_token_id": start, "eos_token_id": end}
    text = {**small, **marks, "vocab_size": len(tokens), "max_position_embeddings": 12}
    vision = {**small, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    torch.manual_seed(2)  # with cosines above zero, where a score can be compared
    CLIPModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    specials = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    specials |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 12, **specials})
    )
    processor = {"size": 32, "resample": 3, "do_center_crop": True, "crop_size": 32}
    processor |= {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    return prepared(folder, "CLIPImageProcessor", **processor)


@pytest.fixture(scope="module")
def segmenter_folder(tmp_path_factory):
    """A SegFormer of a few thousand random parameters, laid out as nvidia's are."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    folder = tmp_path_factory.mktemp("segmenter")
    blocks = {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "strides": [4, 2]}
    blocks |= {"hidden_sizes": [8, 16], "patch_sizes": [7, 3], "decoder_hidden_size": 16}
    blocks |= {"num_attention_heads": [1, 2], "mlp_ratios": [2, 2], "num_labels": 3}
    labels = {0: "wall", 1: "person", 2: "dining table"}
    numbers = {name: number for number, name in labels.items()}
    config = SegformerConfig(**blocks, id2label=labels, label2id=numbers)
    torch.manual_seed(3)
    SegformerForSemanticSegmentation(config).save_pretrained(folder)
    processor = {"size": {"height": 64, "width": 64}, "resample": 2, "do_reduce_labels": False}
    processor |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    return prepared(folder, "SegformerImageProcessor", **processor)


class TensorsOnly:
    """CLIP as torchmetrics knows it: transformers 5 wraps the features in an object."""

    def __init__(self, model):
        self.model, self.config = model.eval(), model.config

    def to(self, device):
        return self

    def get_image_features(self, pixels):
        out = self.model.get_image_features(pixels)
        return getattr(out, "pooler_output", out).detach()

    def get_text_features(self, ids, mask):
        out = self.model.get_text_features(ids, mask)
        return getattr(out, "pooler_output", out).detach()


def test_clip_score_agrees_with_torchmetrics(clip_folder):
    from torchmetrics.functional.multimodal import clip_score
    from transformers import CLIPModel, CLIPProcessor

    clip = load_clip(str(clip_folder))
    model = TensorsOnly(CLIPModel.from_pretrained(clip_folder))
    processor = CLIPProcessor.from_pretrained(clip_folder)
    image = noise((50, 40))  # to be resized and cut
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    captions = ("a red dog", "a barn")
    theirs = [float(clip_score(tensor, c, lambda: (model, processor))) for c in captions]
    assert [clip(image, c) for c in captions] == pytest.approx(theirs, abs=1e-3)
    assert min(theirs) > 0 and abs(theirs[0] - theirs[1]) > 0.1, "it read the captions"
    assert str(clip_folder) in clip.protocol and "shortest_edge 32" in clip.protocol


def test_clip_cuts_long_captions_and_names_missing_ones(clip_folder):
    clip = load_clip(str(clip_folder))
    long = clip(noise(), "a red dog " * 30)
    assert long == pytest.approx(clip(noise(), "a red dog " * 40), abs=1e-4)
    assert clip(noise(), " ") is None
    with pytest.raises(ValueError, match="mode L"):
        clip(noise().convert("L"), "a dog")


@pytest.mark.parametrize("load", [load_clip, load_segmenter])
def test_weights_that_do_not_load_are_a_reason(load, tmp_path, monkeypatch):
    monkeypatch.delenv("PERCO_LITE_DOWNLOAD", raising=False)
    for path in (str(tmp_path / "missing"), "nobody/has-such-weights"):
        with pytest.raises(Unavailable) as caught:
            load(path)
        reason = str(caught.value)
        assert path in reason and "PERCO_LITE_DOWNLOAD=1" in reason and "\n" not in reason


def test_segmenter_gives_a_label_map_of_the_photo(segmenter_folder):
    from transformers import SegformerForSemanticSegmentation

    segmenter = load_segmenter(str(segmenter_folder))
    assert segmenter.classes == 3
    assert segmenter.labels[1] == "person"
    image = noise((64, 64))  # the size it takes: nothing to resize
    labels = segmenter(image)
    model = SegformerForSemanticSegmentation.from_pretrained(segmenter_folder).eval()
    pixels = (np.asarray(image) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        logits = model(torch.tensor(pixels).float().permute(2, 0, 1)[None]).logits
    up = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    assert (labels == up[0].argmax(0).numpy()).mean() > 0.999
    assert len(np.unique(labels)) > 1
    assert segmenter(noise((70, 50))).shape == (50, 70)
    assert "64" in segmenter.protocol and "3 classes" in segmenter.protocol


def test_miou_by_hand():
    truth = np.zeros((4, 4), np.uint8)
    truth[:, 2:] = 1
    truth[0, 0] = 255  # 7 pixels of class 0, 8 of class 1, one unknown
    prediction = np.zeros((4, 4), np.int64)
    prediction[:, 3] = 1  # half of class 1 found
    # class 0: 7 common of 7 + 4; class 1: 4 common of 8; class 2 does not occur
    score = miou(prediction, truth, classes=3)
    assert score.value == pytest.approx((7 / 11 + 4 / 8) / 2)
    assert score.interval is None
    prediction[3, 3] = 2  # occurs in the prediction alone: an intersection of nothing
    assert miou(prediction, truth, 3).value == pytest.approx((7 / 11 + 3 / 8 + 0) / 3)
    assert confusion(prediction, truth, 3).tolist() == [[7, 0, 0], [4, 3, 1], [0, 0, 0]]


def test_miou_of_a_set_counts_pixels_together():
    ones, zeros = np.ones((2, 2), int), np.zeros((2, 2), int)
    # class 1: 4 of 8, class 0: 0 of 4; the mean over photos would be (1 + 0) / 2
    score = miou([ones, ones], [ones, zeros], classes=2, protocol="drawn")
    assert score.value == pytest.approx((4 / 8 + 0 / 4) / 2)
    assert score.interval == (0, 1)  # the first photo twice, or the second
    assert "2 photos" in score.protocol and "drawn" in score.protocol
    nothing = miou(ones, np.full((2, 2), 255), 2)
    assert nothing.value is None and "no pixel has a label" in nothing.protocol
    assert miou([], [], 2).value is None


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_miou_is_one_for_equal_maps_and_the_same_for_renamed_classes(classes, seed):
    draw = np.random.default_rng(seed)
    a, b = draw.integers(0, classes, (2, 9, 7))
    assert miou(a, a, classes).value == 1
    names = draw.permutation(classes)
    score = miou(a, b, classes).value
    assert 0 <= score <= 1
    assert miou(names[a], names[b], classes).value == pytest.approx(score)
    assert miou(b, a, classes).value == pytest.approx(score)  # symmetric where all is labelled


def test_miou_errors_say_what_to_do():
    ones = np.ones((2, 2), int)
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        miou(ones, np.ones((2, 3), int), 2)
    with pytest.raises(ValueError, match="1..1 in the prediction, expected 0..0"):
        miou(ones, np.zeros((2, 2), int), 1)
    with pytest.raises(ValueError, match="-1..-1 in the truth"):
        miou(ones, -ones, 2)


def test_coco_instances_become_a_label_map():
    labels = {0: "wall", 1: "person, individual", 2: "dining table", 3: "television receiver"}
    square = [[1, 1, 4, 1, 4, 3, 1, 3]]  # x 1..4, y 1..3, edges included
    runs = {"size": [6, 8], "counts": [6 * 7, 6]}  # the last column
    annotations = [
        {"category": "person", "segmentation": square},
        {"category": "dining table", "segmentation": [[0, 0, 5, 0, 5, 5, 0, 5]]},
        {"category": "tv", "segmentation": runs},
        {"category": "zebra", "segmentation": [[6, 0, 6, 5, 6, 5]]},
    ]
    expected = np.full((6, 8), 255)
    expected[0:6, 0:6] = 2
    expected[1:4, 1:5] = 1  # small ones on top
    expected[:, 7] = 3
    assert (label_map(annotations, (8, 6), labels) == expected).all()


@pytest.mark.parametrize("load", [load_clip, load_segmenter])
@pytest.mark.parametrize(("setting", "offline"), [("0", True), ("1", False)])
def test_nothing_is_downloaded_unasked(load, setting, offline, monkeypatch, tmp_path):
    fake, auto = MagicMock(), ("AutoModelForSemanticSegmentation", "AutoImageProcessor")
    for name in ("CLIPModel", "CLIPProcessor", *auto):
        monkeypatch.setattr(f"transformers.{name}.from_pretrained", fake)
    monkeypatch.setenv("PERCO_LITE_DOWNLOAD", setting)
    load(str(tmp_path))
    assert [call.kwargs for call in fake.call_args_list] == 2 * [{"local_files_only": offline}]
