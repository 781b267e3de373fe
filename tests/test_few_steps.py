"""Few steps: the loop against its formula, which steps a rate gets, and what the codec paints."""

import json
import warnings

import pytest
import torch

from conftest import build_telling_codec, make_photo, pixels
from perco_lite import PercoCodec
from perco_lite.sampling import DEFAULT_STEPS, choose_steps, draw_noise, few_steps
from perco_lite.unet import build_scheduler

MADE = {"0.0019": [999, 499], "0.1250": [999]}


@pytest.fixture(scope="module")
def fast_weights(tmp_path_factory):
    """Folder of the tiny codec, told to paint two of its rates in few steps."""
    folder = tmp_path_factory.mktemp("fast")
    codec = build_telling_codec()
    codec.register_to_config(few_steps=MADE)
    codec.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def fast_codec(fast_weights):
    codec = PercoCodec.from_pretrained(fast_weights)
    codec.set_progress_bar_config(disable=True)
    return codec


@pytest.fixture
def passes(fast_codec):
    """Timesteps of the U-Net passes so far."""
    seen = []
    handle = fast_codec.unet.register_forward_pre_hook(
        lambda module, args: seen.append(int(args[1]))
    )
    yield seen
    handle.remove()


def test_a_guess_is_noised_again_and_guessed_anew():
    alphas_cumprod = build_scheduler().alphas_cumprod
    noise = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    seen = []

    def predict(noisy, timestep):
        seen.append(noisy)
        return torch.full_like(noisy, 0.5) * noisy

    steps = list(few_steps(predict, noise, (999, 600, 200), alphas_cumprod))
    assert [(s.number, s.timestep) for s in steps] == [(0, 999), (1, 600), (2, 200)]
    torch.testing.assert_close(seen[0], noise[:, 0], msg="at t = 999 no signal is left")
    for before, step, noisy in zip(steps, steps[1:], seen[1:], strict=False):
        alpha_bar = alphas_cumprod[step.timestep]
        again = alpha_bar.sqrt() * before.latents
        again = again + (1 - alpha_bar).sqrt() * noise[:, step.number]
        torch.testing.assert_close(noisy, again)
        clean = alpha_bar.sqrt() * noisy - (1 - alpha_bar).sqrt() * 0.5 * noisy
        torch.testing.assert_close(step.latents, clean)


@pytest.mark.parametrize(
    ("rate", "steps", "sampler", "chosen"),
    [
        ("0.0019", None, None, (999, 499)),
        ("0.0019", 1, None, (999,)),
        ("0.0019", 20, None, 20),  # more than it was made for is asked of the paper's loop
        ("0.0019", None, "fast", (999, 499)),
        ("0.0019", None, "paper", DEFAULT_STEPS),
        ("0.0019", 1, "paper", 1),
        ("0.0098", None, None, DEFAULT_STEPS),
        ("0.1250", 2, None, 2),
    ],
)
def test_which_steps_a_rate_gets(rate, steps, sampler, chosen):
    assert choose_steps(MADE, rate, steps, sampler) == chosen


def test_more_fast_steps_than_they_were_made_for_are_warned_of_once(fast_codec, passes):
    file = fast_codec.compress(make_photo(64, 64), "", "0.0019")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        chosen = {choose_steps(MADE, "0.0019", 4, "fast") for _ in range(3)}
        for _ in range(3):
            fast_codec.decompress(file, 4, sampler="fast")
    assert chosen == {(999, 749, 499, 249)} and passes == 3 * [999, 749, 499, 249]
    assert len(caught) == 1 and "4 fast steps are more than the 2" in str(caught[0].message)


@pytest.mark.parametrize("made", [None, {}, {"0.1250": [999]}])
def test_fast_without_weights_for_it_names_the_other(made):
    with pytest.raises(ValueError, match="take sampler='paper'"):
        choose_steps(made, "0.0019", sampler="fast")
    with pytest.raises(ValueError, match="expected fast, paper or None"):
        choose_steps(made, "0.0019", sampler="slow")


def test_a_batch_of_rates_takes_each_its_own_steps(fast_codec, passes):
    photo, rates = make_photo(128, 64), ("0.0019", "0.1250", "0.0098", "0.0019")
    files = [fast_codec.compress(photo, "a cat", rate) for rate in rates]
    together = fast_codec.decompress(files, seed=[3, 4, 5, 6])
    assert passes[:3] == [999, 499, 999] and len(passes) == 3 + DEFAULT_STEPS
    for file, seed, image in zip(files, (3, 4, 5, 6), together, strict=True):
        alone = pixels(fast_codec.decompress(file, seed=seed))
        assert abs(pixels(image).astype(int) - alone).max() <= 1
    assert (pixels(together[0]) != pixels(together[3])).any(), "two seeds, two pictures"


def test_the_papers_loop_still_paints_as_before(fast_codec, tiny_codec):
    file = fast_codec.compress(make_photo(96, 64), "a cat", "0.1250")
    for how in ({"num_inference_steps": 5}, {"num_inference_steps": 5, "sampler": "paper"}):
        ours = pixels(fast_codec.decompress(file, **how))
        assert (ours == pixels(tiny_codec.decompress(file, 5))).all()
    assert (pixels(fast_codec.decompress(file)) != ours).any()


def test_guidance_and_words_act_on_few_steps(fast_codec, passes):
    file = fast_codec.compress(make_photo(64, 64), "a red bus", "0.0019")
    plain = pixels(fast_codec.decompress(file))
    assert passes == [999, 499]
    assert (pixels(fast_codec.decompress(file, guidance_scale=5.0)) != plain).any()


@pytest.mark.parametrize(
    "steps", [["os", "system"], {"0.0019": ["os", "system"]}, {"0.0019": [499, 999]}, [[999]]]
)
def test_steps_in_weights_are_numbers_that_fall(tmp_path, steps):
    index = {"_class_name": "PercoCodec", "few_steps": steps}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="nothing of it was run"):
        PercoCodec.from_pretrained(tmp_path)


def test_each_step_has_noise_of_its_own(fast_codec):
    noise = draw_noise((2, 4, 8, 8), [7])
    assert (noise[0, 0] != noise[0, 1]).all()


def test_the_command_chooses_too(perco, fast_weights, tmp_path):
    file = tmp_path / "a.perco"
    codec = PercoCodec.from_pretrained(fast_weights)
    file.write_bytes(codec.compress(make_photo(64, 64), "", "0.0098"))
    weights = ("--weights", fast_weights)
    code, out, err = perco("decompress", file, "--sampler", "fast", *weights)
    assert code == 2 and "--sampler paper" in err and not list(tmp_path.glob("*.png"))
    assert perco("decompress", file, "--sampler", "paper", "--steps", 2, *weights)[0] == 0
    facts = json.loads(perco("info", "--json", *weights)[1])
    assert facts["steps"].startswith("0.0019: fast, 2, 0.0098: paper, 20")


def test_a_silent_u_net_paints_the_estimate_at_every_step():
    """With residual weights that have learned nothing yet, at pure noise nothing else is known."""
    from perco_lite.coding.bitstream import unpack
    from perco_lite.condition import LocalConditioner
    from perco_lite.unet import start_silent

    codec = build_telling_codec()
    sizes = {n: v for n, v in codec.conditioner.config.items() if not n.startswith("_")}
    residual = LocalConditioner(**sizes | {"residual": True})
    residual.load_state_dict(codec.conditioner.state_dict(), strict=False)
    codec.register_modules(conditioner=residual.eval())
    start_silent(codec.unet)
    codec.register_to_config(few_steps={"0.0313": [999]})
    codec.set_progress_bar_config(disable=True)
    file = codec.compress(make_photo(64, 64), "", "0.0313")
    estimate = pixels(codec.estimate(unpack(file)))
    assert abs(pixels(codec.decompress(file)) - estimate).max() <= 1
    many = pixels(codec.decompress(file, sampler="paper", anchor=0.0))
    assert (many != estimate).any(), "the loop adds errors of the variance it was told of"
