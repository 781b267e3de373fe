"""The text encoder's contrastive training: the loss by hand, and that it tells captions apart."""

import pytest
import torch
import torch.nn.functional as F

from conftest import SENTENCES
from perco_lite.captions import build_text_encoder, embed_captions, tokenize, train_tokenizer
from perco_lite.training.text_encoder import TextLoss, TextStage, photo_features

CAPTIONS = [["a red barn", "a barn in a field"], ["two dogs"], ["a man on a wave"], ["snow"]]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([*SENTENCES, *(t for texts in CAPTIONS for t in texts)], 400)


@pytest.fixture
def loss(tokenizer):
    torch.manual_seed(0)
    return TextLoss(build_text_encoder(len(tokenizer), 32, 1, 2))


def test_equals_the_formula_of_clip(loss, tokenizer):
    token_ids = tokenize(tokenizer, ["a red barn", "snow", "two dogs"])
    features = torch.randn(3, 512)
    with torch.no_grad():
        got = loss(token_ids, features)["loss"]
        states = loss.text_encoder(token_ids).last_hidden_state
        text = torch.stack(
            [s[: int((t != 0).sum())].mean(0) for s, t in zip(states, token_ids, strict=True)]
        )
        text, photo = loss.of_text(text), loss.of_photo(features)
        scores = 10 * F.cosine_similarity(text[:, None], photo[None], dim=-1)
        rows = -scores.log_softmax(1).diagonal().mean()
        columns = -scores.log_softmax(0).diagonal().mean()
    torch.testing.assert_close(got, (rows + columns) / 2)


def test_learns_to_find_the_photo_and_keeps_captions_apart(loss, tokenizer):
    features = F.one_hot(torch.arange(4), 512).float()
    stage = TextStage(tokenizer, loss, CAPTIONS, features)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    first = None
    for step in range(60):
        losses = loss(**stage.batch(step, 4, generator))
        first = first or float(losses["loss"].detach())
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses["loss"] < 0.2 * first and losses["own_photo"] == 1
    barn, dogs = embed_captions(tokenizer, loss.text_encoder, ["a red barn", "two dogs"])
    assert (barn - dogs).std() > 0.3 * barn.std()


def test_a_batch_pairs_each_photo_with_one_of_its_captions(loss, tokenizer):
    features = torch.arange(4.0)[:, None].expand(4, 512)
    stage = TextStage(tokenizer, loss, CAPTIONS, features)
    for seed in range(5):
        batch = stage.batch(0, 3, torch.Generator().manual_seed(seed))
        photos = batch["features"][:, 0].long().tolist()
        assert len(set(photos)) == 3, "a photo twice would be its own false answer"
        for photo, ids in zip(photos, batch["token_ids"], strict=True):
            assert any(torch.equal(ids, own) for own in tokenize(tokenizer, CAPTIONS[photo]))


def test_features_are_standardised_and_follow_their_photo():
    class Means:
        def pooled(self, image):
            return image.mean((2, 3))

    class Store:
        photos = [torch.full((3, 20 + 8 * i, 30), 10 * i, dtype=torch.uint8) for i in range(20)]

    features = photo_features(Means(), Store(), [5, 0, 19, 7], side=32)
    assert features.shape == (4, 3)
    torch.testing.assert_close(features.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(3), atol=1e-4, rtol=0)
    assert features[:, 0].argsort().tolist() == [1, 0, 3, 2]
