"""The dated list of claims: what will decide each, written down before the run that does.

    data/claims.yaml ──load_list──► DatedList: claims of the paper, claims of ours, SHA-256, date
                         └── refuses a list that was changed, or has a claim that cannot fail

The hash is of what the list says, not of its layout or comments. Results keep it, and those of
another list are refused (``check_made_with``).

Paper: PerCo, RQ1 to RQ5; ``surely`` says whether a claim was read in a source, inferred from one,
or only recalled. The paper's own PDF was not at hand.
Differs from the paper: it says nowhere what would have refuted it.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from datetime import date
from functools import partial
from pathlib import Path

import yaml

from perco_lite.evaluation.metrics.inception import load_inception
from perco_lite.evaluation.metrics.semantics import load_segmenter
from perco_lite.evaluation.results import data_folder
from perco_lite.evaluation.scoring import PHOTO_METRICS, SET_METRICS, load_photo_metrics
from perco_lite.metrics import Unavailable

MOST = 24  # claims, ours among them
SURELY = ("read", "inferred", "recalled")
MORE, SAME = "more", "same"  # the effect is above what matters; or it does not matter
METRICS = (*PHOTO_METRICS, *SET_METRICS, "bytes", "v_loss", "seconds")


@dataclass(frozen=True)
class DatedClaim:
    """One claim; its effect is what ``comparison`` says, positive where the claim is right."""

    id: str
    claim: str
    where: str
    surely: str
    metric: str
    photos: str
    comparison: str
    says: str
    matters: float
    unit: str
    why: str
    possible: tuple[float, float]  # effects that could come out, before anything is measured
    refuted_by: str
    needs: str = ""  # another claim that has to hold, or this one says nothing
    added: str = ""  # a date, if later than the list's

    def __post_init__(self):
        """Raise ValueError for a claim that is not whole, or cannot come out either way."""
        empty = [f.name for f in fields(self) if f.default is MISSING and not getattr(self, f.name)]
        if empty:
            raise ValueError(f"claim {self.id!r}: got no {', '.join(empty)}; say it")
        for name, known in {"surely": SURELY, "says": (MORE, SAME), "metric": METRICS}.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"claim {self.id!r}: got {name} {getattr(self, name)!r}, expected one of "
                    f"{', '.join(known)}"
                )
        low, high = self.possible
        if not 0 < self.matters < math.inf:
            raise ValueError(f"claim {self.id!r}: got matters {self.matters}, expected above 0")
        never_holds = high <= self.matters if self.says == MORE else not low < 0 < high
        if never_holds:
            raise ValueError(
                f"claim {self.id!r} cannot hold: no possible effect, {low:g} to {high:g}, is what "
                f"it says; correct its possible effects or what matters ({self.matters:g})"
            )
        inside = -self.matters < low and high < self.matters
        if low >= self.matters if self.says == MORE else inside:
            raise ValueError(
                f"claim {self.id!r} cannot fail: every possible effect, {low:g} to {high:g}, "
                f"agrees with it (what matters: {self.matters:g}); measure something that could"
            )


@dataclass(frozen=True)
class DatedList:
    """Claims of the paper and of ours, never counted together."""

    dated: str
    sha256: str
    claims: tuple[DatedClaim, ...]
    ours: tuple[DatedClaim, ...]


def load_list(path: str | Path | None = None) -> DatedList:
    """Read and check a list; default: the repository's data/claims.yaml.

    Raises FileNotFoundError, or ValueError for a list that says other things than its hash, has
    more than MOST claims, or one that cannot fail.
    """
    path = Path(path or data_folder(("data", "../data")) / "claims.yaml")
    if not path.is_file():
        raise FileNotFoundError(f"no list of claims at {path}; it is in data/ of the repository")
    content = _parse(path)
    found = content_hash(content)
    if content["sha256"] != found:
        raise ValueError(
            f"{path} says other things than its hash: got {content['sha256']!r}, expected {found}. "
            "Give what is new or changed a line `added: DATE`, then write the new hash"
        )
    claims, ours = (
        tuple(_claim(one, content["dated"], path) for one in content[name])
        for name in ("claims", "ours")
    )
    names = [claim.id for claim in (*claims, *ours)]
    if len(names) > MOST or len(set(names)) < len(names):
        raise ValueError(
            f"{path}: got {len(names)} claims, {len(set(names))} names; at most {MOST}, each once"
        )
    for several in (claims, ours):
        before = set()
        for claim in several:
            if claim.needs and claim.needs not in before:
                raise ValueError(f"{path}: {claim.id} needs {claim.needs!r}, none before it here")
            before.add(claim.id)
    return DatedList(content["dated"], found, claims, ours)


def content_hash(content: Mapping) -> str:
    """SHA-256 of all that a list says but its hash; order of keys, layout and comments are free."""
    said = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def missing_metrics(claims: Iterable[DatedClaim]) -> dict[str, str]:
    """Metrics of these claims that cannot be computed on this machine, and why.

    To be asked before any hour is spent; networks of metrics are loaded for it.
    """
    names = {claim.metric for claim in claims}
    missing = load_photo_metrics(names).missing
    loads = {load_inception: {"fid", "kid", "fid_256", "kid_256"}}
    loads |= {partial(load_inception, "clean-fid"): {"kid_512"}}
    loads |= {load_segmenter: {"miou", "miou_masks"}}
    for load, of in loads.items():
        try:
            if names & of:
                load()
        except Unavailable as error:
            missing |= dict.fromkeys(sorted(names & of), str(error))
    return missing


def check_made_with(results: Mapping, current: DatedList) -> None:
    """Raise ValueError for results that keep another list's hash, or none."""
    if results.get("claims_sha256") != current.sha256:
        raise ValueError(
            f"these results were made with the list {results.get('claims_sha256')!r}, the one at "
            f"hand is {current.sha256!r} of {current.dated}; measure again, or take that list"
        )


def _parse(path: Path) -> dict:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if set(content) != {"dated", "sha256", "claims", "ours"}:
            raise ValueError(f"got {', '.join(content)}")
        return content | {"dated": content["dated"].isoformat()}
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path} is no list with dated, sha256, claims, ours ({why})") from error


def _claim(content: Mapping, dated: str, path: Path) -> DatedClaim:
    try:
        given = dict(content)
        added = given.pop("added", "")
        given["possible"] = low, high = map(float, given["possible"])
        given["possible"], given["matters"] = (low, high), float(given["matters"])
        claim = DatedClaim(**given, added=added.isoformat() if isinstance(added, date) else added)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: {content!r:.80} … is no claim ({error})") from error
    if claim.added and claim.added <= dated:
        raise ValueError(f"{path}: {claim.id} was added {claim.added}, the list is of {dated}")
    return claim
