"""Looks at all roots, and does what the policy says as soon as there is something to do.

What has been done is remembered by the job table alone, so a watcher that is killed at any instant
and started again neither loses nor repeats anything.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from adreg.errors import AdregError, ConflictError, ExternalError
from adreg.registry import overview
from adreg.service.policy.decide import next_actions
from adreg.service.policy.records import Action, Rest, Settled
from adreg.service.policy.state import read_state
from adreg.service.rules.records import Root, Rules
from adreg.service.watch.acting import act
from adreg.service.watch.looking import KnownKeys, look_into
from adreg.service.watch.root_watch import SECONDS_BETWEEN_SCANS, RootWatch
from adreg.service.workspace import Workspace
from adreg.store.digest import canonical_json

_SECONDS_BETWEEN_LOOKS = 0.5
# Of one look: whoever looks while a job runs has its lease to keep.
_SECONDS_OF_WORK = 1.0
_PAUSE = 4.0
_CONFLICTS = 3  # are put down to somebody who was quicker

Say = Callable[[str], None]


class Watcher:
    """`look` often; it does a second's work at most, where one folder does not take longer."""

    def __init__(self, ws: Workspace, rules: Rules, say: Say, *, must_stay: bool = False) -> None:
        usual = ws.settings.settle_seconds
        self._ws = ws
        self._rules = rules
        self._say = say
        self._roots = [
            RootWatch(
                root,
                usual if root.settle_seconds is None else root.settle_seconds,
                say,
                must_stay=must_stay,
            )
            for root in rules.roots
        ]
        self._keys = KnownKeys(ws)
        self._pending: dict[Path, tuple[Root, str]] = {}
        self._settled: dict[Path, Settled] = {}
        self._failed: dict[Path, AdregError] = {}
        self._stuck: dict[str, AdregError] = {}
        self._conflicts: Counter[str] = Counter()
        self._rests: dict[str, Rest] = {}
        self._left: list[Action] = []
        self._tally: object = None
        self._looked = self._forgave = float("-inf")
        self._not_before = float("-inf")
        self._due = True

    def look(self) -> None:
        """Looks at the roots, into folders that came to rest, and at what follows."""
        now = time.monotonic()
        if now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        self._looked = now
        for watch in self._roots:
            for folder in watch.look(now):
                self._pending[folder] = watch.root, watch.marks[folder]
        self._forget_what_is_gone()
        self._forgive(now)
        self._look_into()
        self._act()

    def restless(self) -> bool:
        """Whether anything is still to be looked at or done."""
        roots = any(watch.restless() for watch in self._roots)
        return roots or bool(self._pending) or bool(self._left) or self._something_new()

    def errors(self) -> list[AdregError]:
        """What is wrong now: with folders, with what was to be done, and what gates refuse."""
        refused = [rest.error for rest in self._rests.values() if rest.error is not None]
        return [*self._failed.values(), *self._stuck.values(), *refused]

    def close(self) -> None:
        for watch in self._roots:
            watch.stop()

    def _forget_what_is_gone(self) -> None:
        """A folder that is gone is not looked at any more; what was made of it stays."""
        there = {folder for watch in self._roots for folder in watch.marks}
        self._pending = {f: one for f, one in self._pending.items() if f in there}
        self._settled = {f: one for f, one in self._settled.items() if f in there}
        self._failed = {f: one for f, one in self._failed.items() if f in there}

    def _forgive(self, now: float) -> None:
        """What may go better by now is tried again: a name may be free, the Hub back."""
        if now - self._forgave < SECONDS_BETWEEN_SCANS:
            return
        self._forgave = now
        self._conflicts.clear()
        passing = [k for k, e in self._stuck.items() if e.retryable or isinstance(e, ConflictError)]
        for key in passing:
            del self._stuck[key]
        self._due = self._due or bool(passing)

    def _look_into(self) -> None:
        deadline = time.monotonic() + _SECONDS_OF_WORK
        while self._pending and time.monotonic() < deadline:
            folder = min(self._pending)
            root, mark = self._pending.pop(folder)
            self._due = True
            try:
                base = self._keys.base(root.base).digest
                self._settled[folder] = look_into(self._ws, folder, root, mark, base)
                self._failed.pop(folder, None)
            except (AdregError, OSError) as problem:
                self._settled.pop(folder, None)
                self._failed[folder] = _told(problem)
                self._say(f"{folder.name}: {self._failed[folder].message}")

    def _act(self) -> None:
        if not self._left and self._something_new() and time.monotonic() >= self._not_before:
            self._left = self._plan()
        deadline = time.monotonic() + _SECONDS_OF_WORK
        while self._left and time.monotonic() < deadline:
            action = self._left.pop(0)
            key = _key(action)
            if key in self._stuck:
                continue
            self._due = True
            try:
                act(self._ws, action, self._say)
            except ConflictError as error:
                # Somebody else has come to the name since it was planned: another is, next time.
                self._conflicts[key] += 1
                if self._conflicts[key] > _CONFLICTS:
                    self._stick(key, action, error)
            except (AdregError, OSError) as problem:
                self._stick(key, action, _told(problem))

    def _stick(self, key: str, action: Action, error: AdregError) -> None:
        self._stuck[key] = error
        self._say(f"{action.name}: {error.message}")

    def _plan(self) -> list[Action]:
        """What is to be done; what is not, and why, is told where somebody should know."""
        begun = time.monotonic()
        self._due, self._tally = False, overview.tally(self._ws.registry.db)
        restless = {f for watch in self._roots for f in watch.restless_folders()}
        state = read_state(self._ws, self._settled.values(), restless | self._pending.keys())
        actions = next_actions(self._rules, state, self._keys)
        self._tell([action for action in actions if isinstance(action, Rest)])
        wanted = {_key(action) for action in actions}
        self._stuck = {key: error for key, error in self._stuck.items() if key in wanted}
        # With thousands of folders that takes a while, and should not be all that is done.
        self._not_before = begun + (1 + _PAUSE) * (time.monotonic() - begun)
        return [action for action in actions if not isinstance(action, Rest)]

    def _tell(self, rests: list[Rest]) -> None:
        before, self._rests = self._rests, {rest.name: rest for rest in rests if rest.worth_saying}
        for name, rest in self._rests.items():
            if name not in before or before[name].reason != rest.reason:
                self._say(f"{name}: {rest.reason}")

    def _something_new(self) -> bool:
        return self._due or overview.tally(self._ws.registry.db) != self._tally


def _key(action: Action) -> str:
    return canonical_json(action.to_json())


def _told(problem: AdregError | OSError) -> AdregError:
    return problem if isinstance(problem, AdregError) else ExternalError(str(problem))
