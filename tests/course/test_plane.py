"""The world of two pixels: what is drawn, what a painter learns, and how it is judged."""

import pytest
import torch

from perco_lite.course import plane


@pytest.fixture(scope="module")
def painter():
    torch.manual_seed(0)
    return plane.Painter().fit(300)


def test_the_world():
    torch.manual_seed(0)
    clean, bit = plane.draw_world(400)
    assert clean.shape == (400, 2) and bit.shape == (400, 1)
    assert torch.cdist(clean, plane.CENTRES).amin(1).max() < 0.3
    assert ((clean[:, 1] > 0) == (bit[:, 0] == 1)).all(), "the bit names the half"
    assert plane.score(clean, clean, bit) == (0.0, 1.0, 8)


def test_the_score_by_hand():
    bit = torch.ones(4, 1)
    painted = torch.stack([plane.CENTRES[0], plane.CENTRES[7], torch.zeros(2), plane.CENTRES[1]])
    error, real, visited = plane.score(painted, plane.CENTRES[:1].expand(4, 2), bit)
    away = (painted - plane.CENTRES[0]).square().sum(1)
    assert error == pytest.approx(away.mean().item())
    assert str(plane.Score(1.234, 0.5, 2)) == "error 1.23, real  50%, clouds visited 2 of 8"
    assert real == 0.5 and visited == 2, "the wrong half and the middle are not real"


def test_one_step_is_the_mean_and_many_are_not(painter):
    torch.manual_seed(1)
    clean, bit = plane.draw_world(500)
    noise = torch.randn(500, 2, 2)
    with torch.no_grad():
        once = painter.few(noise, bit, [999])
    mean = plane.CENTRES[:4].mean(0)
    assert (once[bit[:, 0] == 1] - mean).norm(dim=1).mean() < 0.25
    assert plane.score(once, clean, bit).real < 0.1
    assert plane.score(painter.follow(noise[:, 0], bit), clean, bit).real > 0.2


def test_few_steps_are_the_codecs(painter):
    noise, bit = torch.randn(6, 2, 2), torch.ones(6, 1)
    with torch.no_grad():
        first = painter.guess(noise[:, 0], 999, bit)
        level = painter.alphas[499]
        noisy = level.sqrt() * first + (1 - level).sqrt() * noise[:, 1]
        by_hand = painter.guess(noisy, 499, bit)
        assert torch.allclose(painter.few(noise, bit, [999, 499]), by_hand, atol=1e-5)
