"""A list of claims that can be trusted: dated, hashed, each able to come out either way."""

from pathlib import Path

import pytest
import yaml

from perco_lite.claims import dated
from perco_lite.claims.dated import check_made_with, content_hash, load_list, missing_metrics
from perco_lite.metrics import Unavailable

CLAIM = {
    "id": "text",
    "claim": "The caption helps",
    "where": "RQ2",
    "surely": "read",
    "metric": "v_loss",
    "photos": "500 of val",
    "comparison": "own less none",
    "says": "more",
    "matters": 0.003,
    "unit": "of v-loss",
    "why": "half a percent",
    "possible": [-0.5, 0.5],
    "refuted_by": "less than 0.003",
}


def write(path: Path, *claims: dict, ours=(), sha256=None, **more) -> Path:
    content = {"dated": "2026-11-28", "claims": list(claims), "ours": list(ours)} | more
    content["sha256"] = content_hash(content) if sha256 is None else sha256
    text = yaml.safe_dump(content, sort_keys=False).replace("'2026-11-28'", "2026-11-28")
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "claims.yaml"


def test_the_projects_own_list():
    found = load_list()
    assert len(found.claims) >= 12 and len(found.claims) + len(found.ours) <= dated.MOST
    assert all(claim.where.startswith("ours") for claim in found.ours)
    assert not any(claim.where.startswith("ours") for claim in found.claims)
    assert found.dated == "2026-11-28" and len(found.sha256) == 64


def test_a_list_is_read_whole(path):
    same = CLAIM | {"id": "same", "says": "same", "needs": "text", "possible": [-1, 1]}
    found = load_list(write(path, CLAIM, same, ours=[CLAIM | {"id": "ours"}]))
    first, second = found.claims
    assert first.possible == (-0.5, 0.5) and first.matters == 0.003 and first.added == ""
    assert second.needs == "text" and found.ours[0].id == "ours"
    with pytest.raises(FileNotFoundError, match="no list of claims at .*none.yaml"):
        load_list(path.with_name("none.yaml"))


def test_a_word_that_changed_is_refused_and_layout_is_free(path):
    text = write(path, CLAIM).read_text()
    path.write_text(text.replace("\n", "\n# a comment\n", 1).replace("id: text", "id:   text"))
    before = load_list(path)
    path.write_text(text.replace("0.003", "0.001", 1))
    with pytest.raises(ValueError, match="says other things than its hash.*a line `added: DATE`"):
        load_list(path)
    other = load_list(write(path, CLAIM | {"matters": 0.001}))
    check_made_with({"claims_sha256": before.sha256}, before)
    for results in ({"claims_sha256": before.sha256}, {}):
        with pytest.raises(ValueError, match="these results were made with the list .*measure ag"):
            check_made_with(results, other)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"possible": [0.01, 0.5]}, "'text' cannot fail: every possible effect, 0.01 to 0.5"),
        ({"possible": [-0.5, 0.003]}, "'text' cannot hold: no possible effect, -0.5 to 0.003"),
        ({"says": "same", "possible": [-0.002, 0.002]}, "cannot fail"),
        ({"says": "same", "possible": [0.1, 0.2]}, "cannot hold"),
        ({"matters": 0}, "got no matters; say it"),
        ({"matters": -1}, "got matters -1.0, expected above 0"),
        ({"refuted_by": ""}, "got no refuted_by; say it"),
        ({"surely": "sure"}, "got surely 'sure', expected one of read, inferred, recalled"),
        ({"metric": "patchiness"}, "got metric 'patchiness', expected one of psnr"),
        ({"says": "less"}, "got says 'less', expected one of more, same"),
        ({"needs": "later"}, "text needs 'later', none before it here"),
        ({"colour": "red"}, "is no claim"),
        ({"possible": 3}, "is no claim"),
        ({"added": "2026-11-28"}, "was added 2026-11-28, the list is of 2026-11-28"),
    ],
)
def test_what_no_claim_may_be(path, change, reason):
    with pytest.raises(ValueError, match=reason):
        load_list(write(path, CLAIM | change))


def test_lists_that_are_none(path):
    with pytest.raises(ValueError, match="got 2 claims, 1 names; at most 24, each once"):
        load_list(write(path, CLAIM, CLAIM))
    many = [CLAIM | {"id": f"claim {n}"} for n in range(25)]
    with pytest.raises(ValueError, match="got 25 claims"):
        load_list(write(path, *many))
    later = load_list(write(path, CLAIM | {"added": "2026-12-01"}))
    assert later.claims[0].added == "2026-12-01"
    for text in ("- a list", "dated: today\nsha256: a\nclaims: []\nours: []", "{", "claims: []"):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no list with dated, sha256, claims, ours"):
            load_list(path)


def test_a_metric_that_is_not_here_is_known_before_any_hour(path, monkeypatch):
    def missing(*_):
        raise Unavailable("no network; fetch it")

    monkeypatch.setattr(dated, "load_inception", missing)
    metrics = ("v_loss", "psnr", "kid_256", "kid_512")
    claims = [CLAIM | {"id": name, "metric": name} for name in metrics]
    found = missing_metrics(load_list(write(path, *claims)).claims)
    assert found == dict.fromkeys(("kid_256", "kid_512"), "no network; fetch it")
    assert missing_metrics(load_list(write(path, *claims[:2])).claims) == {}


def test_the_command_prints_the_list(path, perco, monkeypatch):
    write(path, CLAIM, ours=[CLAIM | {"id": "mine", "where": "ours", "added": "2026-12-01"}])
    monkeypatch.setattr(dated, "data_folder", lambda places: path.parent)
    code, out, err = perco("claims", "--list")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].startswith(f"2026-11-28, {load_list(path).sha256}")
    assert "text: The caption helps (RQ2; read)" in lines
    assert "mine: The caption helps (ours; read; added 2026-12-01)" in lines
    assert "  refuted by: less than 0.003" in lines
