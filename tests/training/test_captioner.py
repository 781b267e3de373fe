"""The captioner's training: photos are cached once, it learns what it is shown, and goes on."""

import csv
import io
import json
import tarfile

import pytest
import torch

from perco_lite.captioning import Captioner
from perco_lite.captioning.captioner import search
from perco_lite.captioning.photo_features import PhotoFeatures
from perco_lite.training import caption_photos, captioner
from perco_lite.training.caption_photos import CaptionPhotos, cache_features
from perco_lite.training.captioner import (
    CaptionerStage,
    CaptionLoss,
    choose_words,
    draw,
    train_captioner_recipe,
)
from perco_lite.training.settings import CaptionerSettings
from tests.training.conftest import waves

TEXTS = ["A dog runs on the grass.", "Two dogs run on the grass."]
SIZES = {"width": 16, "heads": 2, "inner": 16, "longest": 8}


@pytest.fixture
def small(monkeypatch):
    """Decoders of a few thousand numbers."""
    real = captioner.CaptionDecoder
    monkeypatch.setattr(
        captioner, "CaptionDecoder", lambda vocabulary, dropout: real(vocabulary, **SIZES)
    )


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A captioner of random features, for its eyes."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("start")
    decoder = captioner.CaptionDecoder(3, **SIZES)
    Captioner(PhotoFeatures(), decoder, [" a"]).save_pretrained(folder)
    return folder


def shard(path, keys):
    with tarfile.open(path, "w") as tar:
        for number, key in enumerate(keys):
            stream = io.BytesIO()
            waves(40, 30, number).save(stream, "PNG")
            texts = [] if key == "none" else TEXTS
            about = json.dumps({"captions": texts}).encode()
            for suffix, data in (("png", stream.getvalue()), ("json", about)):
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def data(tmp_path):
    (tmp_path / "train").mkdir()
    names = [*(f"p{n}" for n in range(6)), "none", "measured", "native-measured"]
    shard(tmp_path / "train" / "a.tar", names)
    return tmp_path / "train"


def test_features_are_cached_once_and_held_out_keys_never(data, tmp_path, monkeypatch):
    eyes, folder = PhotoFeatures(), tmp_path / "cache"
    photos = cache_features(eyes, data, folder, {"measured"})
    assert photos.keys == [f"p{n}" for n in range(6)] and photos.captions == [TEXTS] * 6
    seen = photos.features([4, 4], [0, 1])
    assert seen.shape == (2, 49, 1280) and 0 <= seen.min() and seen.max() <= 6
    monkeypatch.setattr(caption_photos, "_see", None)
    again = cache_features(eyes, data, folder, {"measured"})
    assert again.keys == photos.keys and torch.equal(again.features([4, 4], [0, 1]), seen)
    with pytest.raises(TypeError):  # other photos, other features: computed anew
        cache_features(eyes, data, folder)


def test_stored_features_are_within_half_a_step(data, tmp_path):
    eyes = PhotoFeatures()
    torch.nn.init.constant_(eyes.head.bias, 1.0)
    photos = cache_features(eyes, data, tmp_path / "cache")
    whole = eyes(caption_photos.squash([waves(40, 30, 0)]))
    assert (photos.features([0], [0]) - whole).abs().max() <= 6 / 255 / 2 + 1e-5


def test_photos_without_captions_are_no_use(tmp_path):
    (tmp_path / "train").mkdir()
    shard(tmp_path / "train" / "a.tar", ["none"])
    with pytest.raises(ValueError, match="no photo with a caption"):
        cache_features(PhotoFeatures(), tmp_path / "train", tmp_path)


def test_words_are_the_coder_s_and_often_said():
    texts = [["A dog runs", "a dog"], ["A xqzt dog", "xqzt xqzt"]]
    assert choose_words(texts, 2) == [" a", " dog"]
    assert choose_words(texts, 1) == [" a", " dog", " runs"]


def test_loss_by_hand():
    decoder = captioner.CaptionDecoder(5, **SIZES).eval()
    features, nothing = torch.rand(1, 49, 1280), torch.zeros(0)
    targets = torch.tensor([[2, 1, 0, -100], [3, 4, 2, 0]])  # 1: an unknown word
    before = torch.tensor([[0, 2, 1, 0], [0, 3, 4, 2]])
    hidden, _ = decoder(decoder.look(features), before)
    shares = decoder.score(hidden).log_softmax(-1)
    said = [(0, 0, 2), (0, 2, 0), (1, 0, 3), (1, 1, 4), (1, 2, 2), (1, 3, 0)]
    nats = torch.stack([-shares[row, at, word] for row, at, word in said])
    even = torch.stack([-shares[row, at].mean() for row, at, _ in said])
    losses = CaptionLoss(decoder, 0.1)(features, targets, nothing, nothing.sum())
    assert losses["nats_per_word"].item() == pytest.approx(nats.mean().item(), rel=1e-4)
    expected = 0.9 * nats.mean() + 0.1 * even.mean()
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    better = torch.tensor([2.0, -1.0])  # the first caption was better than the second
    losses = CaptionLoss(decoder, 0.1)(features, targets, better, nothing.sum())
    expected = (2 * nats[:2].sum() - nats[2:].sum()) / 6
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-4)


def stage(tmp_path, **changes):
    """Two photos that can be told apart, of which each has a caption of its own."""
    stored = torch.zeros(2, 2, 49, 1280, dtype=torch.uint8)
    stored[0, ..., :640], stored[1, ..., 640:] = 99, 99
    photos = CaptionPhotos(["p0", "p1"], [[TEXTS[0]] * 5, [TEXTS[1]] * 5], stored.numpy())
    torch.manual_seed(0)
    words = choose_words(photos.captions, 1)
    decoder = captioner.CaptionDecoder(len(words) + 2, **SIZES, dropout=0.0)
    settings = CaptionerSettings(output=tmp_path, **changes)
    return CaptionerStage(Captioner(PhotoFeatures(), decoder, words), photos, settings)


def learn(stage, steps, rate):
    optimizer = torch.optim.Adam(stage.module.parameters(), rate)
    stage.module.train()
    for step in steps:
        losses = stage.module(**stage.batch(step, 2, torch.Generator().manual_seed(step)))
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
    stage.module.eval()
    return losses


def test_it_learns_to_tell_two_photos_apart(tmp_path):
    toy = stage(tmp_path, steps=200, reward_steps=0)
    losses = learn(toy, range(150), 5e-3)
    assert losses["nats_per_word"] < 0.2 and losses["reward"] == 0
    lines = search(toy.captioner.decoder, toy.photos.features([0, 1], [0, 1]))
    assert [toy.captioner.sentence(line) for line in lines] == TEXTS


def test_rewards_teach_it_further(tmp_path):
    toy = stage(tmp_path, steps=400, reward_steps=340)
    learn(toy, range(60), 2e-3)

    def mean_reward():
        torch.manual_seed(1)
        features = toy.photos.features([0, 1], [0, 0])
        texts = draw(toy.captioner.decoder, features, 20)
        assert all(0 not in text[:-1] and 1 not in text for text in texts)
        return sum(toy.rewards.score(i // 20, text) for i, text in enumerate(texts)) / 40

    before = mean_reward()
    losses = learn(toy, range(60, 160), 2e-3)
    assert mean_reward() > before and losses["reward"] > 0


def test_from_photos_to_a_folder_and_on(data, tmp_path, start, small, monkeypatch):
    monkeypatch.setattr(caption_photos, "HELD_OUT", 2)
    options = {"data": data, "output": tmp_path / "out", "steps": 3, "batch_size": 2}
    options |= {"warmup_steps": 1, "rarest": 1, "features": None, "reward_steps": 1}
    monkeypatch.setattr(captioner, "BUNDLED", start)
    summary = train_captioner_recipe(**options)
    assert summary["steps"] == 3
    trained = Captioner.from_pretrained(tmp_path / "out" / "weights")
    assert " dog" in trained.words and trained(waves(40, 30, 0)) is not None
    with (tmp_path / "out" / "held_out.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert row["step"] == "3" and 0 <= float(row["cider_d"]) <= 10
    assert (tmp_path / "out" / "preview.txt").read_text().startswith("p")
    with pytest.warns(UserWarning, match="--steps was 3, is 5"):
        assert train_captioner_recipe(**options | {"steps": 5})["steps"] == 5
    again = options | {"output": tmp_path / "again", "start": str(tmp_path / "out" / "weights")}
    train_captioner_recipe(**again)
    assert Captioner.from_pretrained(tmp_path / "again" / "weights").words == trained.words


def test_the_photos_for_measuring_are_found(tmp_path, monkeypatch):
    (tmp_path / "val").mkdir()
    shard(tmp_path / "val" / "a.tar", ["measured", "native-other"])
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    assert captioner.held_out_keys() == {"measured", "other"}


def test_missing_features_say_where_they_come_from(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="efficientnet-lite0-57934424.pth is in"):
        train_captioner_recipe(data, tmp_path, features=str(tmp_path / "none.pth"))
    (tmp_path / "foreign.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="foreign.pth does not load"):
        train_captioner_recipe(data, tmp_path, features=str(tmp_path / "foreign.pth"))
