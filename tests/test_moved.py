"""Import paths of 0.1.0: each fails in one line that names the module to import instead."""

import importlib
import importlib.util

import pytest

import perco_lite

MOVED = {
    old: f"perco_lite.{folder}.{new or old}"
    for folder, modules in perco_lite._MOVED.items()
    for old, _, new in (module.partition("=") for module in modules.split())
}
# of the same name as a module of 0.1.0
FOLDERS = {"captioning", "cli", "evaluation", "training"}


@pytest.mark.parametrize("old", MOVED)
def test_names_the_new_module(old):
    assert importlib.util.find_spec(MOVED[old]), "the new module must be there"
    message = f"perco_lite.{old} moved to {MOVED[old]}; change the import"
    with pytest.raises(ModuleNotFoundError, match=message):
        exec(f"from perco_lite.{old} import something")
    if old not in FOLDERS:
        with pytest.raises(ModuleNotFoundError, match=message):
            importlib.import_module(f"perco_lite.{old}")
        with pytest.raises(ModuleNotFoundError, match=message):
            exec(f"from perco_lite import {old}")


def test_other_names_fail_as_ever():
    with pytest.raises(ModuleNotFoundError, match="No module named 'perco_lite.nothing'"):
        importlib.import_module("perco_lite.nothing")
    with pytest.raises(ModuleNotFoundError, match="No module named 'perco_lite.claim_list'"):
        importlib.import_module("perco_lite.claim_list")  # of the claims' first edition: gone
    with pytest.raises(ModuleNotFoundError, match="No module named 'nothing'"):
        importlib.import_module("nothing")
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'perco_lite.rates'"):
        exec("from perco_lite.rates import nothing")
    # modules of 0.1.0: those that moved, those that stay, the first edition of the claims, whose
    # twelve are gone, and patch_distance, our own measure, which published ones replaced
    assert len(MOVED) + 18 + 12 + 1 == 90
