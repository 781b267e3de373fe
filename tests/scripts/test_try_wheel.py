"""scripts/try_wheel.py: a package with too much or too little in it is refused."""

import io
import tarfile
import zipfile

import pytest


@pytest.fixture
def try_wheel(load_script):
    return load_script("try_wheel")


@pytest.fixture(params=["whl", "tar.gz"])
def package(request, tmp_path, try_wheel):
    """Write a package with files of these names: a wheel, and an sdist."""

    def write(*more, without=()):
        names = [name for name in (*try_wheel.NEEDED, *more) if name not in without]
        path = tmp_path / f"perco_lite-1.{request.param}"
        if request.param == "whl":
            with zipfile.ZipFile(path, "w") as archive:
                for name in names:
                    archive.writestr(name, "x")
        else:
            with tarfile.open(path, "w:gz") as archive:
                for name in names:
                    about = tarfile.TarInfo(f"perco_lite-1/{name}")
                    archive.addfile(about, io.BytesIO())
        return path

    return write


def test_a_whole_package_passes(try_wheel, package):
    try_wheel.check(package("perco_lite/codec.py", "data/results/rates.csv"))


def test_what_is_missing_is_named(try_wheel, package):
    with pytest.raises(ValueError, match="lacks perco_lite/py.typed"):
        try_wheel.check(package(without=["perco_lite/py.typed"]))


@pytest.mark.parametrize("name", ["tests/test_codec.py", "data/checkpoints/x/model.safetensors"])
def test_what_is_the_repositorys_stays_there(try_wheel, package, name):
    with pytest.raises(ValueError, match=f"holds {name}"):
        try_wheel.check(package(name))


def test_it_is_small(try_wheel, package, monkeypatch):
    monkeypatch.setattr(try_wheel, "LARGEST", 100)
    with pytest.raises(ValueError, match="bytes, at most 100"):
        try_wheel.check(package())


def test_notebooks_imports_are_a_program(try_wheel):
    program = try_wheel.notebook_imports()
    compile(program, "imports.py", "exec")
    assert "from perco_lite import PercoCodec" in program and "google.colab" not in program
    assert len(program.splitlines()) > 40
