"""Merge sets: who is of one, when it is merged again, and where its checkpoint goes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path

from adreg.domain import slug, version_of, without_version
from adreg.errors import AdregError, UsageError
from adreg.service.policy.records import (
    Action,
    Held,
    Keys,
    Merge,
    Merged,
    Publish,
    Rest,
    Standing,
    State,
    Train,
    again,
)
from adreg.service.rules.records import MergeSet, Root, Rules


def merges(
    rules: Rules,
    state: State,
    keys: Keys,
    standings: Sequence[Standing],
    trains: Sequence[Train],
) -> Iterator[Action]:
    """What is to be done for each merge set; its checkpoint's publication too."""
    for wanted in rules.merge_sets:
        waits = [*_on_the_way(rules, state, wanted, standings, trains)]
        if waits:
            yield Rest(wanted.name, f"waits for {_some(waits)}")
            continue
        members = members_of(wanted, standings)
        try:
            yield from _of_members(wanted, state, keys, members)
        except AdregError as error:
            yield Rest(wanted.name, error.message, error)


def members_of(wanted: MergeSet, standings: Sequence[Standing]) -> list[Held]:
    """Those that passed, the oldest first; of a line only the last, which has the others in it."""
    chosen = [
        one.held
        for one in standings
        if one.verdict.passed and fits(wanted, one.held.name, one.held.tags, one.root)
    ]
    chosen.sort(key=lambda held: held.order)
    last = {(held.line, held.base): held for held in chosen if held.line}
    return [held for held in chosen if not held.line or last[held.line, held.base] is held]


def fits(wanted: MergeSet, name: str, tags: Sequence[str], root: Root | None) -> bool:
    """Whether an adapter is of the set: by its own tags too, whatever its root's are by now."""
    plain = without_version(name).casefold()
    all_tags = {*tags, *(root.tags if root else ())}
    return (
        (root is not None and root.path in wanted.roots)
        or not all_tags.isdisjoint(wanted.tags)
        or any(fnmatchcase(plain, pattern.casefold()) for pattern in wanted.names)
    )


def publication(state: State, digest: str, name: str, repo: str, private: bool) -> Iterator[Action]:
    """The publication of an artefact; nothing to say where it is done."""
    known = state.published.get((digest, repo))
    if known is None:
        yield Publish(digest, name, repo, private, f"not on the Hub yet, as {repo}")
        return
    job_state, job_id = known
    if job_state in ("queued", "running"):
        yield Rest(name, f"job {job_id} is to publish it as {repo}")
    elif job_state != "done":
        yield Rest(
            name, f"not published as {repo}: job {job_id} {job_state}; {again(job_id)}", stuck=True
        )


def _of_members(
    wanted: MergeSet, state: State, keys: Keys, members: Sequence[Held]
) -> Iterator[Action]:
    if len(members) < 2:
        yield Rest(wanted.name, f"{_some([m.name for m in members])} alone" if members else "empty")
        return
    if len({held.base for held in members}) > 1:
        names = _some([held.name for held in members])
        raise UsageError(
            f"merge set {wanted.name!r}: {names} are not all of one base",
            remedy="choose its members by tags or names that one base has",
        )
    key = keys.merge(wanted, members)
    job = next((merged for merged in state.merges if merged.key == key), None)
    named = None if job is None else _name_of(wanted, state, job)
    if job is None or (job.state == "done" and job.present and named is None):
        reason = f"of {_some([held.name for held in members])}, which were not merged yet"
        yield Merge(wanted, _free_name(wanted, state), tuple(members), reason)
    elif job.live:
        yield Rest(wanted.name, f"job {job.id} is to merge it")
    elif job.state != "done":
        yield Rest(wanted.name, f"job {job.id} {job.state}; {again(job.id)}", stuck=True)
    elif job.digest is None or named is None:
        yield Rest(wanted.name, f"job {job.id} merged it, and its checkpoint is gone", stuck=True)
    else:
        yield Rest(wanted.name, f"merged as {named}: {_some([held.name for held in members])}")
        if wanted.publish is not None:
            repo = wanted.publish.repo_of(wanted.name)
            yield from publication(state, job.digest, named, repo, wanted.publish.private)


def _on_the_way(
    rules: Rules,
    state: State,
    wanted: MergeSet,
    standings: Sequence[Standing],
    trains: Sequence[Train],
) -> Iterator[str]:
    """Those that may be of the set soon: merged without them, it would be merged twice."""
    for one in standings:
        if one.verdict.pending and fits(wanted, one.held.name, one.held.tags, one.root):
            yield one.held.name
    for train in trains:
        if fits(wanted, train.name, (), train.root):
            yield train.name
    for run in state.runs:
        if run.live and fits(wanted, run.name, run.tags, rules.root_of(run.folder)):
            yield run.name
    for folder in sorted(state.restless):
        root = rules.root_of(folder)
        if root is not None and fits(wanted, _likely(folder), (), root):
            yield folder.name


def _likely(folder: Path) -> str:
    """What the adapter of a folder that nobody has looked into may be called."""
    try:
        return slug(folder.name)
    except UsageError:
        return folder.name


def _name_of(wanted: MergeSet, state: State, job: Merged) -> str | None:
    """The newest of the set's names that the checkpoint has."""
    plain = wanted.name.casefold()
    found = [
        name
        for name, digest in state.names.items()
        if digest == job.digest and without_version(name) == plain
    ]
    return max(found, key=lambda name: (len(name), name), default=None)


def _free_name(wanted: MergeSet, state: State) -> str:
    taken = {*state.names, *(r.name.casefold() for r in state.runs if r.live)}
    taken |= {merged.name.casefold() for merged in state.merges if merged.live and merged.name}
    names = (version_of(wanted.name, number) for number in count(1))
    return next(name for name in names if name.casefold() not in taken)


def _some(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
