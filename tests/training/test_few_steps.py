"""Stage 3: what each loss teaches and what it must leave alone; collapse, resume, the command."""

import copy
import csv
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import build_tiny_codec, make_photo
from perco_lite import RATES, PercoCodec, perceptual
from perco_lite.training import few_steps
from perco_lite.training.discriminator import (
    TAPS,
    WIDTHS,
    Discriminator,
    hinge_loss,
    painter_loss,
)
from perco_lite.training.few_steps import FewStepLoss, read_few_steps, train_few_steps_recipe
from tests.coding.conftest import make_prior

TIMES = {"0.0019": [999, 499], "0.0098": [999], "0.0313": [999], "0.1250": [999]}


class FakeLpips(nn.Module):
    """Features of LPIPS's shapes by fixed random projections: its weights may not be at hand."""

    def __init__(self, net="squeeze"):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        widths = [*WIDTHS[:3], 384, WIDTHS[3]]
        self.maps = [torch.randn(width, 3, 1, 1, generator=draw) for width in widths]

    def features(self, image):
        pooled = [F.avg_pool2d(image, size) for size in (2, 4, 8, 16, 16)]
        return [F.conv2d(p, w).relu() for p, w in zip(pooled, self.maps, strict=True)]

    def between(self, features, target):
        pairs = zip(features, target, strict=True)
        return sum((a - b).pow(2).mean((1, 2, 3)) for a, b in pairs) / 100


@pytest.fixture
def loss():
    torch.manual_seed(0)
    return FewStepLoss(build_tiny_codec(), FakeLpips(), TIMES, adversarial_from=0).train()


def batch(loss, rate=0, step=None):
    draw = torch.Generator().manual_seed(1)
    ids = loss.diffusion.empty_ids.repeat(2, 1)
    image = torch.rand(2, 3, 64, 64, generator=draw) * 2 - 1
    return {"image": image, "token_ids": ids, "rate": torch.tensor(rate), "step": step}


def touched(loss, value):
    """Names of the parts that get a gradient of ``value``."""
    loss.zero_grad()
    value.backward()
    names = {n for n, p in loss.named_parameters() if p.grad is not None and p.grad.any()}
    return {n.removeprefix("diffusion.").split(".")[0] for n in names}


def test_painter_and_discriminator_do_not_teach_each_other(loss):
    parts = loss(**batch(loss))
    assert touched(loss, parts["critic"]) == {"discriminator"}
    painter = touched(loss, loss(**batch(loss))["painter"])
    assert painter == {"conditioner", "unet", "autoencoder"}
    assert all(p.requires_grad for p in loss.discriminator.parameters())


def test_encoder_codes_and_words_stay_where_asked():
    torch.manual_seed(0)
    loss = FewStepLoss(build_tiny_codec(), FakeLpips(), TIMES, freeze_codes=True).train()
    assert loss.turns == len(TIMES)
    touched(loss, loss(**batch(loss))["loss"])
    stays = ("encoder", "hyper_encoder", "quantizer.project_in", "text_encoder")
    for name, parameter in loss.named_parameters():
        if any(f".{part}." in f".{name}" for part in stays):
            assert not parameter.requires_grad and parameter.grad is None, name
    codebooks = copy.deepcopy([b for n, b in loss.named_buffers() if n.endswith("codebook")])
    loss(**batch(loss))
    after = [b for n, b in loss.named_buffers() if n.endswith("codebook")]
    assert all((a == b).all() for a, b in zip(codebooks, after, strict=True))


def test_what_is_seen_teaches_what_an_index_means(loss):
    before = loss.diffusion.conditioner.branch("0.0019").quantizer.codebook.clone()
    touched(loss, loss(**batch(loss))["lpips"])
    branch = loss.diffusion.conditioner.branch("0.0019")
    assert all(p.grad is not None for p in branch.hyper_encoder.parameters())
    assert (branch.quantizer.codebook != before).any()
    assert all(p.grad is None for p in loss.autoencoder.encoder.parameters()), "not in this turn"
    assert all(p.grad is None for p in loss.diffusion.text_encoder.parameters())


def test_where_bits_have_a_price_codes_keep_their_place(monkeypatch):
    cheap = make_prior(256, 2, scale=0)
    cheap.out_bias[:] = -100 * 256
    cheap.out_bias[7] = 0  # a hundred bits less than any other
    known = {"0.0019": cheap}
    monkeypatch.setattr(few_steps, "find_prior", lambda model_id, rate: known.get(rate))
    torch.manual_seed(0)
    loss = FewStepLoss(build_tiny_codec(), FakeLpips(), TIMES, adversarial_from=0).train()
    branches = {r: loss.diffusion.conditioner.branch(r) for r in ("0.0019", "0.0098")}
    before = {r: b.quantizer.codebook.clone() for r, b in branches.items()}
    chosen = []
    branches["0.0019"].decoder.register_forward_pre_hook(lambda m, a: chosen.append(a[0]))
    touched(loss, loss(**batch(loss))["lpips"])
    assert all(p.grad is not None for p in branches["0.0019"].hyper_encoder.parameters())
    wanted = branches["0.0019"].quantizer.decode(torch.full((2, 1, 1), 7))
    assert torch.allclose(chosen[0], wanted), "the one that costs next to nothing"
    loss(**batch(loss, rate=1))
    assert torch.equal(branches["0.0019"].quantizer.codebook, before["0.0019"])
    assert not torch.equal(branches["0.0098"].quantizer.codebook, before["0.0098"]), "no prior"


def test_the_autoencoder_has_a_turn_of_its_own(loss):
    assert loss.turns == len(TIMES) + 1
    parts = loss(**batch(loss, rate=len(TIMES)))
    assert not parts["latents"], "where it starts"
    assert not parts["painter"] and not parts["velocity"] and parts["lpips"] > 0
    assert touched(loss, parts["loss"]) == {"autoencoder"}
    assert any(p.grad.any() for p in loss.autoencoder.encoder.parameters())
    with torch.no_grad():
        for parameter in loss.autoencoder.encoder.parameters():
            parameter.add_(0.1)
    assert loss(**batch(loss, rate=len(TIMES)))["latents"] > 0


def test_what_is_painted_is_what_the_codec_paints(loss, monkeypatch):
    """The training's steps are the sampler's: same noise, same latents."""
    from perco_lite.sampling import denoise

    loss.eval()
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor(1))  # both steps
    codec, rate = loss.diffusion, loss.diffusion.rates[0]
    condition = torch.randn(1, codec.conditioner.channels, 8, 8)
    torch.manual_seed(3)
    ours = loss.paint(condition, codec.empty_ids, rate)
    torch.manual_seed(3)
    noise = torch.randn(1, 2, 4, 8, 8)
    text = few_steps.embed(codec.text_encoder, codec.empty_ids)
    ids = torch.tensor([RATES.index(rate)])
    inputs = codec.unet, codec.scheduler, noise, condition, text, text, ids
    torch.testing.assert_close(ours, list(denoise(*inputs, TIMES[rate.name]))[-1].latents)


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("rate", [0, 3])
def test_a_few_dozen_steps_bring_the_pictures_closer(rate, freeze):
    torch.manual_seed(0)
    options = {"adversarial_weight": 0, "freeze_codes": freeze}
    loss = FewStepLoss(build_tiny_codec(), FakeLpips(), TIMES, **options).train()
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], 3e-3)
    seen = []
    for _ in range(60):
        parts = loss(**batch(loss, rate))
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        seen.append(float(parts["means"].detach()))
    assert sum(seen[-5:]) < 0.9 * sum(seen[:5])


def test_the_discriminator_learns_to_tell_noise_from_waves():
    torch.manual_seed(0)
    critic, lpips = Discriminator(), FakeLpips()
    waves = torch.linspace(0, 20, 64).sin().expand(4, 3, 64, 64)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3)
    for _ in range(40):
        noise = torch.rand(4, 3, 64, 64) * 2 - 1
        judged = [critic(x, lpips.features(x)) for x in (noise, waves)]
        loss = hinge_loss(*judged)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.8
    noise, photo = (float(painter_loss(j)) for j in judged)
    assert noise > photo, "what looks painted costs the painter more"


def test_hinge_by_hand():
    painted, photo = [torch.tensor([-3.0, 0.0])], [torch.tensor([0.5, 2.0])]
    assert hinge_loss(painted, photo) == pytest.approx((0 + 1) / 2 + (0.5 + 0) / 2)
    assert painter_loss(painted) == pytest.approx(1.5)


def test_no_discriminator_before_its_step(loss):
    loss.adversarial_from = 10
    early, late = (loss(**batch(loss, step=step)) for step in (9, 10))
    assert float(early["critic"]) == float(early["painter"]) == 0 < float(late["critic"])


def test_a_collapsed_discriminator_stops_the_run(loss):
    loss.hinge.fill_(few_steps.COLLAPSED / 2)
    photo = batch(loss)["image"]
    loss.discriminator.forward = lambda image, features: [
        torch.full((1,), 5.0 if any((image[0, 0, 0, 0] == p).any() for p in photo) else -5.0)
    ]
    with pytest.raises(FloatingPointError, match="lower --adversarial-weight"):
        loss(**batch(loss))


@pytest.mark.parametrize("text", ["0.5:1", "0.0019", "0.0019:0", "0.0019:5", "0.0019:two"])
def test_few_steps_that_make_no_sense(text):
    with pytest.raises(ValueError, match="expected RATE:STEPS, of 0.0019, 0.0098, .* and 1 to 4"):
        read_few_steps(text, tuple(TIMES))


def test_few_steps_of_each_rate():
    assert read_few_steps("0.0019:2", tuple(TIMES)) == TIMES
    assert read_few_steps("", tuple(TIMES))["0.0019"] == [999]
    assert read_few_steps("0.0313:4", tuple(TIMES))["0.0313"] == [999, 749, 499, 249]


@pytest.fixture
def recipe(tmp_path, monkeypatch, tiny_weights):
    """Run the recipe on six small photos."""
    monkeypatch.setattr(few_steps, "Lpips", FakeLpips)
    monkeypatch.setattr(few_steps, "preview_sheet", None)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        make_photo(80, 72, seed=number).save(folder / f"{number}.png")

    def run(output="run", **options):
        options = {"batch_size": 2, "crop": 64, "start": str(tiny_weights)} | options
        return train_few_steps_recipe(folder, tmp_path / output, **options)

    return run


def test_the_recipe_makes_weights_that_paint_fast_and_resumes_exactly(recipe, tmp_path):
    options = {"adversarial_from": 1, "few_steps": "0.0019:2"}
    recipe(steps=3, **options)
    recipe("cut", steps=3, minutes=1e-9, **options)
    while json.loads((tmp_path / "cut/summary.json").read_text())["steps"] < 3:
        recipe("cut", steps=3, minutes=1e-9, **options)
    whole, cut = (PercoCodec.from_pretrained(tmp_path / n / "weights") for n in ("run", "cut"))
    assert whole.config.few_steps == TIMES
    for part in ("unet", "conditioner", "autoencoder"):
        states = [getattr(codec, part).state_dict() for codec in (whole, cut)]
        assert all((states[0][n] == states[1][n]).all() for n in states[0]), part
    photo = make_photo(64, 64)
    file = whole.compress(photo, "a cat", "0.0019")
    whole.set_progress_bar_config(disable=True)
    assert whole.decompress(file, sampler="fast").size == (64, 64)


def test_half_precision_counts_losses_in_full(recipe, tmp_path):
    recipe(steps=2, adversarial_from=0, mixed_precision="bf16")
    with (tmp_path / "run/log.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2
    for name in ("lpips", "critic"):  # of bfloat16 seven bits are left
        values = torch.tensor([float(row[name]) for row in rows])
        assert (values > 0).all() and (values != values.bfloat16()).any(), name


def test_files_of_before_are_read_by_the_weights_after(recipe, tmp_path, tiny_weights):
    before = PercoCodec.from_pretrained(tiny_weights)
    file = before.compress(make_photo(64, 64), "", "0.0313")
    recipe(steps=2, adversarial_weight=0.0, freeze_codes=True)
    after = PercoCodec.from_pretrained(tmp_path / "run/weights")
    assert after.model_id == before.model_id
    assert after.compress(make_photo(64, 64), "", "0.0313") == file


def test_a_loss_that_is_not_finite_names_the_checkpoint(recipe, monkeypatch):
    monkeypatch.setattr(FakeLpips, "between", lambda self, a, b: torch.tensor([math.nan]))
    with pytest.raises(FloatingPointError, match=r"last good checkpoint is .*run/checkpoint"):
        recipe(steps=2)


def test_crops_hold_whole_indices(recipe):
    with pytest.raises(ValueError, match="multiple of 8"):
        recipe(steps=1, crop=96)


def test_features_compared_are_lpips_itself():
    try:
        lpips = perceptual.Lpips("squeeze")
    except (ImportError, OSError) as error:
        pytest.skip(f"LPIPS is not at hand: {error}")
    a, b = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    maps = list(lpips.features(a)), list(lpips.features(b))
    torch.testing.assert_close(lpips.between(*maps), lpips(a, b))
    assert [maps[0][tap].shape[1] for tap in TAPS] == list(WIDTHS)
    assert [maps[0][tap].shape[-1] for tap in TAPS] == [31, 15, 7, 3]
