"""`perco evaluate --weights FOLDER` with Stable Diffusion's weights and with PerCo (SD)'s."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo, pixels, read_table
from perco_lite import PercoCodec
from perco_lite.loading import weights_digest
from tests.full_scale.conftest import build
from tests.full_scale.test_perco_sd import theirs as theirs  # the checkpoint as they write it

QUICK = "--metrics psnr,ms_ssim --codecs perco,perco-estimate,perco+steps=2,autoencoder,jpeg"


@pytest.fixture
def folder(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        make_photo(96, 64, seed).save(folder / f"{seed}.png")
    (folder / "captions.json").write_text(json.dumps({"0.png": "red", "1.png": "a barn"}))
    return folder


def measured(perco, folder, tmp_path, weights, rate):
    """(rows, summary, codec) of the command as a user types it."""
    output = tmp_path / "o.csv"
    code, out, err = perco("evaluate", folder, "-o", output, "--weights", weights, *QUICK.split())
    assert code == 0, err
    assert "not measured: perco-estimate (these weights estimate nothing" in err
    codec = PercoCodec.from_pretrained(weights)
    codec.set_progress_bar_config(disable=True)
    summary = json.loads(output.with_suffix(".json").read_text())
    assert summary["settings"]["weights"] == weights_digest(codec)
    rows = read_table(output)
    assert {(r["codec"], r["rate"]) for r in rows} == {
        *((name, rate) for name in ("perco", "perco+steps=2", "jpeg")),
        ("autoencoder", ""),
    }
    return rows, summary, codec


def check_own_settings(rows, summary, codec, folder, tmp_path, rate):
    """Painted as the weights are: guidance 3, noise at full strength, twenty steps of their own."""
    (row,) = (r for r in rows if (r["photo"], r["codec"]) == ("1.png", "perco"))
    how = {name: row[name] for name in ("steps", "guidance", "temperature", "sampler", "model")}
    assert how == {
        "steps": "20",
        "guidance": "3",
        "temperature": "1",
        "sampler": type(codec.scheduler).__name__,
        "model": f"{codec.model_id:#06x}",
    }
    own = {name: summary["decoding"][name] for name in ("steps", "guidance", "temperature")}
    assert own == {"steps": 20, "guidance": 3.0, "temperature": 1.0}
    data = codec.compress(Image.open(folder / "1.png"), "a barn", rate)
    assert int(row["bytes"]) == len(data)
    picture = Image.open(tmp_path / "o_pictures" / "perco" / rate / "1.png.png")
    assert np.abs(pixels(picture) - pixels(codec.decompress(data, 20, 3.0))).max() <= 1


def test_stable_diffusions_weights(perco, tiny_stable_diffusion, folder, tmp_path):
    weights = tmp_path / "weights"
    build(tiny_stable_diffusion, ("0.0313",)).save_pretrained(weights)
    made = measured(perco, folder, tmp_path, weights, "0.0313")
    check_own_settings(*made, folder, tmp_path, "0.0313")
    others = "--codecs perco --metrics psnr,ms_ssim --rates 0.0313".split()
    code, _, err = perco("evaluate", folder, "-o", tmp_path / "o.csv", *others)
    assert code == 2 and "made with other settings" in err, "bundled weights go elsewhere"


def test_a_converted_checkpoint_of_perco_sd(perco, theirs, folder, tmp_path):  # noqa: F811
    weights = tmp_path / "converted"
    code, _, err = perco("convert", theirs[0], weights, "--no-half")
    assert code == 0, err
    rows, summary, codec = measured(perco, folder, tmp_path, weights, "0.0313")
    assert not codec.scheduler.config.rescale_betas_zero_snr, "these never saw zero-terminal SNR"
    check_own_settings(rows, summary, codec, folder, tmp_path, "0.0313")
    code, _, err = perco("evaluate", folder, "-o", tmp_path / "p.csv", "--weights", theirs[0])
    assert code == 2 and "perco convert" in err, "and unconverted they are told what to do"
