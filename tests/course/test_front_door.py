"""What others read of the project without opening it: citation, versions, forms, workflows."""

import re

import pytest
import yaml

import perco_lite
from tests.course.conftest import PROJECT, ROOT

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
each_form = pytest.mark.parametrize(
    "path", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem
)


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_one_version():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changes, re.M)[1]
    found = {PROJECT["version"], perco_lite.__version__, read("CITATION.cff")["version"], newest}
    assert len(found) == 1, f"pyproject, package, CITATION.cff, CHANGELOG.md say {sorted(found)}"


def test_the_citation_is_valid():
    """What the Citation File Format 1.2.0 requires; the workflow runs its own validator as well."""
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["license"] == PROJECT["license"]["text"]
    for entry in (citation, *citation["references"]):
        assert entry["title"] and entry["type"]
        for author in entry["authors"]:
            assert set(author) <= {"name", "family-names", "given-names", "orcid"} and author
    (paper,) = citation["references"]
    assert paper["year"] == 2024 and paper["identifiers"][0]["value"] == "arXiv:2310.10325"


@each_form
def test_a_form_is_one_that_github_takes(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    for field in form["body"]:
        assert field["type"] in {"textarea", "input", "dropdown"} and field["attributes"]["label"]
        assert (field["type"] == "dropdown") == ("options" in field["attributes"])


def test_questions_go_to_the_discussions():
    config = read(".github/ISSUE_TEMPLATE/config.yml")
    (link,) = config["contact_links"]
    assert link["url"] == f"{PROJECT['urls']['Repository']}/discussions"


def test_the_package_says_that_it_has_types():
    assert (ROOT / "perco_lite" / "py.typed").is_file()


@pytest.mark.parametrize("name", ["test", "site"])
def test_workflows_call_what_make_has(name):
    workflow = read(f".github/workflows/{name}.yml")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = [s["run"] for j in workflow["jobs"].values() for s in j["steps"] if "run" in s]
    assert commands
    for target in re.findall(r"\bmake ([a-z-]+)", "\n".join(commands)):
        assert re.search(rf"^{target}:", makefile, re.M), f"no make {target}"
