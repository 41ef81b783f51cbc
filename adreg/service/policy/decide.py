"""What is to be done next, and why: pure functions of rules, registry, job table and folders.

Whoever carries out what `next_actions` says, in any order and any number of times, comes to a state
in which nothing is to be done. Nothing here touches disk or database: `policy_state` reads the
state, `acting` carries out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from adreg.domain import trigger_for, version_of, without_version
from adreg.errors import AdregError
from adreg.service.policy import sets
from adreg.service.policy.records import (
    Action,
    Judge,
    Keys,
    Rest,
    Run,
    Score,
    Settled,
    Standing,
    State,
    Train,
    again,
)
from adreg.service.policy.standing import standing_of
from adreg.service.rules.records import Rules


def next_actions(rules: Rules, state: State, keys: Keys) -> list[Action]:
    """What is to be done now, each with its reason; a Rest says why nothing is.

    `keys` tells what a train or merge job would be known by, as the job table does.
    """
    state = _at_home(state, keys)
    trains = _trains(state, keys)
    standings = standing_of(rules, state)
    pending = [action for action in trains if isinstance(action, Train)]
    return [
        *trains,
        *(action for standing in standings for action in _of_standing(standing, state)),
        *sets.merges(rules, state, keys, standings, pending),
        *_publications(state, standings),
    ]


def _at_home(state: State, keys: Keys) -> State:
    """Jobs and adapters below the folder that they are of by now.

    That may have been moved since, and its root with it; and of what was trained before there were
    rules nobody wrote down where it came from.
    """
    there = {settled.folder for settled in state.settled} | state.restless
    lost = [run for run in state.runs if run.folder not in there]
    homes = _new_homes(lost, state, keys) if lost else {}
    runs = tuple(replace(run, folder=homes.get(run.id, run.folder)) for run in state.runs)
    folders = {run.digest: run.folder for run in runs if run.digest}
    adapters = tuple(
        held
        if folders.get(held.digest, held.folder) == held.folder
        else replace(held, folder=folders[held.digest])
        for held in state.adapters
    )
    return replace(state, runs=runs, adapters=adapters)


def _new_homes(lost: Sequence[Run], state: State, keys: Keys) -> dict[int, Path]:
    """Where the folders of jobs (id) are now: the photos tell; and where they are others too, most
    of them below the same name, or that a later version was trained there."""
    by_subject = {settled.subject: settled.folder for settled in state.settled}
    by_name = {settled.name.casefold(): settled for settled in state.settled}
    away = {run.id for run in lost}
    versions = {(run.base, _stem(run)): run.folder for run in state.runs if run.id not in away}
    homes = {}
    for run in lost:
        named = by_name.get(_stem(run))
        home = by_subject.get(run.subject) or versions.get((run.base, _stem(run)))
        if home is None and named is not None and keys.kept(named, run):
            home = named.folder
        if home is not None:
            homes[run.id] = home
    return homes


def _stem(run: Run) -> str:
    return without_version(run.name).casefold()


def _trains(state: State, keys: Keys) -> list[Action]:
    """One of every settled folder: its training, or why there is none."""
    names = _Names(state)
    by_key = {run.key: run for run in state.runs}
    had: dict[tuple[Path | None, str], list[Run]] = {}
    for one in state.runs:
        had.setdefault((one.folder, one.subject), []).append(one)
    before = {run.folder: run for run in state.runs}  # the latest of each folder
    there = {held.digest for held in state.adapters if held.present}
    found: list[Action] = []
    for settled in sorted(state.settled, key=lambda one: one.folder):
        try:
            known = _run_of(settled, keys, had.get((settled.folder, settled.subject), ()))
            run, name = (known, known.name) if known else _place(settled, keys, names, by_key)
        except AdregError as error:
            found.append(Rest(settled.folder.name, error.message, error))
            continue
        if run is None and settled.folder in state.restless:
            found.append(Rest(settled.folder.name, "waits until it is still again"))
        elif run is None:
            reason = _reason(settled, before.get(settled.folder))
            action = Train(settled.folder, name, _called(settled, name), reason, settled.root)
            names.take(settled, name)
            found.append(action)
        elif (told := _of_run(settled, run, there)) is not None:
            found.append(told)
    return found


def _run_of(settled: Settled, keys: Keys, runs: Sequence[Run]) -> Run | None:
    """Which of the jobs of this folder and these photos it has or had, whatever it was called then.

    Asked before names: where the job that had the folder's own name failed, that name is free
    again, and what was trained as `name-2` would be trained once more.
    """
    for run in runs:
        if run.key == keys.train(settled, _called(settled, run.name)):
            return run
    return None


def _place(
    settled: Settled, keys: Keys, names: _Names, by_key: dict[str, Run]
) -> tuple[Run | None, str]:
    """The job that this folder, as it is, has or had; None, and the name for a new one.

    The first version is named after the folder, `name-2` where that is somebody else's; what
    the folder has become since is `name@2`.
    """
    for number in count(1):
        stem = settled.name if number == 1 else f"{settled.name}-{number}"
        for name in (version_of(stem, version) for version in count(1)):
            run = by_key.get(keys.train(settled, _called(settled, name)))
            if run is not None:
                return run, run.name
            if names.taken(name):
                continue
            if names.open_to(settled, stem) and names.trigger_free(settled, name):
                return None, name
            if not (names.open_to(settled, stem) and settled.root.line):
                break
    raise AssertionError("names never end")


def _called(settled: Settled, name: str) -> str:
    """What the trigger is made of. A version has its adapter's own; on a line, where the earlier
    one is there still, it is a further concept."""
    return name if settled.root.line else without_version(name)


class _Names:
    """Who has which names and triggers: by the table of names, and by jobs under way."""

    def __init__(self, state: State) -> None:
        folders = {run.digest: run.folder for run in state.runs if run.digest}
        live = [run for run in state.runs if run.live]
        self._names = {name: folders.get(digest) for name, digest in state.names.items()}
        self._names |= {run.name.casefold(): run.folder for run in live}
        self._names |= {m.name.casefold(): None for m in state.merges if m.live and m.name}
        self._triggers: dict[tuple[str, str], str] = {}
        holders = [*((a.base, a.triggers, a.name) for a in state.adapters)]
        for base, triggers, name in [*holders, *((r.base, r.triggers, r.name) for r in live)]:
            for trigger in triggers:
                self._triggers.setdefault((base, trigger.casefold()), without_version(name))

    def taken(self, name: str) -> bool:
        return name.casefold() in self._names

    def open_to(self, settled: Settled, stem: str) -> bool:
        """Whether the folder's adapters may have that name: it is nobody else's."""
        return self._names.get(stem.casefold(), settled.folder) == settled.folder

    def take(self, settled: Settled, name: str) -> None:
        self._names[name.casefold()] = settled.folder
        trigger = trigger_for(_called(settled, name)).casefold()
        self._triggers.setdefault((settled.base, trigger), without_version(name))

    def trigger_free(self, settled: Settled, name: str) -> bool:
        called = _called(settled, name)
        holder = self._triggers.get((settled.base, trigger_for(called).casefold()))
        if holder is None:
            return True
        # An earlier version of the same adapter has it, and may; not on a line (see _called).
        return not settled.root.line and holder.casefold() == without_version(name).casefold()


def _reason(settled: Settled, before: Run | None) -> str:
    if before is None:
        return "a new folder"
    what = "rules" if before.subject == settled.subject else "photos, captions or class"
    return f"other {what} than job {before.id} had"


def _of_run(settled: Settled, run: Run, there: Collection[str]) -> Rest | None:
    """Why the folder is not trained; None where that is told of its adapter."""
    what = settled.folder.name
    if run.live:
        return Rest(what, f"job {run.id} is {run.state}")
    if run.state != "done":
        return Rest(what, f"job {run.id} {run.state}; {again(run.id)}", stuck=True)
    if run.digest not in there:
        told = f"job {run.id} trained it, but its adapter is gone; again: adreg train {what}"
        return Rest(what, told, stuck=True)
    return None


def _of_standing(standing: Standing, state: State) -> Iterator[Action]:
    held, verdict = standing.held, standing.verdict
    if standing.root is None:
        return
    if verdict.kind == "score":
        yield Score(held.digest, held.name, verdict.reason, standing.root)
    elif verdict.kind == "waits":
        yield Rest(held.name, verdict.reason)
    elif standing.gated and state.verdicts.get(held.digest) != (verdict.passed, verdict.reason):
        yield Judge(held.digest, held.name, verdict.reason, verdict.passed)
    elif not verdict.passed:
        yield Rest(held.name, f"held back: {verdict.reason}", verdict.error(held.name))
    else:
        yield Rest(held.name, verdict.reason)


def _publications(state: State, standings: Sequence[Standing]) -> Iterator[Action]:
    """Of each repository the newest adapter that may go there, and nothing while a newer one is
    still on its way."""
    newest: dict[str, Standing] = {}
    for standing in sorted(standings, key=lambda one: one.held.order):
        target = standing.root.publish if standing.root else None
        if target is not None and (standing.verdict.passed or standing.verdict.pending):
            stem = without_version(standing.held.name)
            newest[target.repo_of(stem, standing.held.line)] = standing
    for repo, standing in sorted(newest.items()):
        if standing.verdict.passed and standing.root and standing.root.publish:
            held, private = standing.held, standing.root.publish.private
            yield from sets.publication(state, held.digest, held.name, repo, private)
