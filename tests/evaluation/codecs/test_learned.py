"""Files of learned codecs hold all that decoding needs; what is missing is named."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from perco_lite.evaluation.codecs.learned import compress, decompress, learned_from, load_learned
from perco_lite.metrics import Unavailable


def noise(width, height, seed=0):
    shape = (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


class Shuffle(nn.Module):
    """Codes as compressai's do: strings by latent, one a photo, and the grid of the last."""

    def compress(self, x):
        assert x.shape[2] % 64 == x.shape[3] % 64 == 0 and 0 <= x.min() and x.max() <= 1
        pixels = (x * 255).round().byte().numpy().tobytes()
        half = len(pixels) // 2
        return {"strings": [[pixels[:half]], [pixels[half:]]], "shape": torch.Size([1, 2])}

    def decompress(self, strings, shape):
        assert shape == (1, 2)
        flat = np.frombuffer(strings[0][0] + strings[1][0], np.uint8)
        return {"x_hat": torch.from_numpy(flat.reshape(1, 3, 64, 128).copy()) / 255}


def test_photo_comes_back_from_the_file_alone():
    image = noise(70, 33)
    data = compress(Shuffle(), image)
    assert len(data) == 9 + 2 * 3 + 3 * 64 * 128  # head, two lengths, strings of padded pixels
    assert np.array_equal(decompress(Shuffle(), data), image)
    result = learned_from(Shuffle(), "cheng2020", 3)(image)
    assert result.data == data and result.image.size == image.size
    assert (result.codec, result.quality, result.reached) == ("cheng2020", 3, True)


def test_edges_are_repeated_where_it_is_padded():
    seen = {}

    class Watch(Shuffle):
        def compress(self, x):
            seen["x"] = x
            return super().compress(x)

    image = noise(70, 33)
    compress(Watch(), image)
    assert torch.equal(seen["x"][..., 70:], seen["x"][..., 69:70].expand(-1, -1, -1, 58))


def test_broken_files_are_refused():
    data = compress(Shuffle(), noise(70, 33))
    for broken in (b"", data[:8], data[:-1], data + b"x", data[:12]):
        with pytest.raises(ValueError, match=f"got {len(broken)} bytes, expected"):
            decompress(Shuffle(), broken)


def test_errors_say_what_to_do(monkeypatch):
    with pytest.raises(ValueError, match="'elic', expected one of factorized"):
        load_learned("elic", 1)
    with pytest.raises(ValueError, match="mode L"):
        compress(Shuffle(), noise(8, 8).convert("L"))
    with pytest.raises(ValueError, match="70000x1"):
        compress(Shuffle(), Image.new("RGB", (70000, 1)))
    monkeypatch.setitem(sys.modules, "compressai", None)  # makes the import fail
    monkeypatch.delitem(sys.modules, "compressai.zoo.image", raising=False)
    monkeypatch.delitem(sys.modules, "compressai.zoo", raising=False)
    with pytest.raises(Unavailable, match=r"perco_lite\[baselines\]"):
        load_learned("factorized", 1)


def test_random_network_in_the_real_format(monkeypatch, tmp_path):
    zoo = pytest.importorskip("compressai.zoo.image", reason="compressai is not installed")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("PERCO_LITE_DOWNLOAD", raising=False)
    with pytest.raises(Unavailable, match="PERCO_LITE_DOWNLOAD=1"):
        load_learned("factorized", 1)
    with pytest.raises(ValueError, match="quality 9 of factorized, expected 1..8"):
        load_learned("factorized", 9)
    name = zoo.model_urls["bmshj2018-factorized"]["mse"][1].split("/")[-1]
    (tmp_path / "checkpoints").mkdir()
    torch.manual_seed(0)
    network = zoo.model_architectures["bmshj2018-factorized"](128, 192)
    network.update()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / name)
    codec = load_learned("factorized", 1)
    image = noise(70, 33)
    result = codec(image)
    assert result.image.size == (70, 33)
    with torch.no_grad():  # what the network itself makes of the padded photo
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        padded = nn.functional.pad(tensor, (0, 58, 0, 31), mode="replicate")
        expected = network.eval()(padded)["x_hat"][0, :, :33, :70].clamp(0, 1) * 255
    difference = np.asarray(result.image, float) - expected.permute(1, 2, 0).numpy()
    assert np.abs(difference).max() < 1.5
