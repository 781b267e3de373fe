"""Which layers of the U-Net learn, on a tiny Stable Diffusion: by name, by gradient, and saved."""

import sys

import pytest
import torch
from torch import nn

from perco_lite.full_scale.trained_layers import choose_layers, trained_share, without_adapters
from tests.full_scale.conftest import build


@pytest.fixture
def unet(tiny_stable_diffusion):
    return build(tiny_stable_diffusion, ("0.0313", "0.1250")).unet


def inputs(unet, seed=0):
    random = torch.Generator().manual_seed(seed)
    noisy = torch.randn(2, unet.config.in_channels, 8, 8, generator=random)
    text = torch.randn(2, 5, 32, generator=random)
    given = {"sample": noisy, "timestep": 500, "encoder_hidden_states": text}
    return given | {"class_labels": torch.tensor([0, 1])}


def learning(unet) -> set[str]:
    return {name for name, p in unet.named_parameters() if p.requires_grad}


def test_linear_layers_and_the_first_convolution(unet):
    choose_layers(unet, "linear")
    linear = {f"{n}." for n, m in unet.named_modules() if isinstance(m, nn.Linear)}
    expected = {n for n, _ in unet.named_parameters() if n.startswith(tuple(linear))}
    new = {"conv_in.weight", "conv_in.bias", "class_embedding.weight"}
    assert learning(unet) == expected | new and len(expected) > 20
    assert not any("norm" in name or "conv1" in name for name in learning(unet))
    assert 0 < trained_share(unet) < 1


def test_all(unet):
    choose_layers(unet, "all")
    assert trained_share(unet) == 1


def test_lora_learns_beside_frozen_weights(unet):
    given = inputs(unet)
    with torch.no_grad():
        before = unet(**given).sample
    choose_layers(unet, "lora", rank=2)
    with torch.no_grad():
        assert torch.equal(unet(**given).sample, before), "B is zero at first"
    new = {"conv_in.weight", "conv_in.bias", "class_embedding.weight"}
    assert learning(unet) > new and all("lora_" in name for name in learning(unet) - new)
    for part in ("attn1.to_q", "attn2.to_k", ".ff."):
        assert any(part in name for name in learning(unet)), part
    unet(**given).sample.square().mean().backward()
    assert {n for n, p in unet.named_parameters() if p.grad is not None} == learning(unet)


def test_what_is_saved_of_lora_is_an_ordinary_unet(unet, tmp_path):
    names = set(unet.state_dict())
    choose_layers(unet, "lora", rank=2)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    base = {n: p.clone() for n, p in unet.state_dict().items()}
    plain = without_adapters(unet)
    assert set(plain.state_dict()) == names
    plain.save_pretrained(tmp_path)
    loaded = type(unet).from_pretrained(tmp_path)
    given = inputs(unet)
    with torch.no_grad():
        expected = unet.eval()(**given).sample
        torch.testing.assert_close(loaded(**given).sample, expected, atol=1e-5, rtol=1e-5)
        unet.disable_adapters()
        assert not torch.allclose(unet(**given).sample, expected, atol=1e-2)
    assert all(torch.equal(p, base[n]) for n, p in unet.state_dict().items()), "training goes on"


def test_without_adapters_it_is_the_same_unet(unet):
    assert without_adapters(unet) is unet


def test_other_choices_are_explained(unet, monkeypatch):
    with pytest.raises(ValueError, match="layers is 'conv', expected one of linear, all, lora"):
        choose_layers(unet, "conv")
    with pytest.raises(ValueError, match="lora_rank is 0"):
        choose_layers(unet, "lora", 0)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"LoRA needs peft: pip install 'perco_lite\[train\]'"):
        choose_layers(unet, "lora")
