"""The toy is what notebook 08 builds on its page, and learns what 09 says of it."""

import re

import nbformat
import pytest
import torch
import torch.nn.functional as F

from perco_lite.course import toy
from tests.course.conftest import ROOT


@pytest.fixture(scope="module")
def on_the_page():
    """What notebook 08 defines under the same names."""
    (path,) = (ROOT / "notebooks").glob("08_*.ipynb")
    cells = nbformat.read(path, as_version=4).cells
    names = {"torch": torch, "F": F}
    for cell in cells:
        if re.match(r"WORDS = |def read_back", cell.source):
            exec(cell.source, names)
    return names


def test_the_world_is_that_of_the_page(on_the_page):
    torch.manual_seed(3)
    ours = toy.draw_world(16)
    torch.manual_seed(3)
    theirs = on_the_page["draw_world"](16)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert toy.read_back(*ours) == on_the_page["read_back"](*ours) == (1.0, 1.0)
    assert torch.equal(toy.direction(*ours[:2]), on_the_page["direction"](*ours[:2]))


def test_real_pictures_have_one_direction():
    torch.manual_seed(0)
    pictures, bits, _ = toy.draw_world(64)
    lit = bits.sum((1, 2, 3)) > 0
    share = toy.direction(pictures, bits)[lit]
    assert ((share < 1e-3) | (share > 1 - 1e-3)).all() and 0.2 < share.mean() < 0.8
    mixed = (pictures + pictures.transpose(2, 3)) / 2
    both = toy.direction(mixed[lit], torch.ones_like(bits[lit]))
    assert ((both - 0.5).abs() < 0.2).all()


def test_painting_repeats_and_listens():
    torch.manual_seed(0)
    small = toy.Toy().fit(40, batch=16)
    bits, words = torch.ones(2, 1, 4, 4), torch.tensor([1, 3])
    first = small.paint(bits, words, [5, 5], 2)
    assert first.shape == (2, 3, 8, 8) and torch.equal(first, small.paint(bits, words, [5, 5], 2))
    loud = small.paint(bits, words, [5, 5], 2, guidance_scale=9.0)
    apart, farther = ((p[0] - p[1]).abs().mean() for p in (first, loud))
    assert farther > 2 * apart > 0, "two words, louder: farther apart"
    assert small.loss(8) < 1.0
