"""What `perco bench` measures, on a few tiny photos; the speed of this machine is not tested."""

import io
import json
import math
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import make_photo
from perco_lite import metrics, perceptual
from perco_lite.cli.main import app
from perco_lite.codec import PercoCodec
from perco_lite.evaluation import bench
from perco_lite.loading import load_codec, weights_digest
from perco_lite.metrics import flat_colour_error, psnr
from perco_lite.training.shards import read_training_photos

RATES = ("0.0019", "0.0098", "0.0313", "0.1250")


def striped(seed) -> Image.Image:
    """Blobs of colour with a flat stripe below, in which colours can be seen to drift."""
    image = make_photo(seed=seed)
    image.paste((20 * seed, 90, 160), (0, 0, 72, 34))
    return image


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A data folder: 2 photos as Kodak's, 1 as COCO's, 3 held out, 2 of them with captions."""
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    for name, seeds in (("kodak", (1, 2)), ("coco_eval", (3,))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            striped(seed).save(tmp_path / name / f"kodim0{seed}.png")
    (tmp_path / "val").mkdir()
    with tarfile.open(tmp_path / "val" / "a.tar", "w") as tar:
        for seed, captions in ((4, ["two dogs"]), (5, []), (6, ["a red barn", "other"])):
            stream = io.BytesIO()
            striped(seed).save(stream, format="PNG")
            about = json.dumps({"captions": captions}).encode()
            for name, content in ((f"{seed}.png", stream.getvalue()), (f"{seed}.json", about)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return tmp_path


def test_quality_is_the_mean_over_the_photos(tiny_codec, photos, monkeypatch):
    def lpips(original, reconstruction):  # in place of a network
        return 100 - psnr(original, reconstruction)

    lpips.protocol = "LPIPS"
    monkeypatch.setattr(metrics, "load_lpips", lambda net: lpips)
    samples = bench.kodak_photos()
    result = bench.measure_kodak(tiny_codec, samples, quiet=True)
    assert result["kodak_photos"] == 2
    for rate in RATES:
        files = [tiny_codec.compress(s.image, s.caption, rate) for s in samples]
        decoded = [tiny_codec.decompress(file) for file in files]
        pairs = [(s.image, image) for s, image in zip(samples, decoded, strict=True)]
        expected = {
            "bytes": np.mean([len(file) for file in files]),
            "psnr": np.mean([psnr(*pair) for pair in pairs]),
            "lpips": np.mean([lpips(*pair) for pair in pairs]),
            "flat_colour_error": np.mean([flat_colour_error(*pair) for pair in pairs]),
        }
        for name, value in expected.items():
            assert result[f"{name}_{rate}"] == pytest.approx(value, abs=3e-3), (name, rate)
        assert f"ms_ssim_{rate}" not in result, "undefined for so small a photo"
        assert "got 0 windows" in result[f"pattern_{rate}"], "as small as that"
        assert 0 < result[f"psnr_of_estimate_{rate}"] < 40
        assert result[f"lpips_of_estimate_{rate}"] > 60
    assert 0 < result["autoencoder_psnr"] < 40
    assert result["autoencoder_lpips"] == pytest.approx(100 - result["autoencoder_psnr"])
    targets = {name.rsplit("_", 1)[0] for name in bench.TARGETS if name.endswith("0.0019")}
    assert targets == {"bytes", "psnr", "lpips", "flat_colour_error", "codes_used", "pattern"}


def test_settings_are_those_of_the_weights(tiny_stable_diffusion, tiny_codec, photos):
    narrow = {"width": 8, "features": 16}
    codec = PercoCodec.from_stable_diffusion(tiny_stable_diffusion, RATES[:1], conditioner=narrow)
    codec.set_progress_bar_config(disable=True)
    result = bench.measure_kodak(codec, bench.kodak_photos()[:1], quiet=True)
    assert result["settings"] == "20 steps, guidance 3, temperature 1, anchor 1, seed 0"
    assert not any("estimate" in name for name in result)
    result = bench.measure_kodak(tiny_codec, bench.kodak_photos()[:1], quiet=True)
    assert result["settings"] == "20 steps, guidance 1, temperature 0.9, anchor 1, seed 0"


def test_feature_distance_where_its_weights_are_found(tiny_codec, photos, monkeypatch):
    samples = bench.kodak_photos()[:1]
    without = bench.measure_kodak(tiny_codec, samples, quiet=True)
    assert not any("feature_distance" in name for name in without)

    class Distance:
        @classmethod
        def from_file(cls, path):
            assert path.parent.name == "weights"
            return lambda image, target: (image - target).abs().mean()

    (photos / "weights").mkdir()
    (photos / "weights" / "squeezenet1_0_caffe_fp32.npz").touch()
    monkeypatch.setattr(perceptual, "PerceptualDistance", Distance)
    result = bench.measure_kodak(tiny_codec, samples, quiet=True)
    image = samples[0].image
    decoded = tiny_codec.decompress(tiny_codec.compress(image, samples[0].caption, "0.0313"))
    expected = np.abs(np.asarray(image, float) - np.asarray(decoded, float)).mean() / 127.5
    assert result["feature_distance_0.0313"] == pytest.approx(expected, abs=2e-3)
    assert result["feature_distance_of_estimate_0.0313"] > 0
    assert result["autoencoder_feature_distance"] > 0


def test_codes_are_counted_over_both_sets(tiny_codec, photos):
    result = bench.measure_codes(tiny_codec, quiet=True)
    assert result["codes_photos"] == 3
    for rate in RATES:
        indices = [tiny_codec.encode(striped(seed), rate).flatten() for seed in (1, 2, 3)]
        indices = torch.cat(indices)
        size = bench.get_rate(rate).codebook_size
        assert result[f"codes_used_{rate}"] == pytest.approx(len(indices.unique()) / size)
        share = torch.bincount(indices).double() / len(indices)
        entropy = -sum(p * math.log2(p) for p in share.tolist() if p)
        assert result[f"index_entropy_bits_{rate}"] == pytest.approx(entropy, abs=1e-4)
    assert result["index_entropy_bits_0.1250"] > 2, "else one code served for all"


def test_captions_are_compared_on_photos_that_have_one(tiny_codec, photos):
    def held_out():
        return read_training_photos(photos / "val")

    result = bench.measure_caption(tiny_codec, held_out(), quiet=True)
    assert result["caption_photos"] == 2
    losses = {name: result[f"v_loss_{name}_caption"] for name in ("true", "shuffled", "empty")}
    assert all(0.1 < loss < 10 for loss in losses.values()) and len(set(losses.values())) == 3
    gain = losses["shuffled"] - losses["true"]
    assert result["v_loss_gain"] == pytest.approx(gain, abs=1e-6)
    assert result["v_loss_gain_standard_error"] > 0
    again = bench.measure_caption(tiny_codec, held_out(), quiet=True)
    assert again == result, "the same noise each time"
    single = bench.measure_caption(tiny_codec, held_out(), photos=1, quiet=True)
    assert single["caption_photos"] == 1 and single["v_loss_gain"] == 0, "it is its own neighbour"
    assert "v_loss_gain_standard_error" not in single


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        app(["bench", "--no-speed", *map(str, arguments)])
    return caught.value.code


def test_targets_are_printed_beside_the_figures(photos, tiny_weights, monkeypatch, capsys):
    figures = {"psnr_0.0019": 16.6, "psnr_0.0098": 18.79, "flat_colour_error_0.0019": 12.0}
    monkeypatch.setattr(bench, "measure_kodak", lambda codec, kodak, quiet: figures)
    monkeypatch.setattr(bench, "measure_codes", lambda codec, quiet: {"codes_photos": 3})
    assert run("--weights", tiny_weights) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["perco"].startswith("perco bench on ")
    assert lines["psnr_0.0019"].endswith("16.6   (target ≥ 16.6: met)")
    assert lines["psnr_0.0098"].endswith("(target ≥ 18.8: NOT met)")
    assert lines["flat_colour_error_0.0019"].endswith("12   (target < 12: NOT met)")
    assert lines["caption_photos"].split() == ["caption_photos", "2"]


def test_figures_are_kept_as_they_come(photos, tiny_weights, tmp_path, monkeypatch, capsys):
    def broken(codec, held_out, quiet):
        raise RuntimeError("the power went")

    output = tmp_path / "new" / "bench.json"
    counted = []
    monkeypatch.setattr(bench, "measure_kodak", lambda codec, kodak, quiet: {"kodak_photos": 2})
    monkeypatch.setattr(
        bench, "measure_codes", lambda codec, quiet: counted.append(1) or {"codes_photos": 3}
    )
    with monkeypatch.context() as cut:
        cut.setattr(bench, "measure_caption", broken)
        assert run("--weights", tiny_weights, "-o", output) == 2
    before = json.loads(output.read_text())
    assert before["codes_photos"] == 3 and "caption_photos" not in before
    assert "the power went" in capsys.readouterr().err
    assert run("--weights", tiny_weights, "-o", output) == 0 and len(counted) == 1
    after = json.loads(output.read_text())
    assert before.items() <= after.items() and after["caption_photos"] == 2
    assert f"codes_photos and what follows it: kept in {output}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", "no report of perco bench"),
        ("[1]", "no report of perco bench"),
        ('{"weights": "f00"}', "is of another run (machine: was None, is "),
    ],
)
def test_what_others_wrote_stays(text, said, photos, tiny_weights, tmp_path, capsys):
    output = tmp_path / "bench.json"
    output.write_text(text)
    assert run("--weights", tiny_weights, "-o", output) == 2
    assert said in capsys.readouterr().err and output.read_text() == text


def test_a_reason_is_held_to_no_target(photos, tiny_weights, monkeypatch, capsys):
    reason = {"pattern_0.0019": "not measured: got 0 windows"}
    monkeypatch.setattr(bench, "measure_kodak", lambda codec, kodak, quiet: reason)
    monkeypatch.setattr(bench, "measure_codes", lambda codec, quiet: {})
    assert run("--weights", tiny_weights) == 0
    assert (
        "pattern_0.0019                   not measured: got 0 windows\n" in capsys.readouterr().out
    )


def test_what_is_not_found_is_named(tmp_path, tiny_weights, monkeypatch, capsys):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr("perco_lite.data.pooch.os_cache", lambda name: tmp_path / name)
    assert run("--json", "--weights", tiny_weights) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert err == "" and report.keys() - {"machine", "torch", "weights", "commit", "photos"} == {
        "kodak_photos",
        "caption_photos",
    }
    assert report["weights"] == weights_digest(load_codec(tiny_weights, "cpu"))
    assert report["kodak_photos"].startswith("not measured: no Kodak photos found")
    assert report["caption_photos"].startswith("not measured: no held-out photos")


def test_no_weights_no_bench(tmp_path, capsys):
    assert run("--weights", tmp_path) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: no model_index.json in") and err.count("\n") == 1


def test_a_failing_measurement_is_told(monkeypatch):
    monkeypatch.setattr(bench, "_SPEED", "import sys; sys.exit('no memory left')")
    with pytest.raises(RuntimeError, match="the measuring process failed: no memory left"):
        bench.measure_speed()
