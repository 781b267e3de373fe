"""Fitting a prior to patterns it can learn, the same one twice, and floats made whole."""

import inspect
import math

import numpy as np
import pytest
import torch

from perco_lite.cli import train as train_cli
from perco_lite.coding.index_prior import IndexPrior, PriorSet, grid_contexts
from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder
from perco_lite.rates import get_rate
from perco_lite.training.index_prior import (
    PriorNetwork,
    collect_grids,
    fit_prior,
    order_0_bits,
    prior_bits,
    reading_order,
    train_prior_recipe,
    write_priors,
)
from perco_lite.training.latents import LatentStore
from perco_lite.training.settings import PriorSettings
from tests.training.conftest import waves


def stripes(count, size=8, seed=0):
    """Grids whose rows go up by one from left to right, from a random start."""
    numbers = np.random.default_rng(seed)
    return [(numbers.integers(size, size=(4, 1)) + np.arange(6)) % size for _ in range(count)]


def test_whole_numbers_say_what_the_floats_said():
    torch.manual_seed(0)
    network = PriorNetwork(11, width=6)
    with torch.no_grad():
        network.bands.normal_()
        network.tables.normal_()
    prior = network.quantize()
    grid = np.random.default_rng(0).integers(0, 11, (9, 5))
    logits = network(torch.from_numpy(grid_contexts(grid, 11)))
    shares = logits.softmax(1)[torch.arange(45), torch.from_numpy(grid.reshape(-1))]
    ours = [size / total for _, size, total in prior.walk(grid)]
    assert np.allclose(np.log2(ours), shares.log2().detach().numpy(), atol=0.1)


def test_weights_too_large_are_cut():
    network = PriorNetwork(3, width=2)
    with torch.no_grad():
        network.out.bias.fill_(1e9)
    assert network.quantize().out_bias.tolist() == [0x7FFF] * 3


def test_a_pattern_is_learned_and_coded_short():
    prior, bits = fit_prior(stripes(60), 8, steps=150, batch_size=128, width=8, learning_rate=0.02)
    fresh = stripes(5, seed=1)
    spent, alone = prior_bits(prior, fresh), order_0_bits(stripes(60), fresh, 8)
    assert 2.9 < alone < 3.2 and spent < 0.5 * alone and bits < 1.5
    coder = RangeEncoder()
    prior.encode(coder, fresh[0])
    data = coder.finish()
    assert len(data) < 24 * 3 / 8 and (prior.decode(RangeDecoder(data), (4, 6)) == fresh[0]).all()


def test_noise_cannot_be_learned():
    grids = [np.random.default_rng(i).integers(0, 4, (8, 8)) for i in range(20)]
    prior, _ = fit_prior(grids, 4, steps=20, batch_size=64, width=4)
    assert prior_bits(prior, grids[:2]) == pytest.approx(2, abs=0.3)


def test_a_seed_gives_the_same_prior_and_leaves_torch_alone():
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, other, third = (
        fit_prior(stripes(5), 8, steps=3, batch_size=16, width=4, seed=s)[0].arrays("")
        for s in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert not np.array_equal(one["tables"], third["tables"])


def test_order_0_by_hand():
    # counts 3 + 1 and 1 + 1 of two codes
    grids = [np.array([[0, 0], [0, 1]])]
    assert order_0_bits(grids, [np.array([[0, 1]])], 2) == pytest.approx(
        (math.log2(6 / 4) + math.log2(6 / 2)) / 2
    )


def test_no_grids_are_explained():
    with pytest.raises(ValueError, match="give photos that are large enough"):
        fit_prior([], 8)


def test_grids_are_what_the_codec_sends(tiny_codec):
    photo = torch.randn(4, 17, 25, generator=torch.manual_seed(0))
    store = LatentStore([photo, torch.zeros(4, 3, 3), photo + 1], [7, 8, 9], torch.ones(3))
    grids, photos = collect_grids(tiny_codec, store, [1, 0, 2], "0.0098", enough=30)
    assert [grid.shape for grid in grids] == [(4, 6), (4, 6)], "one photo, and its mirror image"
    assert photos == [7, 7]
    assert all(grid.dtype == np.int64 and grid.max() < 1024 for grid in grids)
    assert not np.array_equal(grids[0], grids[1])
    assert len(collect_grids(tiny_codec, store, [1, 0, 2], "0.0098")[0]) == 4


def test_large_photos_come_first_where_indices_are_few():
    store = LatentStore([torch.zeros(4, n % 3, 1) for n in range(9)], list(range(9)), torch.ones(9))
    small, large = (reading_order(store, stride, 0) for stride in (16, 64))
    assert sorted(small) == sorted(large) == list(range(9))
    assert [n % 3 for n in large] == [2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert [n for n in small if n % 3 == 2] == large[:3], "and in random order within a size"


def test_from_photos_to_priors_that_code(tmp_path, tiny_weights, tiny_codec):
    for i in range(3):
        waves(140, 130, i).save(tmp_path / f"{i}.png")
    output = tmp_path / "out" / "index_prior.npz"
    summary = train_prior_recipe(
        tmp_path, output, str(tiny_weights), large=0, steps=2, batch_size=8, width=2, device="cpu"
    )
    assert summary["bytes"] == output.stat().st_size
    assert sorted(summary["rates"]) == sorted(tiny_codec.rates)
    for rate, row in summary["rates"].items():
        assert row["uniform_bits"] == get_rate(rate).bits_per_index and row["grids"] == 4
        assert row["saved"] == pytest.approx(1 - row["prior_bits"] / row["uniform_bits"], abs=1e-3)
    with np.load(output, allow_pickle=False) as stored:
        found = PriorSet.from_arrays(dict(stored))
    assert found.model_id == tiny_codec.model_id and list(found.priors) == sorted(tiny_codec.rates)


def test_one_photo_is_too_few(tmp_path, tiny_weights):
    waves(70, 70, 0).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match="got 1 photos"):
        train_prior_recipe(tmp_path, tmp_path / "p.npz", str(tiny_weights))


def test_a_file_of_priors(tmp_path):
    prior, _ = fit_prior(stripes(2), 8, steps=1, batch_size=4, width=2)
    path = tmp_path / "new" / "prior.npz"
    assert write_priors({"0.0019": prior}, 0xBEEF, path) == path.stat().st_size
    with np.load(path, allow_pickle=False) as arrays:
        assert int(arrays["model_id"][0]) == 0xBEEF
        back = IndexPrior.from_arrays(arrays, "0.0019/")
    assert np.array_equal(back.tables, prior.tables)


def test_the_command_trains_as_the_functions_do():
    """The bundled prior was made by the defaults; `perco train prior` must make it again."""
    options = inspect.signature(train_cli.train_prior).parameters
    assert {"photos", "large", "steps", "seed", "width", "batch_size"} <= set(options)
    for name, default in vars(PriorSettings()).items():
        assert options[name].default == default, name
