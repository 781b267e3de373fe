"""Which files a command reads and writes, what must never be overwritten, what fails alone."""

import pytest
import typer
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from perco_lite.cli.files import Batch, expand, plan_outputs
from perco_lite.files import SOFTWARE

PNG = frozenset({".png", ".jpg"})


def names(plan):
    """Output names of a plan, without their folders."""
    return [[target.name for target in targets] for _, targets in plan]


@pytest.fixture
def folder(tmp_path):
    """A folder with two photos, one of them hidden, a text, and a folder called like a photo."""
    inside = tmp_path / "photos"
    (inside / "folder.png").mkdir(parents=True)
    for name in ("b.PNG", "a.jpg", "._a.jpg", "notes.txt"):
        (inside / name).write_bytes(b"x")
    return inside


def test_folders_become_their_files_each_once(folder, capsys):
    batch = Batch()
    files = expand([folder, folder / "a.jpg", folder / "notes.txt"], PNG, batch)
    assert [file.name for file in files] == ["a.jpg", "b.PNG", "notes.txt"]
    batch.finish()
    assert capsys.readouterr().err == f"note: {folder}: 2 not read: folder.png/, notes.txt\n"


def test_missing_and_empty_fail_alone(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    batch = Batch()
    files = expand([tmp_path / "none.png", tmp_path / "empty", folder / "a.jpg"], PNG, batch)
    assert files == [folder / "a.jpg"]
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {tmp_path / 'none.png'}: no such file or folder; check the path"
    assert second.startswith(f"error: {tmp_path / 'empty'}: no file in this folder ends in .jpg .p")
    with pytest.raises(typer.Exit) as caught:
        batch.finish()
    assert caught.value.exit_code == 2


def test_outputs_beside_the_input_in_a_folder_or_as_named(folder, tmp_path):
    a, b = folder / "a.jpg", folder / "b.PNG"
    assert plan_outputs([a], None, ".perco", Batch()) == [(a, [folder / "a.perco"])]
    one = tmp_path / "one.perco"
    assert plan_outputs([a], one, ".perco", Batch()) == [(a, [one])]
    # with several inputs, or where it is a folder already, the same name is a folder
    assert plan_outputs([a, b], one, ".perco", Batch())[1] == (b, [one / "b.perco"])
    one.mkdir()
    assert plan_outputs([a], one, ".perco", Batch()) == [(a, [one / "a.perco"])]
    assert plan_outputs([a], tmp_path / "new", ".perco", Batch()) == [
        (a, [tmp_path / "new" / "a.perco"])
    ]


def test_one_output_per_tag(tmp_path):
    file, tags = tmp_path / "a.v2.perco", ("_seed1", "_seed3")
    plan = plan_outputs([file], None, ".png", Batch(), tags)
    assert names(plan) == [["a.v2_seed1.png", "a.v2_seed3.png"]]
    plan = plan_outputs([file], tmp_path / "out.png", ".png", Batch(), tags)
    assert names(plan) == [["out_seed1.png", "out_seed3.png"]]


@pytest.mark.parametrize("output", [None, "out"], ids=["beside", "folder"])
def test_two_inputs_never_write_one_file(tmp_path, capsys, output):
    files = [tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "b.png"]
    if output:
        files[1] = tmp_path / "other" / "a.png"
    batch = Batch()
    plan = plan_outputs(files, output and tmp_path / output, ".perco", batch)
    assert [file for file, _ in plan] == [files[0], files[2]] and batch.failed
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {files[1]}: would write") and str(files[0]) in line


def test_inputs_are_never_written_over(tmp_path, capsys):
    file = tmp_path / "a.perco"
    file.write_bytes(b"x")
    assert plan_outputs([file], None, ".perco", Batch()) == []
    assert "would write over" in capsys.readouterr().err
    (tmp_path / "link.perco").symlink_to(file)
    assert plan_outputs([file], tmp_path / "link.perco", ".perco", Batch()) == []
    # a.perco would become a.png, which is also on the list
    photo = tmp_path / "a.png"
    assert [f for f, _ in plan_outputs([file, photo], tmp_path, ".png", Batch())] == []


def test_a_name_that_cannot_be_the_output(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"x")
    a, b = tmp_path / "a.perco", tmp_path / "b.perco"
    assert plan_outputs([a], tmp_path / "a.jpg", ".png", Batch()) == []
    assert "must end in .png" in capsys.readouterr().err
    assert plan_outputs([a, b], tmp_path / "file", ".png", Batch()) == []
    assert "name a folder" in capsys.readouterr().err
    assert plan_outputs([], tmp_path / "a.jpg", ".png", Batch()) == []
    assert capsys.readouterr().err == ""


def test_pictures_of_others_stay(tmp_path, capsys):
    file, photo = tmp_path / "a.perco", tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(photo)
    assert names(plan_outputs([file], None, ".png", Batch())) == [["a_decoded.png"]]
    assert names(plan_outputs([file], tmp_path, ".png", Batch())) == [["a_decoded.png"]]
    assert names(plan_outputs([file], photo, ".png", Batch())) == [["a.png"]], "it was named"
    Image.new("RGB", (2, 2)).save(tmp_path / "a_decoded.png")
    assert plan_outputs([file], None, ".png", Batch()) == []
    assert "perco did not make" in capsys.readouterr().err
    ours = PngInfo()
    ours.add_text("Software", SOFTWARE)
    Image.new("RGB", (2, 2)).save(photo, pnginfo=ours)
    assert names(plan_outputs([file], None, ".png", Batch())) == [["a.png"]]


def test_a_message_names_its_file_once(capsys):
    Batch().fail("a.png", ValueError("a.png is empty"))
    Batch().fail("a.png", ValueError("not a file"))
    assert capsys.readouterr().err == "error: a.png is empty\nerror: a.png: not a file\n"
