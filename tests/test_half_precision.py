"""--dtype: the same file, painted in half precision; what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

from perco_lite import loading
from perco_lite.coding.bitstream import unpack
from tests.full_scale.conftest import build


@pytest.fixture(scope="module")
def weights(tiny_stable_diffusion, tmp_path_factory):
    """A codec around the tiny Stable Diffusion, as training saves it."""
    folder = tmp_path_factory.mktemp("codec")
    build(tiny_stable_diffusion).save_pretrained(folder)
    return folder


@pytest.fixture
def perco(perco, monkeypatch):
    """Run the command: (exit code, stdout, stderr), and the types of the weights it loaded."""
    loaded, real = [], loading.load_codec

    def load(*arguments, **options):
        loaded.append(real(*arguments, **options))
        return loaded[-1]

    monkeypatch.setattr(loading, "load_codec", load)

    def run(*arguments):
        loaded.clear()
        result = perco(*arguments)
        return *result, {p.dtype for codec in loaded for p in codec.unet.parameters()}

    return run


@pytest.fixture
def photo(tmp_path):
    Image.linear_gradient("L").resize((70, 50)).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("kind", ["weights", "tiny_weights"])
def test_both_scales_paint_in_half_precision(perco, photo, kind, request):
    options = ("--weights", request.getfixturevalue(kind), "--device", "cpu")
    assert perco("compress", photo, "--caption", "a red barn", *options)[3] == {torch.float32}
    file, pictures = photo.with_suffix(".perco"), {}
    for dtype in (None, "float32", "bfloat16", "float16"):
        target = photo.with_name(f"{dtype}.png")
        chosen = ("--dtype", dtype) if dtype else ()
        result = perco("decompress", file, "-o", target, "--steps", 2, *options, *chosen)
        assert result[0] == 0 and result[3] == {getattr(torch, dtype or "float32")}, result
        pictures[dtype] = np.asarray(Image.open(target)).astype(int)
    assert (pictures[None] == pictures["float32"]).all(), "the default is unchanged"
    for dtype in ("bfloat16", "float16"):
        difference = np.abs(pictures[dtype] - pictures[None])
        assert 0 < difference.max() and difference.mean() < 8, "rounding, and no more"


def test_a_file_made_in_half_precision_is_anyones(perco, photo, weights):
    options = ("--weights", weights, "--device", "cpu")
    _, _, _, types = perco("compress", photo, *options, "--dtype", "bfloat16")
    assert types == {torch.bfloat16}
    file = photo.with_suffix(".perco")
    assert unpack(file.read_bytes()).indices.shape == (1, 2)
    assert perco("decompress", file, "-o", photo.with_name("out.png"), *options)[0] == 0


def test_other_types_are_one_line(perco, photo, weights):
    code, out, err, _ = perco("compress", photo, "--weights", weights, "--dtype", "int8")
    expected = "error: unknown dtype 'int8', expected one of float32, bfloat16, float16\n"
    assert (code, out, err) == (2, "", expected)
