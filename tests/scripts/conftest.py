"""The scripts of scripts/ as modules."""

import importlib
import sys

import pytest


@pytest.fixture(scope="session")
def load_script():
    """Name -> the script's module, a fresh one each time: tests change what is in it.

    ``pythonpath`` in pyproject.toml has the folder, for processes that a script starts too.
    """

    def load(name: str):
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load
