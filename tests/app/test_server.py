"""The running server: one address, visitors at once, bad input, and nothing left behind."""

import base64
import re
import socket
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest

from conftest import make_photo, pixels
from perco_lite.app.server import POLICY
from tests.app.conftest import ROOT
from tests.app.test_intake import encoded
from tests.app.test_panels import embedded

gradio_client = pytest.importorskip("gradio_client", reason="gradio is not installed")


@pytest.fixture
def client(server):
    return gradio_client.Client(server.address, verbose=False)


def uploaded(tmp_path, image, name="photo.png"):
    path = tmp_path / name
    path.write_bytes(image if isinstance(image, bytes) else encoded(image))
    return gradio_client.handle_file(path)


def ask(client, name, *inputs):
    """The parts of the page that an answer fills, as they are in the end."""
    job = client.submit(*inputs, api_name=f"/{name}")
    job.result()
    parts = [None] * len(job.outputs()[0])
    for changed in job.outputs():
        parts = [b if isinstance(a, dict) else a for a, b in zip(changed, parts, strict=True)]
    return parts


def compress(client, photo, caption="", rate=0, steps=1, guidance=0, seed=0):
    """(status, file, rates, result, details), all as the page gets it."""
    return ask(client, "compress", photo, caption, rate, steps, guidance, seed)


def test_a_photo_goes_there_and_back(client, server, tiny_codec, tmp_path):
    photo = make_photo(120, 80)
    _, file, rates, result, details = compress(client, uploaded(tmp_path, photo), "a barn", 2)
    data = base64.b64decode(file)
    assert data == tiny_codec.compress(photo, "a barn", "0.0313")
    assert f"{len(data)} bytes" in rates and "PSNR" in details
    other = gradio_client.Client(server.address, verbose=False)
    _, again, _ = ask(other, "paint", file, 1, 0, 0)
    ours = pixels(tiny_codec.decompress(data, 1))
    for shown in (result, again):
        assert np.abs(pixels(embedded(shown)[0]) - ours).max() <= 1


def test_visitors_at_once_get_their_own(server, tiny_codec, tmp_path):
    """The same photo from two of them, and others: whoever comes first, nobody waits in vain."""
    seeds = 1, 1, 2, 3
    photos = [make_photo(100, 60, seed=seed) for seed in seeds]
    files = {}

    def visit(number):
        client = gradio_client.Client(server.address, verbose=False)
        photo = uploaded(tmp_path, photos[number], f"{seeds[number]}.png")
        files[number] = base64.b64decode(compress(client, photo, f"visitor {number}", 1)[1])

    visitors = [threading.Thread(target=visit, args=[number]) for number in range(len(photos))]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    for number, photo in enumerate(photos):
        assert files[number] == tiny_codec.compress(photo, f"visitor {number}", "0.0098")


@pytest.mark.parametrize(
    ("photo", "caption", "message"),
    [
        (b"no photo at all", "", "no image that Pillow knows"),
        (encoded(make_photo())[:200], "", "damaged or cut short"),
        (make_photo(), "x" * 10_001, "10,001 letters, at most 10,000"),
    ],
)
def test_bad_photos_are_a_sentence_and_the_server_goes_on(
    client, server, tmp_path, photo, caption, message
):
    with pytest.raises(gradio_client.exceptions.AppError, match=message):
        compress(client, uploaded(tmp_path, photo), caption)
    assert compress(client, uploaded(tmp_path, make_photo()))[1]
    assert server.said() == "", "no traceback, and nothing of a visitor's"


def test_bad_files_and_options_are_a_sentence(client, server):
    for file, message in (
        ("", "there is no file yet"),
        ("AAAA", "no .perco file|not a .perco|start"),
        ("%%%%", "lost its file"),
    ):
        with pytest.raises(gradio_client.exceptions.AppError, match=message):
            client.predict(file, 1, 0, 0, api_name="/paint")
    assert server.said() == ""


def test_large_uploads_are_refused(server):
    body = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + bytes(20 * 2**20 + 1)
        + b"\r\n--x--\r\n"
    )
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(f"{server.address}gradio_api/upload", body, head)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 413 and b"maximum allowed size" in refused.value.read()


def test_other_files_of_the_machine_stay_there(client):
    photo = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(gradio_client.exceptions.AppError) as refused:
        compress(client, photo)
    assert "root" not in str(refused.value)


def test_it_listens_here_alone_and_lets_the_browser_go_nowhere(server):
    with urllib.request.urlopen(server.address) as answer:
        assert answer.headers["content-security-policy"] == POLICY
        page = answer.read().decode()
    process = psutil.Process(server.process.pid)
    listening = [c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]
    assert "googleapis" not in page and '"analytics_enabled":false' in page.replace(" ", "")


def test_uploads_are_swept(client, server, tmp_path):
    compress(client, uploaded(tmp_path, make_photo(seed=9), "swept.png"))
    for _ in range(60):
        left = [path for path in server.temporary.rglob("*") if path.is_file()]
        if not left:
            return
        time.sleep(1)
    pytest.fail(f"{left} after a minute")


def test_it_ends_without_a_trace(start, tiny_weights):
    command = "-m perco_lite.cli app --no-browser --port 0 --weights".split()
    server = start(*command, tiny_weights)
    assert list(server.temporary.iterdir())
    port = int(re.search(r":(\d+)/", server.address)[1])
    second = start(*command[:-2], port, "--weights", tiny_weights)
    assert second.process.wait(timeout=100) == 2 and second.address == ""
    assert re.fullmatch(
        rf"error: cannot listen on 127.0.0.1, port {port} \(.*\); is a page open there already\? "
        r"Name another with --port, 0 for any that is free\n",
        second.said(),
    )
    assert server.stop() == 0
    assert not list(server.temporary.iterdir()) and server.said() == ""


def test_a_space_starts_as_its_machine_says(start):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port)}
    space = {"SYSTEM": "spaces", "SPACE_ID": "someone/perco_lite", "HF_HUB_OFFLINE": "1"}
    # a Space's own package `spaces` is not this repository's folder, which may lie on the path
    run = "import runpy, sys; sys.modules['spaces'] = None; runpy.run_path(sys.argv[1], None, "
    server = start("-c", f"{run}'__main__')", ROOT / "spaces" / "app.py", **environment | space)
    assert server.address == f"http://127.0.0.1:{port}/", server.said()
    with urllib.request.urlopen(server.address) as answer:
        assert answer.status == 200
    assert server.stop() == 0


def test_a_space_has_its_header():
    import yaml

    head = (ROOT / "spaces" / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    head = yaml.safe_load(head)
    assert head["sdk"] == "gradio" and (ROOT / "spaces" / head["app_file"]).is_file()
    assert "perco_lite[app" in (ROOT / "spaces" / "requirements.txt").read_text(encoding="utf-8")


def memory(server) -> float:
    """MB that a server holds for itself."""
    return psutil.Process(server.process.pid).memory_full_info().uss / 2**20


def test_memory_returns(client, server, tmp_path):
    """After 50 pictures as much as after 10, but for what an allocator keeps."""
    photo = uploaded(tmp_path, make_photo(64, 64))
    measured = []
    for number in range(50):
        compress(client, photo, seed=number)
        measured.append(memory(server))
    assert measured[-1] - measured[9] < 30, measured[::10]
    assert Path(server.temporary).is_dir()
