"""The demonstration: photos in, files, pictures, a table, a CSV and a contact sheet out."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from perco_lite.cli import demo
from perco_lite.cli.main import app
from perco_lite.coding.bitstream import unpack
from perco_lite.loading import load_codec

RATES = ("0.0019", "0.0098", "0.0313", "0.1250")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Five tiny photos that pass for Kodak's, the first upright, and an empty download cache."""
    folder = tmp_path / "data" / "kodak"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PERCO_LITE_DATA", str(folder.parent))
    for number in range(1, 6):
        small = np.random.default_rng(number).integers(0, 256, (5, 7, 3), np.uint8)
        size = (40, 60) if number == 1 else (60, 40)
        image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
        image.save(folder / f"kodim0{number}.png")
    return folder


def test_the_whole_of_it(photos, tiny_weights, tmp_path, capsys):
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as caught:
        app(
            ["demo", "--photos", "2", "--steps", "1", "-o", str(output)]
            + ["--weights", str(tiny_weights)]
        )
    printed, progress = capsys.readouterr()
    assert caught.value.code == 0, progress
    assert "2 of 5 photos from kodak" in printed and str(output / "demo.csv") in printed
    for stage in ("compress", "decompress", "measure", "baselines"):
        assert f"{stage}: 100%" in progress

    with (output / "demo.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [(row["photo"], row["rate"]) for row in rows]
    assert names == [(f"kodim0{number}.png", rate) for number in (1, 5) for rate in RATES]
    codec = load_codec(str(tiny_weights), "cpu")
    for row in rows:
        name = f"{row['photo'].removesuffix('.png')}_{row['rate']}"
        encoded = (output / "files" / f"{name}.perco").read_bytes()
        parts = [int(row[part]) for part in ("header", "caption", "indices")]
        assert len(encoded) == int(row["bytes"]) == sum(parts)
        assert float(row["bpp"]) == pytest.approx(8 * len(encoded) / 2400, abs=1e-5)
        assert parts[1] > 0 and unpack(encoded).caption, "the captions are our own"
        decoded = Image.open(output / "decoded" / f"{name}.png")
        here = codec.decompress(encoded, 1)
        assert np.abs(np.asarray(decoded).astype(int) - np.asarray(here)).max() <= 1
        original = np.asarray(Image.open(photos / row["photo"])).astype(float)
        error = np.mean((original - np.asarray(decoded)) ** 2)
        assert float(row["psnr"]) == pytest.approx(10 * np.log10(255**2 / error), abs=0.01)
        assert row["ms_ssim"] == "", "undefined for so small a photo"
        line = next(
            x for x in printed.splitlines() if x.startswith(row["photo"] + "  " + row["rate"])
        )
        assert line.split()[2:9:2] == [row["bytes"], *(str(part) for part in parts[:3])]
    assert sorted(path.name for path in output.iterdir()) == [
        "contact_sheet.png",
        "decoded",
        "demo.csv",
        "files",
    ]


def row_of(path, rate, size):
    """A row as `draw_sheet` gets it; the photo is one of scikit-image's."""
    sample = demo.sample_photos()[0]
    return {
        "photo": sample.name,
        "rate": rate,
        "bytes": size,
        "bpp": 0.1,
        "sample": sample,
        "decoded": path,
    }


def test_json_goes_where_the_table_went(monkeypatch, capsys, tmp_path):
    row = {name: 1 for name in demo.FORMATS} | {"photo": "a.png", "rate": "0.0019", "lpips": None}

    def run(*settings):
        print("the table, for people")
        return [row | {"file": tmp_path / "a.perco", "decoded": "a.png", "sample": object()}]

    monkeypatch.setattr(demo, "run_demo", run)
    with pytest.raises(SystemExit):
        app(["demo", "--json"])
    out, err = capsys.readouterr()
    (told,) = json.loads(out)
    assert told == row | {"file": str(tmp_path / "a.perco"), "decoded": "a.png"}
    assert err == "the table, for people\n"


def test_the_sheet_shows_what_other_formats_reach(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path / "empty"))
    Image.new("RGB", (512, 512), "green").save(tmp_path / "decoded.png")
    tiles = []
    monkeypatch.setattr(demo, "contact_sheet", lambda lines, title: tiles.extend(lines))
    demo.draw_sheet([row_of(tmp_path / "decoded.png", r, n) for r, n in (("a", 100), ("b", 9000))])
    first, second = tiles
    assert [tile.label.split("\n")[0] for tile in first] == [
        "original",
        "perco_lite 100 bytes",
        "perco_lite 9,000 bytes",
    ]
    assert [tile.accent for tile in first] == [False, True, True]
    assert {tile.image.size for tile in first + second} == {(512, 512)}
    smallest, near = second[:-2], second[-2:]
    sizes = {}
    for tile in smallest:
        name, size, _ = tile.label.split(" ")[:3]
        sizes[name] = int(size.replace(",", ""))
        assert f"its smallest: {sizes[name] / 100:.0f} × 100" in tile.label
    assert list(sizes)[0] == "JPEG" and 1000 < min(sizes.values())
    for tile in near:
        name, size, _ = tile.label.split(" ")[:3]
        assert sizes[name] < int(size.replace(",", "")) <= 9000, "larger than its smallest"
        assert "nearest below 9,000" in tile.label


def test_a_failing_decoder_is_told(tmp_path):
    rows = [{"file": tmp_path / "gone.perco"}]
    with pytest.raises(RuntimeError, match="decoding process failed: error: .*gone.perco: no such"):
        demo._decompress(rows, tmp_path / "decoded", 1, None)


def test_without_kodak_the_samples_are_scikit_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PERCO_LITE_DATA", str(tmp_path))
    monkeypatch.setattr("perco_lite.data.pooch.os_cache", lambda name: tmp_path / name)

    def stop(samples, folder, weights):
        raise ValueError(f"{len(samples)} samples")

    monkeypatch.setattr(demo, "_compress", stop)
    with pytest.raises(SystemExit) as caught:
        app(["demo", "-o", str(tmp_path / "out"), "--photos", "0"])
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and err == "error: 5 samples\n"
    assert "5 of 5 photos from scikit-image" in out and not (tmp_path / "out").exists()
