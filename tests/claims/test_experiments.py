"""The experiments behind the claims, on a tiny codec: what they vary and what they measure."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from perco_lite.claims.experiments.bits import entropy, ledgers, paper_index_bytes
from perco_lite.claims.experiments.captions import captioned_photos, fill, largest_objects, shrink
from perco_lite.claims.experiments.pictures import conditions, unquantized
from perco_lite.claims.experiments.sizes import cut, join, sizes
from perco_lite.claims.experiments.trainings import trainings
from perco_lite.claims.workbench import ClaimSettings, Workbench, centre, claim_photos
from perco_lite.coding import bitstream
from perco_lite.coding.bitstream import ledger, pack, unpack
from perco_lite.coding.entropy_coding import pack_text, zlib_bytes
from perco_lite.data import Sample
from perco_lite.evaluation.metrics.intervals import draw_photos
from perco_lite.evaluation.metrics.patch_distance import patch_frechet_draws
from perco_lite.metrics import psnr
from perco_lite.rates import RATES
from perco_lite.training.index_prior import fit_prior, prior_bits
from perco_lite.unet import predict_velocity, velocity_losses


def test_crops_are_the_middle_and_small_photos_are_left_out(tiny_codec, tiny, make_photo):
    photo = make_photo(0)
    assert np.array_equal(np.asarray(centre(photo, 64, 64)), np.asarray(photo)[40:104, 48:112])
    samples = [Sample(str(i), make_photo(i, (s, s)), "", "x") for i, s in enumerate((63, 64, 65))]
    bench = Workbench(tiny_codec, samples, tiny)
    assert bench.names == ["1", "2"] and {i.size for i in bench.images} == {(64, 64)}
    with pytest.raises(ValueError, match="1 photos of at least 64 pixels"):
        Workbench(tiny_codec, samples[:2], tiny)
    with pytest.raises(ValueError, match="expected at least 64x64"):
        centre(samples[0].image, 64, 64)


@pytest.mark.parametrize("wrong", [{"crop": 100}, {"steps": 0}, {"seeds": 1}, {"draws": 1}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="expected"):
        ClaimSettings(**wrong)


def test_painting_is_the_codec_with_the_papers_noise(bench, tiny_codec):
    rate = bench.highest
    (data,) = bench.files(rate)[:1]
    theirs = tiny_codec.decompress(data, 2, guidance_scale=3.0, seed=0, temperature=1.0, anchor=0.0)
    ours = bench.paint(rate, steps=2, guidance=3.0)[0]
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1
    alone = bench.paint(rate, 2, 3.0, 0, bench.captions[:1], bench.condition(rate)[:1])[0]
    assert np.abs(np.asarray(ours, int) - np.asarray(alone, int)).max() <= 1
    assert bench.paint(rate, steps=2, guidance=3.0) is bench.paint(rate, steps=2, guidance=3.0)
    with pytest.raises(ValueError, match="one of the paper"):
        bench.paint("0.0024", condition=bench.condition(rate))


def test_rows_have_the_figures_of_their_photo(bench):
    rows = bench.rows(bench.images[::-1], rate="r", setting="reversed")
    assert [row["photo"] for row in rows] == ["kodim01.png", "kodim02.png", "kodim03.png"]
    assert rows[0]["psnr"] == psnr(bench.images[0], bench.images[2])
    assert rows[1]["psnr"] == np.inf and rows[1]["feature_distance"] is None
    assert "feature_distance not measured" in bench.notes()[0]  # no SqueezeNet in this folder


def test_velocity_loss_is_that_of_the_definition(bench, tiny_codec):
    from perco_lite.captions import embed_captions

    rate, latents = bench.lowest, bench.latents()[:1]
    condition = bench.condition(rate)[:1]
    with torch.no_grad():
        got = velocity_losses(tiny_codec, latents, condition, ["a dog", ""], rate, seed=5)
        noise = torch.randn((5, 4, 8, 8), generator=torch.Generator().manual_seed(5))
        text = embed_captions(tiny_codec.tokenizer, tiny_codec.text_encoder, [""])
        expected = []
        for i, level in enumerate((199, 399, 599, 799, 999)):
            alpha_bar = tiny_codec.scheduler.alphas_cumprod[level]
            noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise[i]
            target = alpha_bar.sqrt() * noise[i] - (1 - alpha_bar).sqrt() * latents
            number = torch.tensor([[r.name for r in RATES].index(rate)])[0]
            got_v = predict_velocity(tiny_codec.unet, noisy, level, condition, text, number)
            expected.append((got_v - target).pow(2).mean().item())
    assert got[1] == pytest.approx(np.mean(expected), rel=1e-4) and len(got) == 2


def test_every_setting_of_an_experiment_differs_as_it_says(bench, tiny_codec, tiny):
    # at 64 pixels the grid is one index, which two photos may share
    bench = Workbench(tiny_codec, claim_photos(), replace(tiny, crop=128))
    outcome = conditions(bench)
    settings = {row["setting"] for row in outcome.rows}
    assert settings == {
        *(f"text: {k}" for k in ("own", "another's", "none", "NA")),
        *(f"grid: {k}" for k in ("own", "another's", "none")),
    }
    by = {(r["photo"], r["setting"]): r["psnr"] for r in outcome.rows}
    assert len(by) == 3 * len(settings)
    assert by["kodim01.png", "grid: own"] != by["kodim01.png", "grid: another's"]
    assert {r["draw"] for r in outcome.draws} == {0, 1, 2, 3}


def test_unquantized_features_have_the_nearest_codes(bench, tiny_codec):
    rate = bench.highest
    nearest, features = unquantized(bench, rate)
    indices = tiny_codec.conditioner.encode(bench.latents(), rate)
    assert torch.equal(nearest, tiny_codec.conditioner.decode(indices, rate))
    assert features.shape == nearest.shape and not torch.allclose(features, nearest)


def test_draws_are_paired_and_start_with_all_photos(make_photo):
    draws = list(draw_photos(4, 5))
    assert draws[0].tolist() == [0, 1, 2, 3] and len(draws) == 6
    assert all(torch.equal(a, b) for a, b in zip(draws, draw_photos(4, 5), strict=True))
    photos = [make_photo(i) for i in range(4)]
    rows = patch_frechet_draws(photos, {("", "same"): photos, ("", "x"): photos[::-1]}, draws=4)
    same = [r["patch_frechet"] for r in rows if r["setting"] == "same"]
    assert same == pytest.approx([0] * 5, abs=1e-6)
    assert rows[1]["patch_frechet"] == pytest.approx(0, abs=1e-6)  # as a set they are equal
    with pytest.raises(ValueError, match="3 pictures of .* for 4 photos"):
        patch_frechet_draws(photos, {("", "x"): photos[:3]})


def test_index_bytes_of_the_paper():
    names = {rate.name: rate.index_bytes(512, 768) for rate in RATES}
    assert {name: paper_index_bytes(name, 512 * 768) for name in names} == names
    assert names["0.0019"] == 96 and names["0.1250"] == 6144


def test_ledger_rows_are_the_files(bench, tiny_codec, make_photo):
    rows = ledgers(bench).rows
    row = next(r for r in rows if r["photo"] == "kodim02.png" and r["rate"] == "0.0098")
    image = centre(make_photo(1), 128, 128)
    file = unpack(tiny_codec.compress(image, bench.captions[1], "0.0098"))
    data = pack(file, version=2)
    assert row["file_bytes"] == len(data) and row["index_bytes"] == ledger(data)["indices"]
    assert row["version_1_bytes"] == len(pack(file, version=1))
    assert row["uniform_index_bytes"] == row["paper_index_bytes"] == 20  # 16 of 1024 codes
    assert row["index_model_bits"] == 160 and row["index_saving"] == 0, "no prior for these weights"
    human = [r for r in rows if r["setting"] == "human"]
    assert len(human) == 3 and human[0]["paper_bytes"] == 96 + human[0]["zlib_bytes"]
    texts = ["a red barn 1", "two dogs run"]
    sizes = [len(pack_text(text, with_table=True)[1]) for text in texts]
    assert human[0]["table_bytes"] == np.mean(sizes)
    assert human[0]["table_share"] == sum(sizes) / sum(map(zlib_bytes, texts))
    assert human[0]["bits_per_character"] == 8 * sum(sizes) / 24


def test_a_prior_shows_in_the_ledgers(bench, tiny_codec, monkeypatch, make_photo):
    """Indices that a prior expects cost less; the uniform code of them costs what it did."""
    grids = [
        tiny_codec.encode(centre(make_photo(i), 128, 128), "0.0313")[0].numpy() for i in range(3)
    ]
    prior, _ = fit_prior(grids, 256, steps=30, batch_size=64)
    found = {"0.0313": prior}
    monkeypatch.setattr(bitstream, "find_prior", lambda model, rate, *count: found.get(rate))
    rows = [r for r in ledgers(bench).rows if r["rate"] == "0.0313"]
    assert all(r["uniform_index_bytes"] == r["paper_index_bytes"] == 64 for r in rows)
    for row, grid in zip(rows, grids, strict=True):
        bits = 64 * prior_bits(prior, [grid])
        assert row["index_model_bits"] == pytest.approx(bits)
        assert row["index_saving"] == pytest.approx(1 - bits / 512)
        assert row["file_bytes"] < row["version_1_bytes"]


def test_entropy_is_that_of_the_other_photos(bench, tiny_codec, make_photo):
    rows = entropy(bench).rows
    rate = "0.0313"
    folder = ("kodak", "coco_eval")
    grids = [
        tiny_codec.encode(make_photo(10 * f + i), rate, rounds=0).flatten().numpy()
        for f in range(len(folder))
        for i in range(3)
    ]
    counts = np.full(256, 0.5)
    for grid in grids[1:]:
        for index in grid:
            counts[index] += 1
    expected = np.mean([-np.log2(counts[i] / counts.sum()) for i in grids[0]])
    assert rows[12]["rate"] == rate and rows[12]["photo"] == "kodim01.png"
    assert rows[12]["bits"] == pytest.approx(expected)
    assert rows[12]["saving"] == pytest.approx(1 - expected / 8)


def test_captions_have_their_sources(bench, photos, make_photo):
    found, notes = captioned_photos(bench)
    assert not notes and [name for name, _, _ in found][0] == "kodim01.png"
    texts = found[0][2]
    assert texts["human"] == "a red barn 1" and texts["another human"] == "two dogs run"
    assert texts["template"] == "a photo of a car, a dog"  # 60 pixels of car, 50 of dog
    assert found[1][2]["template"] == "a photo of a dog" and found[2][2]["template"] == "a photo"
    assert fill(["a"] * 5) == "a photo of a a, a a, a a" and shrink(make_photo(0)).size == (
        320,
        256,
    )
    (photos / "data/coco_eval/instances.json").unlink()
    with pytest.raises(FileNotFoundError, match="template needs"):
        largest_objects(photos / "data/coco_eval/instances.json")


def test_mosaics_are_cut_as_they_were_joined(bench, make_photo):
    pieces = [make_photo(i, (64, 64)) for i in range(4)]
    again = cut(join(pieces, 2), 64)
    assert all(np.array_equal(a, b) for a, b in zip(pieces, again, strict=True))
    outcome = sizes(bench)
    assert "3 photos of 128 pixels, repeated" in outcome.notes[-1]
    assert [r["pixels"] for r in outcome.rows] == [64] * 3 + [128] * 3 + [256] * 3 + [512] * 3
    assert len({r["photo"] for r in outcome.rows}) == 3


def test_training_needs_photos(tiny_codec, photos, monkeypatch, tmp_path, tiny):
    (tmp_path / "empty").mkdir()
    bench = Workbench(tiny_codec, claim_photos(), tiny)
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path / "empty"))
    with pytest.raises(FileNotFoundError, match="no training photos"):
        trainings(bench)


def test_trainings_are_as_long_as_was_asked(bench, monkeypatch):
    """Of the schedule that the settings give, which no figure would show."""

    def train(stage, settings):
        raise InterruptedError(f"{settings.steps} steps, {settings.warmup_steps} of warm-up")

    bench.settings = replace(bench.settings, training_steps=30)
    monkeypatch.setattr("perco_lite.claims.experiments.trainings.train", train)
    with pytest.raises(InterruptedError, match="30 steps, 3 of warm-up"):
        trainings(bench)


def test_files_decode_to_what_was_measured(bench, tiny_codec):
    for data, name in zip(bench.files(bench.lowest), bench.captions, strict=True):
        assert unpack(data, tiny_codec.model_id).caption == name
