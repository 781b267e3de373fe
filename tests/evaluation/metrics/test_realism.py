"""FID and KID with a small network of our own, against numpy and scipy."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from perco_lite.evaluation.metrics import realism
from perco_lite.evaluation.metrics.realism import fid, kid, photo_features
from perco_lite.metrics import Unavailable


class Colours(nn.Module):
    """(B,3,H,W) uint8 -> (B,5): mean of each channel, of the left half, and one pixel."""

    def forward(self, pixels):
        assert pixels.dtype == torch.uint8
        x = pixels.double() / 255
        left = x[..., : x.shape[-1] // 2].mean((1, 2, 3))
        return torch.cat([x.mean((2, 3)), left[:, None], x[:, :1, 0, 0]], dim=1)


def photos(count, seed=0, size=(24, 16), high=256):
    draw = np.random.default_rng(seed)
    for _ in range(count):
        base = draw.integers(0, high, 3)
        grain = draw.integers(0, 40, (size[1], size[0], 3))
        yield Image.fromarray((base + grain).clip(0, 255).astype(np.uint8))


def features(images):
    """The same five numbers by numpy: (N,5)."""
    rows = []
    for image in images:
        x = np.asarray(image, float) / 255
        rows.append([*x.mean((0, 1)), x[:, : x.shape[1] // 2].mean(), x[0, 0, 0]])
    return np.array(rows)


def kid_by_the_book(a, b):
    """Unbiased squared MMD with the kernel (x.y / F + 1)^3, sums without x.x pairs."""
    n, m = len(a), len(b)
    kernel = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3  # noqa: E731
    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    within = (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return within - 2 * ab.mean()


def test_kid_is_the_textbooks():
    a, b = list(photos(25)), list(photos(25, seed=1, high=150))
    expected = kid_by_the_book(features(a), features(b))
    assert expected > 0.01
    score = kid(iter(a), iter(b), Colours())
    assert score.value == pytest.approx(expected, rel=1e-4)
    low, high = score.interval
    assert low < score.value < high
    assert "subsets of 25" in score.protocol


class Rows(nn.Module):
    """What torchmetrics takes for a network where the features are already at hand."""

    num_features = 5

    def forward(self, rows):
        return rows


@pytest.mark.parametrize("counts", [(30, 30), (40, 25)])
def test_both_are_torchmetrics(counts, monkeypatch):
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    monkeypatch.setattr(realism, "SMALL_SET", 0)
    sets = list(photos(counts[0])), list(photos(counts[1], seed=1, high=150))
    library = FrechetInceptionDistance(feature=Rows()).set_dtype(torch.float64)
    once = counts[0] == counts[1]
    kernel = KernelInceptionDistance(
        feature=Rows(), subsets=1 if once else 100, subset_size=min(counts)
    )
    for images, real in zip(sets, (True, False), strict=True):
        rows = torch.cat([photo_features(image, Colours()) for image in images]).double()
        library.update(rows, real=real)
        kernel.update(rows, real=real)
    score = fid(*sets, Colours())
    assert score.value == pytest.approx(float(library.compute()), rel=1e-6) and score.value > 0.01
    number = f"{counts[0]} originals ({counts[0]} vectors), {counts[1]} reconstructions"
    assert all(word in score.protocol for word in (number, "Colours", "torchmetrics"))
    torch.manual_seed(0)
    assert kid(*sets, Colours()).value == pytest.approx(float(kernel.compute()[0]), rel=1e-6)


def test_kid_of_sets_of_two_sizes_takes_subsets_always_the_same(monkeypatch):
    a, b = list(photos(12)), list(photos(8, seed=1))
    torch.manual_seed(1)
    first = kid(a, b, Colours())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert kid(a, b, Colours()) == first and first.interval is None
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's dice are touched
    monkeypatch.setattr(realism, "KID_SUBSET", 5)
    assert "subsets of 5" in kid(a, a, Colours()).protocol


def test_equal_sets_are_at_zero():
    a = list(photos(10))
    assert fid(a, a, Colours()).value == pytest.approx(0, abs=1e-6)
    assert kid(a, a, Colours()).value < 1e-6  # unbiased, so slightly below zero


def test_fid_interval_narrows_with_photos(monkeypatch):
    def width(count):
        score = fid(photos(count), photos(count, seed=1, high=200), Colours())
        low, high = score.interval
        assert low < score.value < high
        return high - low

    assert width(160) < 0.6 * width(20)
    monkeypatch.setattr(realism, "SMALL_SET", 10)
    assert fid(photos(11), photos(11), Colours()).interval is None


def test_photos_are_read_one_at_a_time_and_features_can_be_given():
    alive = 0

    class Counted:
        """A photo that knows how many others are waiting."""

        def __init__(self, image):
            nonlocal alive
            alive += 1
            self.image, self.mode = image, image.mode

        def __array__(self, dtype=None, copy=None):
            assert alive <= 2
            return np.array(self.image)

        def __del__(self):
            nonlocal alive
            alive -= 1

    a, b = list(photos(9)), list(photos(9, seed=1))
    score = fid((Counted(image) for image in a), (Counted(image) for image in b), Colours())
    rows = [photo_features(image, Colours()) for image in a]
    assert fid(rows, iter(b), Colours()) == score


def test_patches_are_those_of_ms_illm():
    array = np.arange(6 * 9 * 3).reshape(6, 9, 3).astype(np.uint8)
    seen = []

    class Watch(Colours):
        def forward(self, pixels):
            seen.append(pixels)
            return super().forward(pixels)

    image = Image.fromarray(array)
    rows = photo_features(image, Watch(), patch=4)
    # 6x9: two on the grid, and, as both sides have 1.5 x 4, one from (2, 2) on
    corners = [(0, 0), (0, 4), (2, 2)]
    assert rows.shape == (3, 5)
    for patch, (y, x) in zip(seen[0], corners, strict=True):
        assert np.array_equal(patch.permute(1, 2, 0), array[y : y + 4, x : x + 4])
    assert len(photo_features(image, Colours(), patch=5)) == 1  # 6 < 7.5: no second grid
    score = fid([image] * 2, [image] * 2, Colours(), patch=4)
    assert "4-pixel patches" in score.protocol and "2 originals (6 vectors)" in score.protocol


def test_patches_as_unfold_makes_them():
    """Against torch's unfold, which MS-ILLM's own code uses."""
    pixels = torch.randint(0, 256, (3, 11, 14), dtype=torch.uint8)
    columns = [pixels, pixels[:, 2:, 2:]]
    expected = [
        nn.functional.unfold(c[None].double(), 4, stride=4).permute(0, 2, 1).reshape(-1, 3, 4, 4)
        for c in columns
    ]
    assert torch.equal(realism._patches(pixels, 4).double(), torch.cat(expected))


@pytest.mark.parametrize("metric", [fid, kid])
def test_a_photo_smaller_than_a_patch_is_left_out_and_counted(metric):
    large, small = list(photos(4)), list(photos(2, seed=1, size=(24, 6)))
    others = list(photos(4, seed=2))
    score = metric([*large, *small], [*others, *small], Colours(), patch=8)
    assert score.value == metric(large, others, Colours(), patch=8).value
    assert "6 originals" in score.protocol
    assert "2 of them smaller than a patch and left out" in score.protocol
    assert photo_features(small[0], Colours(), patch=8).shape == (0, 5)


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="mode L, expected RGB"):
        photo_features(Image.new("L", (8, 8)), Colours())
    with pytest.raises(ValueError, match="got patches of 0 pixels"):
        fid(photos(3), photos(3), Colours(), patch=0)
    with pytest.raises(ValueError, match="FID: got 0 20-pixel patches of originals"):
        fid(photos(3), photos(3), Colours(), patch=20)  # all are smaller than a patch
    for metric, name in ((fid, "FID"), (kid, "KID")):
        with pytest.raises(ValueError, match=f"{name}: got 1 vectors of reconstructions, expe"):
            metric(photos(3), photos(1), Colours())
        with pytest.raises(ValueError, match=f"{name}: got 0 vectors of originals"):
            metric([], photos(3), Colours())
    with pytest.raises(ValueError, match=r"made \(1, 3, 16, 24\) of 1 images, expected \(B,F\)"):
        fid(photos(3), photos(3), nn.Identity())


def test_squashed_photos_are_pillows_bicubic():
    seen = []

    class Watch(Colours):
        def forward(self, pixels):
            seen.append(pixels[0])
            return super().forward(pixels)

    image = next(photos(1, size=(40, 24)))
    score = kid([image] * 3, [image] * 3, Watch(), squash=16)
    squashed = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC))
    assert all(np.array_equal(pixels.permute(1, 2, 0), squashed) for pixels in seen)
    assert "whole photos squashed to 16x16" in score.protocol
    assert "unbiased" in score.protocol and "3 originals (3 vectors)" in score.protocol
    assert "biased upwards" in fid([image] * 3, [image] * 3, Colours()).protocol


def test_missing_weights_are_a_reason(monkeypatch):
    def missing():
        raise Unavailable("Inception: no weights")

    monkeypatch.setattr(realism, "load_inception", missing)
    for metric, name in ((fid, "FID"), (kid, "KID")):
        assert metric(photos(3), photos(3)) == (None, f"{name}: Inception: no weights", None)
