"""What the tests of captions share: an untrained captioner of six words."""

import pytest
import torch

from perco_lite.captioning.captioner import Captioner
from perco_lite.captioning.decoder import CaptionDecoder
from perco_lite.captioning.photo_features import PhotoFeatures

WORDS = [" a", " dog", " runs", " on", " grass", "'s"]


@pytest.fixture
def captioner():
    torch.manual_seed(0)
    eyes = PhotoFeatures()
    for convolution in (m for m in eyes.modules() if isinstance(m, torch.nn.Conv2d)):
        torch.nn.init.kaiming_normal_(convolution.weight)  # else a photo fades on its way
    decoder = CaptionDecoder(len(WORDS) + 2, width=16, heads=2, inner=24, longest=8)
    return Captioner(eyes, decoder, WORDS)
