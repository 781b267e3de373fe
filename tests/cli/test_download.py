"""Lists of photos, from a server of our own: checked, resumed, whole or not at all."""

import hashlib
import http.server
import threading

import pytest
from typer.testing import CliRunner

from perco_lite.cli.download import SOURCES, download_photos, read_list
from perco_lite.cli.main import app


def content(name: str) -> bytes:
    return f"photo {name}".encode() * 100


@pytest.fixture
def server():
    """URL with {name}; and what was asked for. Names with "cut" break off, "no" are not there."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            name = self.path[1:].removesuffix(".jpg")
            asked.append(name)
            body = content(name)
            self.send_response(404 if "no" in name else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if "cut" in name else body)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}/{{name}}.jpg", asked
        running.shutdown()


def names(count: int) -> dict:
    return {f"p{n}": None for n in range(count)}


def test_photos_are_downloaded_once(server, tmp_path):
    url, asked = server
    done = download_photos(names(5), tmp_path, url)
    assert (done.present, done.new, done.failed) == (5, 5, {})
    assert all((tmp_path / f"p{n}.jpg").read_bytes() == content(f"p{n}") for n in range(5))
    more = download_photos(names(7), tmp_path, url, workers=1)
    assert (more.present, more.new) == (7, 2) and sorted(asked) == sorted(names(7))
    assert len((tmp_path / "checksums.txt").read_text().splitlines()) == 7


def test_a_photo_that_has_changed_on_disk_is_downloaded_again(server, tmp_path):
    url, asked = server
    download_photos(names(3), tmp_path, url)
    (tmp_path / "p1.jpg").write_bytes(b"half a fi")
    download_photos(names(3), tmp_path, url)
    assert (tmp_path / "p1.jpg").read_bytes() == content("p1") and asked.count("p1") == 2


def test_checksums_of_the_list_are_kept_to(server, tmp_path):
    right = "sha256:" + hashlib.sha256(content("p0")).hexdigest()
    md5 = "md5:" + hashlib.md5(content("p1")).hexdigest()
    wrong = "sha256:" + "0" * 64
    with pytest.warns(UserWarning, match="1 photos failed; the first, p2: .*hash"):
        done = download_photos(
            {"p0": right, "p1": md5, "p2": wrong}, tmp_path, server[0], retries=0
        )
    assert done.present == 2 and list(done.failed) == ["p2"]
    assert not (tmp_path / "p2.jpg").exists()


def test_what_breaks_off_leaves_no_half_file(server, tmp_path):
    with pytest.warns(UserWarning, match="2 photos failed"):
        done = download_photos({"a": None, "cut": None, "no": None}, tmp_path, server[0], retries=0)
    assert done.present == 1 and set(done.failed) == {"cut", "no"} and "404" in done.failed["no"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.jpg", "checksums.txt"}


def test_too_many_failures_stop_and_say_how_to_go_on(server, tmp_path):
    bad = {f"no{n}": None for n in range(12)}
    with pytest.raises(ConnectionError, match="11 of 42 downloads failed, over 1%.*run the same"):
        download_photos(names(30) | bad, tmp_path, server[0], retries=0)
    assert len(list(tmp_path.glob("p*.jpg"))) == 30


def test_lists(tmp_path):
    plain = tmp_path / "coco.txt"
    plain.write_text(f"# COCO\n000000000009.jpg\ntrain2017/000000000034.jpg md5:{'ab' * 16}\n\n")
    assert read_list(plain) == {"000000000009": None, "000000000034": f"md5:{'ab' * 16}"}
    table = tmp_path / "openimages.csv"
    table.write_text("ImageID,Subset\n0a1b,train\n2c3d,train\n")
    assert read_list(table) == {"0a1b": None, "2c3d": None}


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.txt", "", "names no photo"),
        ("a.txt", "one two three", "expected `NAME` or `NAME sha256"),
        ("a.txt", "photo 123", "expected `NAME` or `NAME sha256"),
        ("a.txt", "..", "got the name"),
        ("a.csv", "name\nx\n", "no column ImageID"),
    ],
)
def test_odd_lists_are_explained(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_list(tmp_path / name)


def test_sources_are_urls_with_a_name(tmp_path):
    assert all("{name}" in url and url.startswith("http") for url in SOURCES.values())
    with pytest.raises(ValueError, match="source is 'imagenet', expected a URL with {name} or one"):
        download_photos(names(1), tmp_path, "imagenet")


def test_the_command(server, tmp_path):
    (tmp_path / "list.txt").write_text("p0\np1\np2\n")
    arguments = ["download", str(tmp_path / "list.txt"), "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--source", server[0], "--limit", "2"])
    assert result.exit_code == 0 and "2 photos, 2 new, 0 failed" in result.output
    result = CliRunner().invoke(app, ["download", "nowhere", "-o", "x", "--source", "coco-val2017"])
    assert result.exit_code == 2 and "no list at nowhere" in result.output
