"""How adapters stand with the gates of their root. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from adreg.domain import without_version
from adreg.service.policy.records import Held, Standing, State, Verdict, again
from adreg.service.rules.gates import OF_LINES
from adreg.service.rules.records import Root, Rules


def standing_of(rules: Rules, state: State) -> list[Standing]:
    """Of each adapter's versions the newest that has passed, and those newer than that.

    What was superseded by one that passed is of no more interest: it is not measured, say.
    """
    found = []
    for versions in _by_name(state.adapters).values():
        for held in reversed(versions):
            standing = _standing(rules.root_of(held.folder), held, state)
            found.append(standing)
            if standing.verdict.passed:
                break
    return found


def _by_name(adapters: Sequence[Held]) -> dict[str, list[Held]]:
    """Unversioned name to the adapters whose files are there, the oldest first."""
    found: dict[str, list[Held]] = {}
    for held in adapters:
        if held.present:
            found.setdefault(without_version(held.name).casefold(), []).append(held)
    return found


def _standing(root: Root | None, held: Held, state: State) -> Standing:
    passed, reason = state.verdicts.get(held.digest, (True, ""))
    if root is None and not passed:  # its root has gone from the rules, and its fault has not
        return Standing(held, root, Verdict("refused", reason))
    if root is None or not _needed(root):
        return Standing(held, root, Verdict("passed", "nothing is to be done"))
    return Standing(held, root, _missing(root, held) or _judged(root, held))


def _needed(root: Root) -> tuple[str, ...]:
    """The scores that must be there: those wanted, and those the gates look at."""
    asked = [*(root.scores or ()), *(gate.score for gate in root.gates)]
    return tuple(dict.fromkeys(asked))


def _missing(root: Root, held: Held) -> Verdict | None:
    """What is to be measured first; None where all is there."""
    missing = [score for score in _needed(root) if score not in held.figures]
    if not missing:
        return None
    told = ", ".join(missing)
    for job in (held.scored, held.followed):
        if job is not None and job.live:
            return Verdict("waits", f"job {job.id} is to measure {told}")
        if job is not None and job.state != "done":
            ended = f"job {job.id} {job.state}; {again(job.id)}"
            return Verdict("refused", f"{told} not measured: {ended}")
    if held.scored is None:
        return Verdict("score", f"{told} not measured yet")
    if held.followed is None and held.line and set(missing) <= set(OF_LINES):
        return Verdict("score", f"{told} not measured yet")
    why = next((f": {held.scored.skipped[s]}" for s in missing if s in held.scored.skipped), "")
    return Verdict("refused", f"{told} could not be measured{why}")


def _judged(root: Root, held: Held) -> Verdict:
    refused = [gate for gate in root.gates if not gate.met(held.figures[gate.figure])]
    told = "; ".join(
        f"{gate.figure} is {held.figures[gate.figure]:.4g}, and {gate} is asked"
        for gate in refused or root.gates
    )
    return Verdict("refused" if refused else "passed", told or "measured, no gate")
