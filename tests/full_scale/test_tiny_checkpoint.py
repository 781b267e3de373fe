"""Tiny random models: small, the same for a seed, and what the commands take for the real ones."""

import json

import pytest
import torch
from safetensors.torch import load_file

from perco_lite.full_scale.stable_diffusion import check_family, find_checkpoint
from perco_lite.full_scale.tiny_checkpoint import tiny_blip, tiny_stable_diffusion

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_checkpoint_in_the_hubs_layout(tiny_stable_diffusion, tiny_stable_diffusion_epsilon):
    check_family(tiny_stable_diffusion)
    assert find_checkpoint(tiny_stable_diffusion) == tiny_stable_diffusion
    files = [file for file in tiny_stable_diffusion.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 2_000_000
    for folder, kind in (
        (tiny_stable_diffusion, "v_prediction"),
        (tiny_stable_diffusion_epsilon, "epsilon"),
    ):
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
        assert config["prediction_type"] == kind


def test_weights_follow_the_seed_and_leave_others_dice_alone(tiny_stable_diffusion, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = tiny_checkpoint_unet(tmp_path / "again")
    assert torch.equal(torch.rand(1), expected)
    first = load_file(tiny_stable_diffusion / UNET)
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = tiny_checkpoint_unet(tmp_path / "other", seed=1)
    assert (other["conv_in.weight"] != first["conv_in.weight"]).any()


def tiny_checkpoint_unet(folder, **options):
    return load_file(tiny_stable_diffusion(folder, **options) / UNET)


def test_sizes_of_the_unet_are_an_option(tmp_path):
    folder = tiny_stable_diffusion(tmp_path / "sd", block_out_channels=(16, 24))
    config = json.loads((folder / "unet" / "config.json").read_text())
    assert config["block_out_channels"] == [16, 24] and config["in_channels"] == 4


@pytest.mark.parametrize("write", [tiny_stable_diffusion, tiny_blip])
def test_nothing_is_written_over(write, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty; name a new folder"):
        write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
