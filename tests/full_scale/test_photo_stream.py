"""Streamed photos: every photo has a number, processes share nothing, faults are counted."""

import http.server
import io
import json
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from perco_lite.full_scale.photo_stream import PhotoStream, random_crop
from perco_lite.training import shards
from perco_lite.training.photos import PhotoStore


def jpeg(number: int, size=(40, 30)) -> bytes:
    """A photo of one colour, by which it is known again."""
    stream = io.BytesIO()
    Image.new("RGB", size, (number, 255 - number, 128)).save(stream, "png")
    return stream.getvalue()


def write_shard(path, numbers, spoil=()):
    with tarfile.open(path, "w") as tar:
        for n in numbers:
            photo = jpeg(n)[:50] if n in spoil else jpeg(n)
            about = json.dumps({"captions": [f"number {n}"]}).encode()
            for name, content in ((f"{n:03}.png", photo), (f"{n:03}.json", about)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path):
    """Seven shards of five photos, numbered from 0 to 34."""
    for number in range(7):
        write_shard(tmp_path / f"{number}.tar", range(5 * number, 5 * number + 5))
    return tmp_path


def stream(data, **settings) -> PhotoStream:
    return PhotoStream(data, **{"size": 16, "per_visit": 5, "workers": 2, **settings})


def numbers(crops: torch.Tensor) -> list[int]:
    assert (crops.flatten(2) == crops[:, :, :1, 0]).all()
    return ((crops[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


# --- which photo comes when ---


@pytest.mark.parametrize("parts", [1, 2, 3, 7, 10])
def test_in_an_epoch_every_shard_is_visited_by_one_process(folder, parts):
    streams = [stream(folder, part=part, parts=parts) for part in range(parts)]
    visits = [streams[v % parts].shard_of(v // parts) for v in range(21)]
    for epoch in range(3):
        assert sorted(visits[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert visits[:7] != visits[7:14], "the order changes"


def test_two_processes_share_no_photo_in_an_epoch(folder):
    seen = []
    for part in range(2):
        crops, captions = stream(folder, part=part, parts=2).crops(0, 15)
        assert captions == [[f"number {n}"] for n in numbers(crops)]
        seen.append(numbers(crops))
    assert len(set(seen[0])) == len(set(seen[1])) == 15
    assert not set(seen[0]) & set(seen[1])


def test_a_stream_that_starts_in_the_middle_goes_on_as_it_would_have(folder):
    whole, captions = stream(folder).crops(0, 45)
    assert sorted(numbers(whole[:35])) == list(range(35))
    visits = [numbers(whole)[i : i + 5] for i in range(0, 45, 5)]
    assert all(len({n // 5 for n in visit}) == 1 for visit in visits), "a shard a visit"
    assert any(sorted(visit) != visit for visit in visits), "in an order of its own"
    one = stream(folder)
    for first, count in ((36, 4), (40, 5), (3, 9)):
        crops, said = one.crops(first, count)
        assert torch.equal(crops, whole[first : first + count])
        assert said == captions[first : first + count]
    assert numbers(stream(folder, seed=1).crops(0, 35)[0]) != numbers(whole[:35])


def test_small_shards_are_taken_again_in_another_order(folder):
    seen = numbers(stream(folder, per_visit=20).crops(0, 20)[0])
    laps = [seen[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(lap) == sorted(laps[0]) for lap in laps)
    assert len({tuple(lap) for lap in laps}) > 1


def test_a_folder_of_photos_with_captions(tmp_path):
    for n in range(9):
        (tmp_path / f"{n}.png").write_bytes(jpeg(n))
    (tmp_path / "captions.json").write_text('{"3.png": "three", "4.png": ["four", "vier"]}')
    seen = []
    for part in range(2):
        crops, captions = stream(tmp_path, part=part, parts=2).crops(0, 4)
        seen += zip(numbers(crops), captions, strict=True)
    assert len({n for n, _ in seen}) == 8
    said = {3: ["three"], 4: ["four", "vier"]}
    assert all(captions == said.get(n, []) for n, captions in seen)


# --- crops ---


def test_crops_are_squares_of_every_scale_half_of_them_flipped():
    ramp = np.linspace(0, 255, 200).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (100, 200, 3)).copy())
    random = np.random.default_rng(0)
    slopes = []
    for _ in range(200):
        crop = random_crop(image, 32, random)
        assert crop.shape == (3, 32, 32) and crop.min() >= -1 and crop.max() <= 1
        slopes.append(float(crop[0, 0, -1] - crop[0, 0, 0]))
    sides = np.abs(slopes) / 2 * 200 * 32 / 31
    assert sides.min() < 40 and sides.max() > 90  # of 100 pixels
    assert 60 < sum(slope < 0 for slope in slopes) < 140


def test_a_photo_smaller_than_the_crop_is_enlarged():
    crop = random_crop(Image.new("RGB", (9, 20), "red"), 32, np.random.default_rng(0))
    assert crop.shape == (3, 32, 32) and (crop[0] == 1).all() and (crop[1:] == -1).all()


# --- URLs ---


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; breaks off in the middle of names that say so."""

    asked = []

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.asked.append(self.path)
        if "cut" not in self.path:
            return super().do_GET()
        content = (self.folder / self.path[1:]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) * 3 // 5])


@pytest.fixture
def url(folder, monkeypatch):
    handler = type("Handler", (Server,), {"folder": folder, "asked": []})

    def make(*args):
        return handler(*args, directory=str(folder))

    monkeypatch.setattr(shards, "RETRY_SECONDS", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
        server.shutdown()


def test_a_url_streams_what_the_disk_does_a_shard_at_a_time(folder, url):
    place, asked = url
    far, near = stream(f"{place}/{{0..6}}.tar"), stream(folder)
    assert not asked and len(far.shards) == 7
    crops, captions = far.crops(5, 5)
    assert torch.equal(crops, near.crops(5, 5)[0]) and captions == near.crops(5, 5)[1]
    assert len(set(asked)) <= 2, "this shard, and the one after it"


def test_a_download_that_breaks_off_is_tried_again_then_counted(folder, url):
    place, asked = url
    write_shard(folder / "cut.tar", range(40, 60))
    samples, problem = shards.read_samples(f"{place}/cut.tar")
    assert asked == ["/cut.tar"] * 3
    assert 5 < len(samples) < 20 and all("json" in sample for sample in samples)
    assert "cut.tar: " in problem and " at 0x" not in problem
    with pytest.warns(UserWarning, match="broken shard, .* photos used: .*cut.tar"):
        stream(f"{place}/cut.tar").crops(0, 4)


def test_a_shard_that_is_not_there_is_said(url):
    with pytest.raises(ValueError, match=r"no photo in any of 1 shards.*HTTP Error 404"):
        with pytest.warns(UserWarning, match="broken shard, 0 photos"):
            stream(f"{url[0]}/none.tar").crops(0, 1)


def test_shards_from_urls_can_be_read_into_memory(url):
    store = PhotoStore(f"{url[0]}/{{2..3}}.tar")
    assert [texts for texts in store.captions] == [[f"number {n}"] for n in range(10, 20)]


# --- faults ---


def test_a_broken_shard_is_skipped_and_two_are_too_many(folder):
    (folder / "3.tar").write_bytes((folder / "3.tar").read_bytes()[:700])
    words = r"broken shard, 0 photos used: .*3.tar: ReadError: [\w ]+$"
    with pytest.warns(UserWarning, match=words):
        one = stream(folder)
        found = numbers(one.crops(0, 35)[0])
    assert not set(found) & set(range(15, 20)) and len(one.broken_shards) == 1
    (folder / "4.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match="2 of 7 shards are broken, over 1%; download them again"):
        with pytest.warns(UserWarning):
            stream(folder).crops(0, 35)


def test_a_broken_photo_gives_its_place_to_another(tmp_path):
    write_shard(tmp_path / "a.tar", range(20), spoil=(3, 4))
    one = stream(tmp_path, per_visit=20)
    crops, captions = one.crops(0, 20)
    assert len(set(numbers(crops))) == 18 and not {3, 4} & set(numbers(crops))
    assert captions == [[f"number {n}"] for n in numbers(crops)]
    assert len(one.faults.messages) == 2 and "004" in "".join(one.faults.messages)


def test_more_than_a_hundredth_broken_stops(tmp_path):
    write_shard(tmp_path / "a.tar", range(40), spoil=range(5, 20))
    with pytest.raises(ValueError, match="11 of .* photos cannot be read, over 1%: repair"):
        stream(tmp_path, per_visit=40).crops(0, 40)
    with pytest.raises(ValueError, match="11 of .* photos cannot be read, over 1%: repair"):
        list(shards.read_training_photos(tmp_path))
    faults = shards.Faults()
    faults.seen = 2000
    for number in range(20):  # 20 of 2020
        faults.note(f"photo {number}")
    with pytest.raises(ValueError, match="21 of 2021"):
        faults.note("photo 20")


def test_nothing_to_stream_is_said_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        stream(tmp_path / "nowhere")
    (tmp_path / "all.png").write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of 2 photos can be read"):
        stream(tmp_path).crops(0, 2)
