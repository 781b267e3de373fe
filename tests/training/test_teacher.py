"""Stage 1 with a teacher: its two files, what is learned of it, and the command."""

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from conftest import TINY_AUTOENCODER
from perco_lite.autoencoder import Autoencoder
from perco_lite.training.autoencoder import load_autoencoder, train_autoencoder_recipe
from perco_lite.training.teacher import FILES, TaughtAutoencoderLoss, Teacher
from tests.training.conftest import waves

WHOLE = {"decoder_widths": (16, 16, 8, 8), "decoder_blocks": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    """A random TAESD in its published form: bare numbers, the decoder's one higher."""
    torch.manual_seed(0)
    folder, network = tmp_path_factory.mktemp("taesd"), AutoencoderTiny()
    for part, shift, name in zip(("encoder", "decoder"), (0, 1), FILES, strict=True):
        state = {}
        for key, value in getattr(network, part).state_dict().items():
            _, number, rest = key.split(".", 2)
            state[f"{int(number) + shift}.{rest}"] = value.bfloat16()
        save_file(state, folder / name)
    network.bfloat16().float().save_pretrained(folder / "diffusers")
    return folder


def test_both_forms_are_the_same_teacher(teacher_folder):
    bare, saved = Teacher(teacher_folder), Teacher(teacher_folder / "diffusers")
    image = torch.rand(1, 3, 32, 24) * 2 - 1
    latents = bare.encode(image)
    assert latents.shape == (1, 4, 4, 3) and torch.equal(latents, saved.encode(image))
    assert torch.equal(bare.decode(latents), saved.decode(latents))
    # diffusers' own way of encoding, from [-1,1]
    torch.testing.assert_close(saved.network.encode(image).latents, latents)
    assert not any(p.requires_grad for p in bare.parameters()) and not bare.train().training


def test_a_missing_teacher_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match="no teacher in .*; expected taesd_encoder"):
        Teacher(tmp_path)


def test_encoder_and_decoder_learn_what_the_teacher_does(teacher_folder):
    torch.manual_seed(0)
    autoencoder = Autoencoder(**TINY_AUTOENCODER | WHOLE)
    loss = TaughtAutoencoderLoss(autoencoder, Teacher(teacher_folder), None)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=6e-3)
    assert all(name.startswith("autoencoder.") for name, _ in loss.named_parameters())
    image = torch.rand(2, 3, 24, 24) * 2 - 1
    history = []
    for _ in range(25):
        losses = loss(image)
        optimizer.zero_grad()
        losses["loss"].backward()
        optimizer.step()
        history.append({name: value.item() for name, value in losses.items()})
    for name in ("l1", "latents"):
        assert history[-1][name] < 0.7 * history[0][name]
    assert autoencoder.latent_std.eq(1).all()  # the teacher's scale is kept


def test_the_picture_teaches_the_encoder_through_our_half_of_the_latents(teacher_folder):
    autoencoder = Autoencoder(**TINY_AUTOENCODER | WHOLE)
    loss = TaughtAutoencoderLoss(autoencoder, Teacher(teacher_folder), None, latent_noise=0)
    image = torch.rand(2, 3, 16, 16)
    loss(image)["l1"].backward()
    assert all(p.grad is not None for p in loss.parameters())
    teacher = loss.teachers[0]
    with torch.no_grad():
        wanted = teacher.encode(image)
        given = torch.cat([autoencoder.encode(image)[:1], wanted[1:]])
        error = autoencoder.decode(given) - teacher.decode(wanted)
        torch.testing.assert_close(loss(image)["l1"], error.abs().mean())


def test_the_command_trains_a_decoder_down_to_the_pixels_and_goes_on(teacher_folder, tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(3):
        waves(48, 40, number).save(tmp_path / "train" / f"{number}.png")
    options = {"teacher": str(teacher_folder), "perceptual_weight": 0, "crop": 16, "batch_size": 2}
    train_autoencoder_recipe(tmp_path / "train", tmp_path / "one", whole=True, steps=2, **options)
    one = load_autoencoder(tmp_path / "one/weights")
    assert list(one.config.decoder_widths) == [128, 96, 64, 24] and one.latent_std.eq(1).all()
    start = str(tmp_path / "one/weights")
    options |= {"start": start, "learning_rate": 1e-9}
    train_autoencoder_recipe(tmp_path / "train", tmp_path / "two", steps=1, **options)
    two, image = load_autoencoder(tmp_path / "two/weights"), torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(two.encode(image), one.encode(image), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(
        two.decode(two.encode(image)), one.decode(one.encode(image)), atol=1e-2, rtol=1e-2
    )
