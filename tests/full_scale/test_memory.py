"""Memory and arithmetic from shapes: against sums by hand, and the published sizes of SD 2.1."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from perco_lite.full_scale.memory import (
    Need,
    build_parts,
    count_flop,
    count_parameters,
    decoding_need,
    most_bytes,
    training_need,
    unet_pass,
)
from perco_lite.full_scale.tiny_checkpoint import SMALL, UNET, VAE
from perco_lite.unet import build_unet

NARROW = {"unet": UNET, "vae": VAE, "text": {**SMALL, "vocab_size": 84}}
NARROW["conditioner"] = {"width": 8, "features": 16, "code_dim": 4}


def meta(*shape, **options):
    return torch.empty(*shape, device="meta", **options)


def test_full_size_has_the_published_numbers_of_weights():
    parts = build_parts(("0.0313",))
    counts = {name: count_parameters(part) for name, part in parts.items()}
    extended = 865_910_724 + 320 * 320 * 9  # and the new channels of the first convolution
    assert counts["unet"] == extended
    assert (counts["autoencoder"], counts["text_encoder"]) == (83_653_863, 340_387_840)
    assert counts["conditioner"] == 4_964_864 + 10_272 + 10_560
    assert not any(count_parameters(part, trained_only=True) for part in parts.values())
    several = build_parts(("0.0019", "0.1250"))["unet"]
    assert count_parameters(several) == extended + 8 * 1280, "an embedding of the rate"


def test_bytes_alive_by_hand():
    layer = nn.Linear(1000, 500, bias=False, device="meta")
    given = meta(10, 1000)

    def chain(keep):
        x = functional.relu(layer(given))  # of 20,000 bytes each, two are alive for a moment
        first = x if keep else None
        for _ in range(3):
            x = functional.relu(x)
        return x, first

    with torch.no_grad():
        assert most_bytes(lambda: layer(given)) == 10 * 500 * 4, "neither weights nor what is given"
        assert most_bytes(lambda: chain(keep=False)) == 2 * 10 * 500 * 4
        assert most_bytes(lambda: chain(keep=True)) == 3 * 10 * 500 * 4
        assert most_bytes(lambda: [functional.relu(given) for _ in range(3)]) == 3 * 40_000
        assert most_bytes(lambda: given.view(-1).t()) == 0, "views hold nothing of their own"
        assert most_bytes(lambda: layer.half()(given.half())) >= 10 * 500 * 2


def test_backward_holds_what_it_needs_and_the_gradients():
    layer = nn.Linear(100, 100, bias=False, device="meta")
    given = meta(10, 100)
    loss = lambda: layer(layer(given).tanh()).sum().backward()  # noqa: E731
    assert most_bytes(loss) >= 2 * 10 * 100 * 4 + 100 * 100 * 4
    assert layer.weight.grad.shape == (100, 100)


def test_attention_holds_no_matrix_of_all_pairs():
    query = meta(1, 2, 500, 16)
    plain = functional.scaled_dot_product_attention
    with torch.no_grad():
        held = most_bytes(lambda: functional.scaled_dot_product_attention(query, query, query))
    assert query.numel() * 4 <= held < 2 * 500 * 500 * 4
    assert functional.scaled_dot_product_attention is plain


def test_arithmetic_by_hand():
    layer = nn.Linear(30, 20, device="meta")
    assert count_flop(lambda: layer(meta(7, 30))) == 2 * 7 * 30 * 20


def test_decoding_takes_weights_and_grows_with_the_photo():
    parts = build_parts(**NARROW)
    weights = sum(count_parameters(part) for part in parts.values())
    small, large = (decoding_need(parts, side, side, 2) for side in (64, 128))
    assert small.weights == large.weights == 2 * weights
    assert 3.5 < large.working / small.working < 4.5, "pixels count"
    assert decoding_need(parts, 64, 64, 4).working == pytest.approx(2 * small.working, rel=0.01)
    assert unet_pass(parts["unet"], 2, 64, 128).shape == (2, 4, 8, 16)


def test_training_counts_what_each_choice_adds():
    def need(**options) -> Need:
        return training_need(build_parts(**NARROW), **{"batch": 1, "crop": 8, **options})

    parts = build_parts(**NARROW)
    frozen = sum(count_parameters(parts[name]) for name in ("autoencoder", "text_encoder"))
    unet, new = count_parameters(parts["unet"]), count_parameters(parts["conditioner"])
    everything = need(layers="all")
    assert everything.weights == 4 * (frozen + unet + new) + 2 * unet + 12 * (unet + new)
    assert need(layers="linear").weights < everything.weights
    fewer_bits = need(layers="all", optimizer="adamw8bit")
    assert everything.weights - fewer_bits.weights == 6 * (unet + new)
    # the VAE's encoder of more photos, the U-Net's pass, or the gradients: whichever is most
    assert need(layers="all", batch=8, crop=16).working > everything.working >= 4 * (unet + new)
    whole = need(batch=8, crop=16, gradient_checkpointing=False)
    assert whole.working >= need(batch=8, crop=16, gradient_checkpointing=True).working


def test_lora_counts_its_own_weights_and_the_copy_that_is_saved():
    pytest.importorskip("peft")
    parts = build_parts(**NARROW)
    before = count_parameters(parts["unet"])
    need = training_need(parts, "lora", lora_rank=2, batch=1, crop=8)
    assert count_parameters(parts["unet"]) > before
    assert need.working >= 2 * before
    assert need.gib == (need.weights + need.working) / 2**30


def test_a_card_keeps_something_for_itself():
    assert Need(12 * 2**30, 2**30).fits(16) and not Need(12 * 2**30, 2 * 2**30).fits(16)


def test_the_lite_unet_passes_too():
    with torch.device("meta"):
        lite = build_unet(16, 192)
    assert unet_pass(lite, 1, 64, 128).shape == (1, 4, 8, 16)
    one, two = (count_flop(lambda n=n: unet_pass(lite, n, 64, 64)) for n in (1, 2))
    assert two == 2 * one
