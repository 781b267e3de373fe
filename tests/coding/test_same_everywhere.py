"""Every machine makes the same bytes: by hand, in plain Python, in fresh processes, with threads.

The files' bytes depend on the caption table and the index prior; both are whole numbers from the
context to a symbol's share. Here a prior made by a formula stands for the bundled one.
"""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from perco_lite.coding import caption_model, index_prior, ngram_model, range_coder
from perco_lite.coding.bitstream import PercoFile, pack
from perco_lite.coding.index_prior import BANDS, NEIGHBOURS, IndexPrior, PriorSet
from perco_lite.coding.range_coder import RangeDecoder, RangeEncoder
from perco_lite.rates import get_rate
from tests.coding.conftest import KODAK_CAPTION, Formula, encode, formula_prior

MODEL = 0xBEEF
# Made once with this very code; other machines, threads and versions of numpy must meet them.
SMALL_BYTES = "0006d3ecf5ca7172dda2ee"
LARGE_DIGEST = "af5635556d1107add156fcc642b9079df6a2e297ce8b7c1ab0ef0b1fdb552d09"


def likely_grid(prior: IndexPrior, height: int, width: int) -> np.ndarray:
    """A grid as the prior expects them: what it reads in bytes of the formula."""
    noise = bytes(Formula(11).draw(256, 2 * height * width).tolist())
    return prior.decode(RangeDecoder(noise), (height, width))


def test_the_bytes_are_these():
    grid = Formula(1).draw(5, 3, 4)
    assert grid.tolist() == [[0, 4, 2, 4], [4, 4, 1, 4], [3, 4, 2, 2]]
    assert encode(formula_prior(5, 3), grid).hex() == SMALL_BYTES
    prior = formula_prior(256, 16)
    grids = [likely_grid(prior, 12, 17), Formula(1).draw(256, 9, 9)]
    data = [encode(prior, grid) for grid in grids]
    data += [caption_model.bundled().encode(KODAK_CAPTION)]
    assert hashlib.sha256(b"|".join(data)).hexdigest() == LARGE_DIGEST


def plain_sizes(prior: IndexPrior, grid: list[list[int]], y: int, x: int) -> list[int]:
    """Sizes of all codes' shares at one place, in Python's whole numbers and nothing else."""
    size = prior.codebook_size
    tables, hidden, out = prior.tables.tolist(), prior.hidden.tolist(), prior.out.tolist()
    inside = prior.bands.tolist()[BANDS * y // len(grid)]
    for table, (up, left) in zip(tables, NEIGHBOURS, strict=True):
        row, column = y - up, x - left
        known = row >= 0 and 0 <= column < len(grid[0])
        added = table[grid[row][column] if known else size]
        inside = [a + b for a, b in zip(inside, added, strict=True)]
    inside = [max(a, 0) for a in inside]
    more = []
    for j, bias in enumerate(prior.hidden_bias.tolist()):
        total = sum(a * hidden[i][j] for i, a in enumerate(inside)) + 256 * bias
        more.append(max(total // 256, 0))
    inside = [a + b for a, b in zip(inside, more, strict=True)]
    logits = []
    for j, bias in enumerate(prior.out_bias.tolist()):
        total = sum(a * out[i][j] for i, a in enumerate(inside)) + 256 * bias
        logits.append(total // 2048)  # from 1/65536 to 1/32
    sizes = []
    for below in (max(logits) - logit for logit in logits):
        power, exponent = 0, 576 - min(below, 600)  # the largest with power**32 ≤ 2**exponent
        while exponent >= 0 and (power + 1) ** 32 <= 1 << exponent:
            step = 1
            while (power + 2 * step) ** 32 <= 1 << exponent:
                step *= 2
            power += step
        sizes.append(power + 1)
    return sizes


def test_shares_are_those_of_plain_whole_numbers():
    prior = formula_prior(5, 3)
    grid = Formula(1).draw(5, 9, 4)
    shares = prior.walk(grid)
    for y, row in enumerate(grid.tolist()):
        for x, index in enumerate(row):
            sizes = plain_sizes(prior, grid.tolist(), y, x)
            start = sum(sizes[:index])
            assert next(shares) == (start, sizes[index], sum(sizes))


def test_no_float_has_a_name_between_context_and_share():
    modules = index_prior, ngram_model, caption_model, range_coder
    watched, seen = {module.__file__ for module in modules}, set()

    def watch(frame, event, argument):
        if frame.f_code.co_filename not in watched:
            return None
        for name, value in [*frame.f_locals.items(), ("", argument)]:
            assert not isinstance(value, float | np.floating), (frame.f_code.co_name, name)
            if isinstance(value, np.ndarray):
                assert value.dtype.kind in "iu", (frame.f_code.co_name, name, value.dtype)
        seen.add(frame.f_code.co_name)
        return watch

    prior, table = formula_prior(5, 3), caption_model.bundled()
    grid, coder = Formula(1).draw(5, 3, 4), RangeEncoder()
    before = sys.gettrace()
    sys.settrace(watch)
    try:
        prior.encode(coder, grid)
        table.encode_into(coder, "A zyx on a beach.")
        decoder, again = RangeDecoder(coder.finish()), RangeEncoder()
        prior.decode(decoder, (3, 4), again)
        table.decode_from(decoder, again)
    finally:
        sys.settrace(before)
    assert again.finish() == coder.finish()
    assert {"_sizes", "_from_above", "shares", "_mix", "walk", "decode", "encode"} <= seen


FRESH = """
import os, sys
sys.modules["torch"] = None  # whoever imports it fails
import numpy as np
from perco_lite.coding import index_prior
from perco_lite.coding.bitstream import PercoFile, pack, unpack
stored = dict(np.load(sys.argv[1]))
found = index_prior.PriorSet.from_arrays(stored)
index_prior.bundled = lambda: found
data = bytes.fromhex(sys.argv[2])
file = unpack(data, 0xBEEF)
print(pack(file).hex(), pack(file) == data, file.indices.sum(), file.caption)
"""


@pytest.fixture
def prior_file(tmp_path, monkeypatch):
    """A file coded with a prior, as it was before it was packed, and where the prior lies."""
    prior = formula_prior(256, 16)
    np.savez(tmp_path / "prior.npz", model_id=np.array([MODEL], "<u4"), **prior.arrays("0.0019/"))
    with np.load(tmp_path / "prior.npz") as stored:
        found = PriorSet.from_arrays(dict(stored))
    monkeypatch.setattr(index_prior, "bundled", lambda: found)
    indices = likely_grid(prior, 8, 12)
    file = PercoFile(get_rate("0.0019"), 768, 512, KODAK_CAPTION, indices, MODEL)
    assert pack(file)[1] & 0b100, "else the prior is not what is tested"
    return file, tmp_path / "prior.npz"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fresh_process_without_torch_makes_the_same(prior_file, threads):
    file, path = prior_file
    data = pack(file)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(threads))}
    run = [sys.executable, "-c", FRESH, str(path), data.hex()]
    done = subprocess.run(run, capture_output=True, text=True, env=environment, timeout=300)
    expected = f"{data.hex()} True {file.indices.sum()} {file.caption}\n"
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr
