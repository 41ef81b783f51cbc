"""Looks at all roots, and does what the policy says as soon as there is something to do.

What has been done is remembered by the job table alone, so a watcher that is killed at any instant
and started again neither loses nor repeats anything.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from adreg.errors import AdregError, ConflictError, ExternalError
from adreg.registry import overview
from adreg.service.policy.decide import next_actions
from adreg.service.policy.records import Action, Rest, Settled, Train
from adreg.service.policy.state import read_state
from adreg.service.rules.records import Rules
from adreg.service.watch.acting import act
from adreg.service.watch.looking import KnownKeys
from adreg.service.watch.reader import Answer, Look, Problem, Reader
from adreg.service.watch.root_watch import SECONDS_BETWEEN_SCANS, RootWatch
from adreg.service.workspace import Workspace
from adreg.store.digest import canonical_json

_SECONDS_BETWEEN_LOOKS = 0.5
# Of one look, without what is read (reader.py): who looks while a job runs has its lease to keep.
_SECONDS_OF_WORK = 1.0
_PAUSE = 4.0
_SECONDS_AFTER_TROUBLE = 5.0
_CONFLICTS = 3  # are put down to somebody who was quicker

Say = Callable[[str], None]


class Watcher:
    """`look` often; it does a second's work at most.

    Where the database cannot be written (the disk is full, a backup keeps it), or no process can be
    started, it says so once, and goes on when that has passed.
    """

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
        self._reader = Reader(ws.settings)
        self._came: deque[tuple[RootWatch, Path]] = deque()
        self._settled: dict[Path, Settled] = {}
        self._failed: dict[Path, AdregError] = {}
        self._stuck: dict[str, AdregError] = {}
        self._conflicts: Counter[str] = Counter()
        self._rests: dict[str, Rest] = {}
        self._left: list[Action] = []
        self._tally: object = None
        self._looked = self._forgave = float("-inf")
        self._not_before = self._rested = float("-inf")
        self._due = True
        self._trouble: str | None = None

    def look(self) -> None:
        """Looks at the roots, into folders that came to rest, and at what follows."""
        now = time.monotonic()
        if now < self._rested:
            return
        if now - self._looked < _SECONDS_BETWEEN_LOOKS and not self._reader.ready():
            return
        self._looked = now
        try:
            self._look(now)
        except sqlite3.OperationalError as error:
            self._in_trouble(f"{self._ws.settings.database}: {error}")
        except ChildProcessError as error:
            self._in_trouble(str(error))

    def _look(self, now: float) -> None:
        for watch in self._roots:
            self._came += [(watch, folder) for folder in watch.look(now)]
        while self._came:
            self._look_into(*self._came[0])
            self._came.popleft()
        self._take_answers()
        self._forget_what_is_gone()
        self._forgive(now)
        self._act()

    def _in_trouble(self, told: str) -> None:
        """What was to be done is worked out again: it follows from what has been done by then."""
        if self._trouble is None:
            self._say(f"{told}: nothing new is begun until it passes")
        self._trouble = self._trouble or told
        self._left.clear()
        self._due = True
        self._rested = time.monotonic() + _SECONDS_AFTER_TROUBLE

    def _out_of_trouble(self) -> None:
        if self._trouble is not None:
            self._say(f"goes on, after {self._trouble}")
            self._trouble = None

    def restless(self) -> bool:
        """Whether anything is still to be looked at or done."""
        roots = any(watch.restless() for watch in self._roots)
        busy = roots or self._came or self._reader.asked or self._left
        return bool(busy) or self._something_new()

    def errors(self) -> list[AdregError]:
        """What is wrong now: with folders, with what was to be done, and what gates refuse."""
        refused = [rest.error for rest in self._rests.values() if rest.error is not None]
        return [*self._failed.values(), *self._stuck.values(), *refused]

    def close(self) -> None:
        for watch in self._roots:
            watch.stop()
        self._reader.close()

    def _forget_what_is_gone(self) -> None:
        """A folder that is gone is not looked at any more; what was made of it stays."""
        there = {folder for watch in self._roots for folder in watch.marks}
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

    def _look_into(self, watch: RootWatch, folder: Path) -> None:
        """Has a folder looked into; what came of it is among the answers some time."""
        try:
            base = self._keys.base(watch.root.base).digest
        except (AdregError, OSError) as problem:
            self._cannot_look(folder, problem)
        else:
            if folder in watch.marks:
                self._reader.ask(Look(folder, watch.root, watch.marks[folder], base))

    def _take_answers(self) -> None:
        for answer in self._reader.answers():
            self._due = True
            if isinstance(answer.problem, sqlite3.Error):
                if isinstance(answer.request, Look):
                    self._reader.ask(answer.request)
                raise answer.problem  # as what this process itself cannot write
            for line in answer.said:
                self._say(line)
            if isinstance(answer.request, Train):
                self._done(answer.request, answer.problem)
            else:
                self._looked_into(answer.request, answer)

    def _looked_into(self, asked: Look, answer: Answer) -> None:
        marks = next(watch.marks for watch in self._roots if watch.root is asked.root)
        if marks.get(asked.folder) != asked.mark:
            return  # gone, or changed meanwhile: then it comes to rest again
        if answer.problem is not None:
            self._cannot_look(asked.folder, answer.problem)
        elif answer.found is not None:
            self._settled[asked.folder] = answer.found
            self._failed.pop(asked.folder, None)

    def _cannot_look(self, folder: Path, problem: Problem) -> None:
        self._due = True
        self._settled.pop(folder, None)
        self._failed[folder] = _told(problem)
        self._say(f"{folder.name}: {self._failed[folder].message}")

    def _act(self) -> None:
        trains = any(isinstance(asked, Train) for asked in self._reader.asked)
        idle = not self._left and not trains
        if idle and self._something_new() and time.monotonic() >= self._not_before:
            self._left = self._plan()
            if not self._left and not self._reader.asked:
                self._trouble = None  # whatever could not be written: nobody wants it any more
        deadline = time.monotonic() + _SECONDS_OF_WORK
        while self._left and time.monotonic() < deadline:
            action = self._left.pop(0)
            if _key(action) in self._stuck:
                continue
            self._due = True
            if isinstance(action, Train):
                self._reader.ask(action)
                continue
            try:
                act(self._ws, action, self._say)
            except (AdregError, OSError) as problem:
                self._done(action, problem)
            else:
                self._done(action, None)

    def _done(self, action: Action, problem: Problem | None) -> None:
        self._out_of_trouble()
        key = _key(action)
        if isinstance(problem, ConflictError):
            # Somebody else has come to the name since it was planned: another is, next time.
            self._conflicts[key] += 1
            if self._conflicts[key] <= _CONFLICTS:
                return
        if problem is not None:
            self._stick(key, action, _told(problem))

    def _stick(self, key: str, action: Action, error: AdregError) -> None:
        self._stuck[key] = error
        self._say(f"{action.name}: {error.message}")

    def _plan(self) -> list[Action]:
        """What is to be done; what is not, and why, is told where somebody should know."""
        begun = time.monotonic()
        self._due, self._tally = False, overview.tally(self._ws.registry.db)
        restless = {f for watch in self._roots for f in watch.restless_folders()}
        restless |= {asked.folder for asked in self._reader.asked}
        state = read_state(self._ws, self._settled.values(), restless)
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


def _told(problem: Problem) -> AdregError:
    return problem if isinstance(problem, AdregError) else ExternalError(str(problem))
