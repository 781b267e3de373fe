"""scripts/kodak_sizes.py: sizes part by part, of files that another process reads back."""

from perco_lite.cli.inspecting import measured_sizes
from perco_lite.coding.bitstream import pack, unpack
from perco_lite.data import skimage_photos
from perco_lite.files import write_csv


def test_sizes_of_files_that_another_process_reads(tiny_codec, tmp_path, monkeypatch, load_script):
    sizes = load_script("kodak_sizes")
    photo = skimage_photos()[0]
    object.__setattr__(photo, "image", photo.image.crop((0, 0, 64, 64)))
    data = tiny_codec.compress(photo.image, photo.caption, "0.0019")
    indices = unpack(data).indices
    assert sizes.reads_back(data, photo.caption, indices, tiny_codec.model_id)
    assert not sizes.reads_back(data, photo.caption, indices + 1, tiny_codec.model_id)
    monkeypatch.setattr(sizes, "reads_back", lambda *what: True)
    rows = sizes.measure(tiny_codec, [photo])
    assert [row["rate"] for row in rows] == list(tiny_codec.rates)
    for row in rows:
        parts = [row[f"{part}_bytes"] for part in sizes.PARTS]
        assert sum(parts) == row["bytes"] and row["header_bytes"] == 8
    assert rows[0]["paper_bytes"] == 1 + row["caption_paper_bytes"]
    assert "0.0019" in sizes.summary(rows)
    path = tmp_path / "sizes.csv"
    first = pack(unpack(data), version=1)
    assert rows[0]["version_1_bytes"] == len(first) > rows[0]["bytes"] == len(data)
    assert rows[0]["without_prior_bytes"] == len(data) and not rows[0]["prior_coded"]
    write_csv(path, rows)
    assert measured_sizes(path, version=2)["0.0019"]["mean"] == rows[0]["bytes"]
    assert measured_sizes(path, version=1)["0.0019"]["mean"] == len(first)
