"""All reconstructions of scikit-image's photos: whole, and the files decode to the pictures."""

import zipfile

import numpy as np
from PIL import Image

from conftest import pixels, read_table
from perco_lite.coding.bitstream import unpack


def test_everything_is_there_and_belongs_together(
    load_script, tiny_codec, tiny_weights, tmp_path, monkeypatch
):
    script = load_script("reconstructions")
    monkeypatch.setattr(script, "PHOTO_METRICS", ("psnr", "clip_score"))
    monkeypatch.setattr(script, "load_codec", lambda weights: tiny_codec)
    monkeypatch.setattr(script, "CODECS", ("perco", "perco-estimate", "autoencoder"))
    output = tmp_path / "made"
    assert script.main(["-o", str(output), "--photos", "1"]) == 0
    rates = tiny_codec.rates
    rows = read_table(output / "metrics.csv")
    assert len(rows) == 2 * len(rates) + 1
    for rate in rates:
        data = (output / "files" / rate / "astronaut.perco").read_bytes()
        assert unpack(data).rate.name == rate and unpack(data).caption
        picture = Image.open(output / "pictures" / "perco" / rate / "astronaut.png")
        assert abs(pixels(picture) - pixels(tiny_codec.decompress(data))).max() <= 1
        (row,) = [r for r in rows if (r["codec"], r["rate"]) == ("perco", rate)]
        assert int(row["bytes"]) == len(data)
    original = Image.open(output / "originals" / "astronaut.png")
    assert original.size == (512, 512) and np.asarray(original).std() > 30
    told = (output / "README.md").read_text()
    assert "Not measured: clip_score" in told and "(digest)" in told
    with zipfile.ZipFile(f"{output}.zip") as packed:
        names = set(packed.namelist())
    assert "made/files/0.0019/astronaut.perco" in names and "made/README.md" in names
    assert not any("metrics_pictures" in name for name in names)
