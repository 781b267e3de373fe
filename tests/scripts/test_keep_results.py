"""scripts/keep_results.py keeps tables that are whole, and no path of one machine in a command."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kept(tmp_path):
    """Keep a table with these changes to its summary: (the JSON kept, the script, its folder)."""
    spec = importlib.util.spec_from_file_location("keep_results", ROOT / "scripts/keep_results.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def kept(**changes):
        about = {
            "made_by": "perco evaluate",
            "finished": True,
            "skipped": [],
            "command": "/home/me/.venv/bin/perco evaluate 'my photos' -o out/k.csv",
            "machine": "a laptop",
            "photos": 3,
            "settings": {"dataset": "my photos"},
        }
        (tmp_path / "k.csv").write_text("photo,codec\na.png,jpeg\n")
        (tmp_path / "k.json").write_text(json.dumps(about | changes))
        script.keep(tmp_path / "k.csv", tmp_path / "results")
        return json.loads((tmp_path / "results" / "k.json").read_text()), script

    return kept


def test_a_table_is_kept_with_its_command_and_listed(kept, tmp_path, monkeypatch):
    about, script = kept()
    assert about["command"] == "perco evaluate 'my photos' -o out/k.csv"
    results = tmp_path / "results"
    assert (results / "k.csv").read_text() == "photo,codec\na.png,jpeg\n"
    (results / "others.json").write_text('{"made_by": "another command"}')
    readme = results / "README.md"
    readme.write_text("before\n<!-- perco evaluate -->\nold\n<!-- end -->\nafter")
    monkeypatch.setattr(script, "RESULTS", results)
    script.main([])
    text = readme.read_text()
    row = "| `k.csv`, `k.json` | 3 of my photos | `perco evaluate 'my photos' -o out/k.csv` |"
    assert f"{row} a laptop | {about['date']} |" in text
    assert text.startswith("before\n") and text.endswith("\nafter") and "old" not in text
    assert "others" not in text
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="expected the marks"):
        script.main([])


@pytest.mark.parametrize("changes", [{"finished": False}, {"skipped": [{"photo": "a.png"}]}])
def test_a_table_with_holes_is_not_kept(kept, changes, tmp_path):
    with pytest.raises(ValueError, match="is not whole"):
        kept(**changes)
    assert not (tmp_path / "results").exists()
