"""The denoising loop against diffusers' own steps, a formula by hand, and an oracle."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers import DPMSolverMultistepScheduler

from perco_lite import sampling
from perco_lite.sampling import anchor_velocity, coarse, denoise, draw_noise, guide
from perco_lite.unet import build_scheduler, build_unet, split_velocity


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return build_unet(8, 32, patch=1, widths=(16, 32), norm_groups=8, heads=2).eval()


@pytest.fixture
def passes(unet):
    """Numbers of items of the U-Net passes so far."""
    seen = []
    handle = unet.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    yield seen
    handle.remove()


def inputs(count=2):
    random = torch.Generator().manual_seed(1)
    return {
        "noise": torch.randn(count, 4, 6, 5, generator=random),
        "condition": torch.randn(count, 8, 6, 5, generator=random),
        "text_embeddings": torch.randn(count, 3, 32, generator=random),
        "empty_embeddings": torch.randn(1, 3, 32, generator=random),
        "rate_ids": torch.tensor([0, 4, 7])[:count],
    }


def run(unet, scheduler=None, **changes):
    return list(denoise(unet, scheduler or build_scheduler(), **{**inputs(), **changes}))


def dpm_solver():
    return DPMSolverMultistepScheduler.from_config(build_scheduler().config)


@pytest.fixture
def oracle(monkeypatch):
    """A U-Net that knows the clean latents, and answers with the velocity that leads to them."""

    def velocity(known, noisy, timestep, condition, text_embeddings, rate_ids):
        alpha_bar = known.scheduler.alphas_cumprod[int(timestep)]
        noise = (noisy - alpha_bar.sqrt() * known.clean) / (1 - alpha_bar).sqrt()
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * known.clean

    monkeypatch.setattr(sampling, "predict_velocity", velocity)
    return lambda clean, scheduler: SimpleNamespace(clean=clean, scheduler=scheduler)


# --- the loop ---


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_equal_to_a_loop_of_diffusers_calls(unet, guidance):
    """Written as diffusers' pipelines are, with the two captions in separate passes."""
    given, scheduler = inputs(), build_scheduler()
    scheduler.set_timesteps(7)
    latents = given["noise"]
    for timestep in scheduler.timesteps:
        sample = torch.cat([latents, given["condition"]], dim=1)
        with torch.no_grad():
            with_text, without = (
                unet(
                    sample, timestep, encoder_hidden_states=text, class_labels=given["rate_ids"]
                ).sample
                for text in (given["text_embeddings"], given["empty_embeddings"].repeat(2, 1, 1))
            )
        velocity = without + guidance * (with_text - without)
        latents = scheduler.step(velocity, timestep, latents, eta=0.0).prev_sample
    steps = run(unet, num_inference_steps=7, guidance_scale=guidance)
    torch.testing.assert_close(steps[-1].latents, latents, atol=1e-4, rtol=1e-4)


def test_a_step_is_the_formula_of_ddim(unet):
    steps = run(unet, num_inference_steps=5)
    assert [step.number for step in steps] == [0, 1, 2, 3, 4]
    assert [step.timestep for step in steps] == [999, 799, 599, 399, 199]
    alphas_cumprod = build_scheduler().alphas_cumprod
    before = inputs()["noise"]
    for step in steps:
        x0, epsilon = split_velocity(before, step.velocity, alphas_cumprod[step.timestep])
        last = step.timestep < 200
        alpha_bar = torch.tensor(1.0) if last else alphas_cumprod[step.timestep - 200]
        before = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * epsilon
        torch.testing.assert_close(step.latents, before, atol=1e-4, rtol=1e-4)
        before = step.latents


@pytest.mark.parametrize(("guidance", "items"), [(1.0, 2), (1, 2), (3.0, 4), (0.0, 4)])
def test_guidance_1_costs_one_pass(unet, passes, guidance, items):
    run(unet, num_inference_steps=4, guidance_scale=guidance)
    assert passes == [items] * 4


def test_guidance_between_equal_captions_changes_nothing(unet):
    empty = inputs()["empty_embeddings"]
    texts = {"text_embeddings": empty.repeat(2, 1, 1), "num_inference_steps": 3}
    plain, guided = (run(unet, guidance_scale=scale, **texts)[-1].latents for scale in (1, 5))
    torch.testing.assert_close(guided, plain, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(run(unet, num_inference_steps=3)[-1].latents, plain, atol=1e-3)


def test_an_item_does_not_depend_on_its_batch(unet):
    together = run(unet, num_inference_steps=3, guidance_scale=2.0)[-1].latents
    for i in range(2):
        names = ("noise", "condition", "text_embeddings", "rate_ids")
        alone = {name: inputs()[name][i : i + 1] for name in names}
        latents = run(unet, num_inference_steps=3, guidance_scale=2.0, **alone)[-1].latents
        torch.testing.assert_close(latents[0], together[i], atol=1e-4, rtol=1e-4)


def test_no_gradient_is_kept(unet):
    assert not run(unet, num_inference_steps=1)[0].latents.requires_grad


@pytest.mark.parametrize("count", [-1, 0, 1001])
def test_bad_step_counts_are_explained(unet, passes, count):
    with pytest.raises(ValueError, match=f"num_inference_steps is {count}, expected 1 to 1000"):
        run(unet, num_inference_steps=count)
    assert not passes


@pytest.mark.parametrize("make", [build_scheduler, dpm_solver])
def test_every_count_of_steps_gives_as_many(make, oracle):
    """diffusers alone adds a step at timestep -1 for 62 of these counts, and spoils the result."""
    scheduler = make()
    clean = inputs()["noise"].flip(0)
    for count in (*range(1, 11), 20, 50, 61, 103, 122):
        steps = run(oracle(clean, scheduler), scheduler, num_inference_steps=count)
        times = [step.timestep for step in steps]
        assert len(times) == count and times[0] == 999 and times[-1] >= 0
        assert times == sorted(set(times), reverse=True)


# --- what comes out ---


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 61])
@pytest.mark.parametrize(("make", "error"), [(build_scheduler, 1e-3), (dpm_solver, 0.15)])
def test_an_oracle_leads_to_the_clean_latents(make, error, steps, oracle):
    scheduler = make()
    clean = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(3))
    found = run(oracle(clean, scheduler), scheduler, num_inference_steps=steps)[-1].latents
    assert (found - clean).abs().max() < error


def test_a_scheduler_can_be_used_again(unet):
    for scheduler in (build_scheduler(), dpm_solver()):
        first, second = (run(unet, scheduler, num_inference_steps=4)[-1].latents for _ in range(2))
        assert torch.equal(first, second)


# --- noise, guidance, anchor ---


def test_noise_belongs_to_the_seed_not_to_the_batch():
    together = draw_noise((4, 3, 5), [7, 0, 7])
    assert together.shape == (3, 4, 3, 5) and together.device.type == "cpu"
    assert torch.equal(together[0], together[2]) and not torch.equal(together[0], together[1])
    assert torch.equal(draw_noise((4, 3, 5), [0])[0], together[1])
    torch.manual_seed(123)  # the global state has no part in it
    assert torch.equal(draw_noise((4, 3, 5), [7, 0, 7]), together)


def test_noise_is_standard_normal():
    noise = draw_noise((4, 64, 64), [1])
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 10.0), (1.0, 12.0), (3.0, 16.0)])
def test_guide_by_hand(scale, expected):
    assert guide(torch.tensor(12.0), torch.tensor(10.0), scale) == expected


def test_anchor_moves_coarse_means_to_the_estimate_and_nothing_finer():
    random = torch.Generator().manual_seed(4)
    noisy, velocity = (torch.randn(1, 4, 16, 16, generator=random) for _ in range(2))
    estimate = torch.full((1, 4, 16, 16), 0.7)
    for alpha_bar in (torch.tensor(0.0), torch.tensor(0.6)):
        clean, _ = split_velocity(noisy, velocity, alpha_bar)
        changed = anchor_velocity(velocity, noisy, alpha_bar, estimate, 1.0)
        moved, _ = split_velocity(noisy, changed, alpha_bar)
        torch.testing.assert_close(moved - clean, coarse(estimate - clean), atol=1e-5, rtol=1e-5)
        assert (moved.mean((2, 3)) - 0.7).abs().max() < (clean.mean((2, 3)) - 0.7).abs().max()
        half = anchor_velocity(velocity, noisy, alpha_bar, estimate, 0.5)
        torch.testing.assert_close(half, (velocity + changed) / 2, atol=1e-5, rtol=1e-5)


def test_anchor_is_off_unless_asked_for(unet):
    plain = run(unet, num_inference_steps=3)[-1].latents
    estimate = torch.full_like(plain, 2.0)
    off = run(unet, num_inference_steps=3, estimate=estimate, anchor=0.0)[-1].latents
    assert torch.equal(off, plain)
    held = run(unet, num_inference_steps=3, estimate=estimate, anchor=1.0)[-1].latents
    # not exactly: a correction of one cell runs over into the next, so that no edges show
    assert (coarse(held) - 2).abs().mean() < 0.1 * (coarse(plain) - 2).abs().mean()


@pytest.mark.parametrize("size", [(16, 24), (5, 7), (1, 1), (9, 8)])
def test_coarse_keeps_constants_and_sizes(size):
    latents = torch.full((2, 4, *size), 1.5)
    torch.testing.assert_close(coarse(latents), latents)
    means = F.avg_pool2d(torch.randn(1, 4, 16, 16), 8)
    blocks = means.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(coarse(blocks)[..., 0, 0], means[..., 0, 0])
