"""The decided list in words: two tables, the paper's claims and ours, never counted together.

    Evidence ──text──► lines for a terminal      ──markdown──► tables for a page

Paper: nothing of this.
"""

from collections import Counter
from collections.abc import Mapping

from perco_lite.claims.decide import VERDICTS, Decision
from perco_lite.claims.evidence import Evidence, decision_rows

NOT_MEASURED = "not measured"
HEAD = ("claim", "where, how surely", "effect [95 %]", "would matter", "verdict")


def text(evidence: Evidence) -> str:
    """A line or two a claim; first what was measured, with which list and weights."""
    lines = [heading(evidence)]
    for name, decisions in _parts(evidence).items():
        lines.append(f"\n{name}: {counted(decisions)}")
        for one in decisions.values():
            claim, said = one.claim, _said(evidence, one)
            lines.append(f"  {claim.id}: {said}. {claim.claim} ({_where(one)})")
            if one.effect is not None:
                lines.append(f"    {_effect(one)}, {_limit(one)}; Holm's p {one.p:.2g}")
    return "\n".join(lines)


def markdown(evidence: Evidence) -> str:
    """Two tables with a heading and counts each."""
    lines = [heading(evidence)]
    for name, decisions in _parts(evidence).items():
        lines += ["", f"**{name}**: {counted(decisions)}.", ""]
        lines += [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
        for one in decisions.values():
            cells = [f"{one.claim.id}: {one.claim.claim}", _where(one), _effect(one), _limit(one)]
            cells.append(_said(evidence, one, "**"))
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def heading(evidence: Evidence) -> str:
    """List, weights, photos and command; what a short run may not be taken for."""
    about = evidence.about
    photos = ", ".join(f"{count} of {name}" for name, count in about["photos"].items())
    short = " A short run: it shows that the chain works, and decides nothing."
    short *= about["limit"] > 0 or about["crop"] > 0
    return (
        f"List of {about['dated']} ({about['claims_sha256'][:12]}), weights {about['weights']}, "
        f"commit {about['commit'][:12] or 'unknown'}; photos: {photos}; {about['draws']} draws; "
        f"`{about['command']}`.{short}"
    )


def counted(decisions: Mapping[str, Decision]) -> str:
    """ "3 holds, 1 not measured"."""
    counts = Counter(NOT_MEASURED if d.effect is None else d.verdict for d in decisions.values())
    return ", ".join(f"{counts[v]} {v}" for v in (*VERDICTS, NOT_MEASURED) if counts[v])


def _parts(evidence: Evidence) -> dict[str, Mapping[str, Decision]]:
    return {"Claims of the paper": evidence.claims, "Claims of ours": evidence.ours}


def _where(one: Decision) -> str:
    added = f"; added {one.claim.added}" if one.claim.added else ""
    return f"{one.claim.where}; {one.claim.surely}{added}"


def _effect(one: Decision) -> str:
    if one.effect is None:
        return ""
    low, high = one.interval
    return f"{one.effect:+.3g} [{low:.3g}, {high:.3g}] {one.claim.unit}"


def _limit(one: Decision) -> str:
    sign = "≥" if one.claim.says == "more" else "within ±"
    return f"{sign}{' ' * (sign == '≥')}{one.claim.matters:g} {one.claim.unit}"


def _said(evidence: Evidence, one: Decision, mark: str = "") -> str:
    """The verdict, and why not another."""
    row = next(row for row in decision_rows(evidence) if row["id"] == one.claim.id)
    verdict = NOT_MEASURED if one.effect is None else one.verdict
    return f"{mark}{verdict}{mark}" + (f" ({row['note']})" if row["note"] else "")
