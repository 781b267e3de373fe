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
from perco_lite.captions import tokenize
from perco_lite.training import few_steps
from perco_lite.training.caption_loss import HEARD, MARGIN, caption_loss
from perco_lite.training.discriminator import (
    COLLAPSED,
    TAPS,
    WIDTHS,
    Discriminator,
    hinge_loss,
    painter_loss,
)
from perco_lite.training.few_steps import (
    CAPTION_PHOTOS,
    FewStepLoss,
    FewStepStage,
    read_few_steps,
    train_few_steps_recipe,
)
from perco_lite.training.photos import PhotoStore
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
    assert touched(loss, parts["critic"]) == {"judge"}
    painter = touched(loss, loss(**batch(loss))["painter"])
    assert painter == {"conditioner", "unet", "autoencoder"}
    assert all(p.requires_grad for p in loss.judge.discriminator.parameters())


def test_encoder_codes_and_words_stay_where_asked():
    torch.manual_seed(0)
    loss = FewStepLoss(build_tiny_codec(), FakeLpips(), TIMES, freeze_codes=True).train()
    touched(loss, loss(**batch(loss))["loss"])
    own = loss(**batch(loss, rate=len(TIMES)))
    assert not own["latents"] and own["lpips"] > 0
    assert touched(loss, own["lpips"]) == {"autoencoder"}, "its decoder has a turn all the same"
    stays = ("encoder", "hyper_encoder", "quantizer.project_in", "text_encoder")
    for name, parameter in loss.named_parameters():
        if any(f".{part}." in f".{name}" for part in stays):
            assert not parameter.requires_grad and parameter.grad is None, name
    codebooks = copy.deepcopy([b for n, b in loss.named_buffers() if n.endswith("codebook")])
    loss(**batch(loss))
    after = [b for n, b in loss.named_buffers() if n.endswith("codebook")]
    assert all((a == b).all() for a, b in zip(codebooks, after, strict=True))


def test_a_weave_in_what_is_painted_costs_where_asked(loss, monkeypatch):
    """In every turn, the autoencoder's own too."""
    asked = []
    monkeypatch.setattr(few_steps, "spectrum_loss", lambda a, b: asked.append(a) or a.sum() * 0 + 3)
    for rate in range(len(TIMES) + 1):
        sums = []
        for weight in (0.0, 100.0):
            loss.pattern_weight = weight
            torch.manual_seed(1)
            parts = loss.eval()(**batch(loss, rate=rate))
            assert parts["spectrum"] == 3
            sums.append(float(parts["loss"]))
        assert sums[1] - sums[0] == pytest.approx(300, rel=1e-3)
    assert len(asked) == 2 * (len(TIMES) + 1)


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
    assert loss.order.count(len(TIMES)) == 1
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


def test_the_discriminator_learns_alone_before_its_step(loss):
    loss.adversarial_from = 10
    for step, heeded in ((9, 0), (10, 1)):
        torch.manual_seed(2)
        parts = loss(**batch(loss, step=step))
        assert touched(loss, parts["critic"]) == {"judge"}
        torch.manual_seed(2)
        parts = loss(**batch(loss, step=step))
        weights = few_steps.WEIGHTS[64]
        known = parts["lpips"] + parts["means"] + weights.l1 * parts["l1"] + parts["critic"]
        known = (
            known + weights.lattice * parts["lattice"] + few_steps.COARSE_WEIGHT * parts["coarse"]
        )
        known = known + few_steps.LATENTS_WEIGHT * (parts["velocity"] + parts["regression"])
        rest = loss.adversarial_weight * weights.adversarial * parts["painter"]
        assert float(parts["painter"].detach()) != 0
        assert float(parts["loss"]) == pytest.approx(float(known + heeded * rest), rel=1e-5)


def test_no_weight_no_discriminator(loss):
    loss.adversarial_weight = 0.0
    parts = loss(**batch(loss))
    assert float(parts["critic"]) == float(parts["painter"]) == 0


def test_repetition_is_looked_for_in_cells_of_both_sizes(loss, monkeypatch):
    seen = []
    one = torch.tensor(1.0)
    monkeypatch.setattr(few_steps, "lattice_loss", lambda a, b, cell: seen.append(cell) or one)
    loss(**batch(loss))
    assert seen == [16], "of 64 pixels no cell of 32 is seen four times"
    large = torch.rand(2, 3, 128, 128) * 2 - 1
    parts = loss(**batch(loss) | {"image": large})
    assert seen[1:] == [16, 32] and parts["lattice"] == 2


@pytest.fixture
def reader():
    torch.manual_seed(0)
    return FewStepLoss(build_tiny_codec(), FakeLpips(), TIMES, caption_weight=2.0).train()


def captions(loss, codec):
    return {**batch(loss, loss.caption_turn), "token_ids": tokenize(codec.tokenizer, ["a", "dog"])}


def test_rounds_have_the_turns_that_the_weights_say(loss, reader):
    assert loss.order == [0, 1, 2, 3, 4, 0, 2]
    assert reader.order == [0, 1, 2, 3, 4, 5, 0, 2, 5]


def test_captions_teach_the_text_encoder_and_the_unet(reader):
    codec = build_tiny_codec()
    parts = reader(**captions(reader, codec))
    names = ("rate", *few_steps.COLUMNS)
    assert tuple(parts) == names == tuple(reader(**batch(reader)))
    wanted = 2 * float(parts["velocity"] + HEARD * parts["unheard"])
    assert float(parts["loss"]) == pytest.approx(wanted)
    assert {"unet", "text_encoder"} == touched(reader, parts["loss"])


def test_what_is_unheard_by_hand(reader):
    """A network that does not read is off by the margin; one that does, by what is left of it."""
    diffusion, rate = reader.diffusion, reader.rates[0]
    latents, ids = torch.zeros(2, 4, 8, 8), torch.tensor([[3], [5]])
    noise, timestep = torch.zeros_like(latents), torch.tensor([999, 999])
    diffusion.draw = lambda latents: (timestep, noise, None)
    rows = iter([0.0, 0.0, 0.0, 0.1])  # the error of each, own first
    text = torch.tensor([1.0, 2.0])[:, None, None]
    diffusion.text_encoder.forward = lambda ids: type("T", (), {"last_hidden_state": text})
    given = []

    def predict(noisy, timestep, condition, text, rate):
        given.append(text.flatten().tolist())
        return torch.stack([torch.full((4, 8, 8), next(rows)) for _ in range(4)])

    diffusion.predict = predict
    parts = caption_loss(diffusion, latents, ids, latents, rate)
    assert given == [[1, 2, 2, 1]], "own, then the other's"
    assert float(parts["velocity"]) == 0
    assert float(parts["unheard"]) == pytest.approx(MARGIN - 0.1**2 / 2)
    with pytest.raises(ValueError, match="got 1 photo, expected at least 2"):
        caption_loss(diffusion, latents[:1], ids[:1], latents[:1], rate)


def test_captions_come_to_be_heard(reader):
    """Two photos, two captions, the same grid: a few dozen turns tell them apart."""
    codec = build_tiny_codec()
    options = captions(reader, codec)
    options["image"] = options["image"] * 0 + torch.tensor([0.8, -0.8]).view(2, 1, 1, 1)
    optimizer = torch.optim.Adam([p for p in reader.parameters() if p.requires_grad], 2e-3)
    seen = []
    for _ in range(60):
        parts = reader(**options)
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        seen.append(float(parts["unheard"].detach()))
    assert sum(seen[-10:]) < 0.5 * sum(seen[:10])


def test_the_captions_turn_draws_photos_that_have_one(reader, tmp_path):
    for number in range(4):
        make_photo(80, 72, seed=number).save(tmp_path / f"{number}.png")
    texts = {"1.png": "a dog", "3.png": "a cat"}
    (tmp_path / "captions.json").write_text(json.dumps(texts))
    store, codec = PhotoStore(tmp_path), build_tiny_codec()
    stage = FewStepStage(codec, reader, store, 64)
    known = {tuple(tokenize(codec.tokenizer, [t])[0].tolist()) for t in texts.values()}
    turn = reader.order.index(reader.caption_turn)
    drawn = [stage.batch(turn, 2, torch.Generator().manual_seed(n)) for n in range(5)]
    assert all(len(one["image"]) == 2 * CAPTION_PHOTOS for one in drawn)
    assert {tuple(ids.tolist()) for one in drawn for ids in one["token_ids"]} == known
    assert all(int(one["rate"]) == reader.caption_turn for one in drawn)
    assert len(stage.batch(0, 2, torch.Generator())["image"]) == 2
    (tmp_path / "captions.json").write_text(json.dumps({"1.png": "a dog"}))
    with pytest.raises(ValueError, match="1 of 4 photos have captions, expected at least 2"):
        FewStepStage(codec, reader, PhotoStore(tmp_path), 64)


def test_a_collapsed_discriminator_stops_the_run(loss):
    loss.judge.hinge.fill_(COLLAPSED / 2)
    photo = batch(loss)["image"]
    loss.judge.discriminator.forward = lambda image, features: [
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


def test_captions_of_other_photos_may_teach_the_words(recipe, tmp_path):
    folder = tmp_path / "described"
    folder.mkdir()
    for number in range(2):
        make_photo(80, 72, seed=number).save(folder / f"{number}.png")
    (folder / "captions.json").write_text(json.dumps({"0.png": "a dog", "1.png": "a cat"}))
    with pytest.raises(ValueError, match="0 of 6 photos have captions.* --caption-data"):
        recipe(steps=6, caption_weight=1.0)
    recipe(steps=6, caption_weight=1.0, caption_data=str(folder))
    with (tmp_path / "run/log.csv").open(newline="") as stream:
        heard = [float(row["unheard"]) for row in csv.DictReader(stream)]
    assert heard[:5] == [0] * 5 and heard[5] > 0


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
    recipe(steps=3, minutes=1e-9)  # cut off after one
    monkeypatch.setattr(FakeLpips, "between", lambda self, a, b: torch.tensor([math.nan]))
    with pytest.raises(FloatingPointError, match=r"; the last good checkpoint is .*run/checkpoint"):
        recipe(steps=3)
    with pytest.raises(FloatingPointError, match="; no checkpoint yet"):
        recipe("anew", steps=3)


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
