"""Every `perco` command goes on taking the options that 0.1.0 took, under the same names."""

import pytest
import typer

from perco_lite.cli.main import app

OPTIONS = {  # capitals: arguments, by place
    "app": "--browser --device --dtype --host --max-pixels --no-browser --port --weights",
    "bench": "--json --no-quality --no-speed --output --photos --quality --speed --weights -o",
    "caption": "--batch-size --beams --device --model --output -o PHOTOS",
    "claims": (
        "--claims --crop --device --draws --json --list --markdown --output --photos --plan "
        "--processes --seeds --strict --table --training-photos --training-steps --weights -o NAMES"
    ),
    "compare": (
        "--against --caption --device --dtype --json --output --rate --seed --steps --weights -o "
        "PHOTO"
    ),
    "compress": (
        "--caption --captions --device --dtype --format --json --output --overwrite --rate "
        "--weights -o PHOTOS"
    ),
    "convert": "--base --half --no-half SOURCE TARGET",
    "decompress": (
        "--device --dtype --guidance --json --max-pixels --output --sampler --seed --steps "
        "--weights -o FILES"
    ),
    "demo": "--json --output --photos --steps --weights -o",
    "download": "--limit --output --source --workers -o PHOTOS",
    "evaluate": (
        "--anchor --batch --captions --codecs --controls --device --folder --guidance --json "
        "--keep --ladder --list --metrics --no-keep --output --photos --rates --resize --rounds "
        "--seed --steps --strict --temperature --weights -o DATASET"
    ),
    "info": "--json --weights",
    "inspect": "--json FILES",
    "rates": "--json --weights",
    "train autoencoder": (
        "--batch-size --crop --data --decoder-of --hold-latents --latent-noise --learning-rate "
        "--minutes --mixed-precision --optimizer --output --perceptual-weight --seed --start "
        "--steps -o"
    ),
    "train captioner": (
        "--batch-size --data --dropout --features --label-smoothing --learning-rate --minutes "
        "--mixed-precision --output --rarest --reward-steps --seed --start --steps --warmup-steps "
        "-o"
    ),
    "train captions": "--data --output -o",
    "train codec": (
        "--accumulation --alone --autoencoder --base --batch-size --captions --checkpoint-minutes "
        "--config --convert-epsilon --crop --data --decay --ema-decay --freeze-codes "
        "--gradient-checkpointing --gradient-clip --layers --learning-rate --lora-rank "
        "--minutes --mixed-precision --no-convert-epsilon --no-freeze-codes "
        "--no-gradient-checkpointing --no-tensorboard --optimizer --output "
        "--per-shard --perceptual-weight --quantizer-init --rates --revive --seed "
        "--start --steps --tensorboard --text --text-dropout --timesteps "
        "--warmup-steps --weight-decay -o"
    ),
    "train pack": "SOURCE TARGET",
    "train prior": (
        "--batch-size --data --device --large --learning-rate --output --photos --seed --steps "
        "--weight-decay --weights --width -o"
    ),
    "train text": (
        "--batch-size --data --learning-rate --minutes --mixed-precision --output --photos "
        "--seed --steps -o"
    ),
}


def commands(group, path=""):
    """(words, command) of every command of a group."""
    for name, command in group.commands.items():
        words = f"{path} {name}".strip()
        yield from commands(command, words) if hasattr(command, "commands") else [(words, command)]


FOUND = dict(commands(typer.main.get_command(app)))


def test_no_command_is_lost_or_without_a_line_of_help():
    assert set(OPTIONS) <= set(FOUND)
    assert all(command.help for command in FOUND.values())


@pytest.mark.parametrize("words", OPTIONS)
def test_no_option_is_lost(words):
    found = set()
    for parameter in FOUND[words].params:
        argument = parameter.param_type_name == "argument"
        names = [parameter.name.upper()] if argument else parameter.opts
        found.update([*names, *parameter.secondary_opts])
    assert set(OPTIONS[words].split()) <= found
