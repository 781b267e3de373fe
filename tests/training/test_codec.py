"""Stage 2 on the tiny codec: what each loss sees and trains, and that a run resumes exactly."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.checkpoint import checkpoint

from conftest import build_tiny_codec
from perco_lite.captions import tokenize
from perco_lite.rates import RATES
from perco_lite.training import codec as codec_stage
from perco_lite.training.codec import COARSE_WEIGHT, CodecLoss, CodecStage
from perco_lite.training.latents import LatentStore
from perco_lite.training.loop import TrainingSettings, train
from tests.training.conftest import rows

LITE = ("0.0019", "0.0098", "0.0313", "0.1250")
CAPTIONS = [["a red barn"], ["two dogs", "a green field"], [], ["a man on a wave"]]


class Squared(nn.Module):
    """In place of the feature distance."""

    def forward(self, image, target):
        return (image - target).square().mean((1, 2, 3))


@pytest.fixture
def codec():
    return build_tiny_codec()


def make_stage(codec, photos=4, loss=None, **settings) -> CodecStage:
    random = torch.Generator().manual_seed(1)
    latents = [torch.randn(4, 12, 16, generator=random).half() for _ in range(photos)]
    store = LatentStore(latents, list(range(photos)), torch.ones(photos))
    return CodecStage(codec, loss or CodecLoss(codec, **settings), store, CAPTIONS, crop=8)


def batch(codec, rate="0.1250", count=8):
    torch.manual_seed(2)
    return {
        "latents": torch.randn(count, 4, 8, 8),
        "token_ids": tokenize(codec.tokenizer, ["a red barn beside a pond"]).repeat(count, 1),
        "rate": torch.tensor(LITE.index(rate)),
    }


@pytest.fixture
def unet_inputs(codec):
    """Arguments of the U-Net's passes so far, as a list of (args, kwargs)."""
    seen = []
    codec.unet.register_forward_pre_hook(lambda m, *given: seen.append(given), with_kwargs=True)
    return seen


# --- the objective ---


@pytest.mark.parametrize("rate", LITE)
def test_each_rate_trains_its_own_branch_and_the_rest(codec, unet_inputs, rate):
    losses = CodecLoss(codec)(**batch(codec, rate))
    assert list(losses) == ["loss", "rate", "regression", "coarse", "velocity"]
    estimate = losses["regression"] + COARSE_WEIGHT * losses["coarse"]
    torch.testing.assert_close(losses["loss"], estimate + losses["velocity"])
    losses["loss"].backward()
    ((_, given),) = unet_inputs  # one pass
    assert [RATES[i].name for i in given["class_labels"].tolist()] == [rate] * 8
    for name, parameter in codec.conditioner.branch(rate).named_parameters():
        assert parameter.grad is not None, name
    assert codec.conditioner.branch(rate).hyper_encoder.layers[0].weight.grad.abs().sum() > 0
    for other in set(LITE) - {rate}:
        assert all(p.grad is None for p in codec.conditioner.branch(other).parameters())
    for module in (codec.unet, codec.text_encoder):
        assert all(p.grad is not None for p in module.parameters())
    assert all(p.grad is None for p in codec.autoencoder.parameters())


def test_the_velocity_loss_trains_the_hyper_encoder_too(codec):
    """The paper has no other loss: the gradient must pass the U-Net's input and the codebook."""
    losses = CodecLoss(codec, regression_weight=0.0)(**batch(codec))
    torch.testing.assert_close(losses["loss"], losses["velocity"])
    losses["loss"].backward()
    first = codec.conditioner.branch("0.1250").hyper_encoder.layers[0]
    assert first.weight.grad.abs().sum() > 0


def test_the_target_is_the_velocity(codec, monkeypatch):
    given = batch(codec)

    def oracle(unet, noisy, timestep, condition, text, rate_ids):
        alpha_bar = codec.scheduler.alphas_cumprod[timestep].view(-1, 1, 1, 1)
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        return alpha * (noisy - alpha * given["latents"]) / sigma - sigma * given["latents"]

    monkeypatch.setattr(codec_stage, "predict_velocity", oracle)
    assert CodecLoss(codec)(**given)["velocity"] < 1e-6


def test_frozen_codes_stay_and_what_follows_them_learns(codec):
    branch = codec.conditioner.branch("0.0313")
    codec.conditioner.train()
    before = {name: value.clone() for name, value in branch.state_dict().items()}
    loss = CodecLoss(codec, freeze_codes=True)
    given = batch(codec, "0.0313")
    optimizer = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], lr=1e-2)
    loss(**given)["loss"].backward()
    optimizer.step()
    changed = {n.split(".")[0] for n, v in branch.state_dict().items() if (v != before[n]).any()}
    changed |= {n for n, v in branch.state_dict().items() if (v != before[n]).any() and "." in n}
    assert "decoder" in changed and "hyper_encoder" not in changed
    assert {n for n in changed if n.startswith("quantizer.")} == {
        "quantizer.project_out.weight",
        "quantizer.project_out.bias",
    }


def test_the_conditioner_can_be_trained_alone(codec, unet_inputs):
    stage = make_stage(codec, conditioner_warmup_steps=3)
    generator = torch.Generator().manual_seed(0)
    losses = stage.module(**stage.batch(2, 8, generator))
    losses["loss"].backward()
    assert not unet_inputs and losses["velocity"] == 0
    torch.testing.assert_close(
        losses["loss"], losses["regression"] + COARSE_WEIGHT * losses["coarse"]
    )
    assert all(p.grad is None for p in codec.unet.parameters())
    later = stage.module(**stage.batch(3, 8, generator))
    assert len(unet_inputs) == 1 and later["velocity"] > 0
    assert list(later) == list(losses)  # the columns of log.csv


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_dropped_captions_are_the_empty_caption(codec, share):
    seen = []
    codec.text_encoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((*args, *kwargs.values())[0]), with_kwargs=True
    )
    given = batch(codec, count=64)
    CodecLoss(codec, text_dropout=share)(**given)
    dropped = (seen[0] == tokenize(codec.tokenizer, [""])).all(1)
    kept = (seen[0] == given["token_ids"]).all(1)
    assert (dropped ^ kept).all()  # whole captions
    assert abs(dropped.float().mean() - share) < 0.2


# --- the feature distance ---


def test_the_auxiliary_loss_reaches_the_unet_through_the_decoder(codec):
    losses = CodecLoss(codec, Squared(), perceptual_weight=1.0)(**batch(codec))
    # without a gradient through the decoder, as in the open reimplementation, this raises
    parameters = list(codec.unet.parameters())
    gradients = torch.autograd.grad(losses["features"], parameters, retain_graph=True)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0
    losses["loss"].backward()
    assert all(p.grad is None for p in codec.autoencoder.parameters())


def test_the_auxiliary_loss_is_weighted_by_what_noise_leaves_of_the_signal(codec, unet_inputs):
    class One(nn.Module):
        def forward(self, image, target):
            assert image.shape == target.shape == (8, 3, 64, 64) and not target.requires_grad
            return torch.ones(len(image))

    losses = CodecLoss(codec, One(), perceptual_weight=0.5)(**batch(codec))
    timestep = unet_inputs[0][0][1]
    expected = codec.scheduler.alphas_cumprod[timestep].mean()
    torch.testing.assert_close(losses["features"], expected)
    plain = losses["regression"] + COARSE_WEIGHT * losses["coarse"] + losses["velocity"]
    torch.testing.assert_close(losses["loss"], plain + 0.5 * expected)


def test_the_auxiliary_loss_is_for_fine_rates_and_its_column_for_all(codec):
    module = CodecLoss(codec, Squared(), perceptual_weight=1.0)
    columns = ["loss", "rate", "regression", "coarse", "velocity", "features"]
    for rate in LITE:
        losses = module(**batch(codec, rate))
        assert (losses["features"] > 0) == (rate == "0.1250")  # above 0.05 bits per pixel
        assert list(losses) == columns
    module.conditioner_warmup_steps = 3  # the first part of a run writes the log's header
    assert list(module(**batch(codec), step=0)) == columns


# --- what a step costs ---


def test_timesteps_lie_on_the_samplers_grid():
    codec = build_tiny_codec()
    codec.scheduler.set_timesteps(50)
    drawn, _, _ = CodecLoss(codec, timesteps=50).draw(torch.zeros(2000, 4, 1, 1))
    assert set(drawn.tolist()) == set(codec.scheduler.timesteps.tolist())
    every, _, _ = CodecLoss(codec).draw(torch.zeros(2000, 4, 1, 1))
    assert every.min() < 5 and every.max() > 994 and len(set((every % 20).tolist())) == 20
    with pytest.raises(ValueError, match="timesteps is 30, expected a number that divides 1000"):
        CodecLoss(codec, timesteps=30)


def test_gradient_checkpointing_changes_no_gradient(monkeypatch):
    gradients, calls = [], []
    for checkpointing in (False, True):
        codec = build_tiny_codec()
        if checkpointing:
            codec.unet.enable_gradient_checkpointing()
        loss = CodecLoss(codec).train()
        monkeypatch.setattr(
            torch.utils.checkpoint,
            "checkpoint",
            lambda *args, **kwargs: calls.append(1) or checkpoint(*args, **kwargs),
        )
        torch.manual_seed(0)
        loss(**batch(codec, count=4))["loss"].backward()
        assert bool(calls) is checkpointing
        gradients.append([p.grad for p in loss.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 50
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_photos_are_encoded_where_no_latents_are_given():
    codec = build_tiny_codec()
    loss = CodecLoss(codec).eval()
    photos = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = codec.autoencoder.encode(photos)
    results = []
    for given in (latents, photos):
        torch.manual_seed(1)
        results.append(loss(**{**batch(codec, count=2), "latents": given})["loss"])
    torch.testing.assert_close(*results)


# --- batches ---


def test_rates_take_turns(codec):
    stage = make_stage(codec)
    turns = [stage.batch(step, 3, torch.Generator())["rate"].item() for step in range(6)]
    assert turns == [0, 1, 2, 3, 0, 1]


def test_a_crop_that_does_not_divide_over_the_grids_is_explained(codec):
    with pytest.raises(ValueError, match="crop is 12 latents, expected a multiple of 8"):
        CodecStage(codec, CodecLoss(codec), LatentStore([], [], torch.ones(0)), [], crop=12)


def test_a_crop_larger_than_a_photo_is_explained():
    store = LatentStore([torch.zeros(4, 40, 24), torch.zeros(4, 28, 30)], [0, 1], torch.ones(2))
    assert store.crops(5, 24, torch.Generator())[0].shape == (5, 4, 24, 24)
    with pytest.raises(ValueError, match="crop is 32 latents a side, expected at most 24"):
        store.crops(5, 32, torch.Generator())


def test_photos_smaller_than_a_crop_are_skipped_and_counted(codec):
    large, small = torch.ones(4, 40, 32), torch.zeros(4, 40, 24)
    store = LatentStore([small, large, small], [0, 1, 2], torch.ones(3))
    with pytest.warns(UserWarning, match="skipped 2 of 3 photos, .* of 32 latents .256 pixels."):
        stage = CodecStage(codec, CodecLoss(codec), store, [[], ["two dogs"], []], crop=32)
    assert (stage.batch(0, 9, torch.Generator())["latents"] == 1).all()
    stage = CodecStage(codec, CodecLoss(codec), store, [[]] * 3, crop=40)
    with pytest.raises(ValueError, match="crop is 40 latents a side, expected at most"):
        stage.batch(0, 9, torch.Generator())


def test_batches_are_crops_with_a_caption_of_the_same_photo(codec):
    stage = make_stage(codec)
    one = stage.batch(0, 64, torch.Generator().manual_seed(5))
    again = stage.batch(4, 64, torch.Generator().manual_seed(5))
    assert all(torch.equal(one[name], again[name]) for name in one if name != "step")
    texts = [tokenize(codec.tokenizer, captions or [""]) for captions in CAPTIONS]
    found = [set(), set(), set(), set()]
    for latents, ids in zip(one["latents"], one["token_ids"], strict=True):
        windows = [p.float().unfold(1, 8, 1).unfold(2, 8, 1) for p in stage.latents.latents]
        photo = next(
            i
            for i, w in enumerate(windows)
            if (w.permute(1, 2, 0, 3, 4) == latents).flatten(2).all(2).any()
        )
        chosen = (texts[photo] == ids).all(1)
        assert chosen.any()
        found[photo].add(int(chosen.float().argmax()))
    assert found == [{0}, {0, 1}, {0}, {0}]  # every caption gets its turn


def test_codes_are_revived_below_a_share_of_the_mean_use(codec):
    stage = make_stage(codec, revive=0.1)
    # eight crops of 64x64 pixels: 8 indices at stride 64, 512 at stride 8
    expected = [0.1 * 8 / 256, 0.1 * 32 / 1024, 0.1 * 128 / 256, 0.1 * 512 / 256]
    for step, (rate, below) in enumerate(zip(LITE, expected, strict=True)):
        stage.module(**stage.batch(step, 8, torch.Generator()))
        quantizer = codec.conditioner.branch(rate).quantizer
        assert quantizer.threshold_ema_dead_code == pytest.approx(below)


# --- whole runs ---


def run(output, stage, **changes):
    settings = {"steps": 5, "batch_size": 8, "warmup_steps": 1, "seed": 3, **changes}
    return train(stage, TrainingSettings(output=str(output), **settings))


def test_resume_is_exact_with_codebooks_and_text(tmp_path):
    run(tmp_path / "whole", make_stage(build_tiny_codec(), conditioner_warmup_steps=1))
    run(
        tmp_path / "sliced",
        make_stage(build_tiny_codec(), conditioner_warmup_steps=1),
        minutes=1e-7,
    )
    codec = build_tiny_codec()
    for parameter in codec.conditioner.parameters():
        nn.init.zeros_(parameter)  # the checkpoint brings everything back
    run(tmp_path / "sliced", make_stage(codec, conditioner_warmup_steps=1))
    logs = [rows(tmp_path / name) for name in ("whole", "sliced")]
    assert logs[0] == logs[1] and [row["step"] for row in logs[0]] == list("12345")

    files = ["checkpoint/model.safetensors"]
    files += [f"weights/{n}/diffusion_pytorch_model.safetensors" for n in ("unet", "conditioner")]
    for file in files:
        whole, sliced = (load_file(tmp_path / name / file) for name in ("whole", "sliced"))
        assert whole.keys() == sliced.keys()
        for name in whole:
            assert torch.equal(whole[name], sliced[name]), name
    start = build_tiny_codec().conditioner.state_dict()
    books = [name for name in whole if name.endswith("codebook")]
    assert len(books) == 4  # `whole` is the conditioner here
    for name in books:
        assert torch.equal(whole[name], codec.conditioner.state_dict()[name])
        assert not torch.equal(whole[name], start[name])
        assert whole[name.replace("codebook", "initialised")]


def test_overfits_one_photo(codec, tmp_path):
    stage = make_stage(codec)
    plain = torch.tensor([1.5, -1.0, 0.5, -2.0]).view(4, 1, 1).expand(4, 8, 8)
    stage.latents = LatentStore([plain], [0], torch.ones(1))
    run(tmp_path, stage, steps=80, learning_rate=5e-3)
    for kind in ("regression", "velocity"):
        values = [float(row[kind]) for row in rows(tmp_path)]
        assert sum(values[-8:]) < 0.75 * sum(values[:8]), kind


def test_bf16_on_a_cpu_keeps_float32_weights(codec, tmp_path):
    run(tmp_path, make_stage(codec), steps=1, mixed_precision="bf16")
    (row,) = rows(tmp_path)
    assert 0 < float(row["loss"]) < 10 and float(row["grad_norm"]) > 0
    assert {p.dtype for p in codec.unet.parameters()} == {torch.float32}
    saved = load_file(tmp_path / "weights/unet/diffusion_pytorch_model.safetensors")
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in saved.values())
