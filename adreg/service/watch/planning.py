"""`adreg daemon plan`: what the daemon would do now, and why; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from adreg.errors import AdregError, ExternalError
from adreg.service.policy.decide import next_actions
from adreg.service.policy.records import Action, Rest, Settled
from adreg.service.policy.state import read_state
from adreg.service.rules.records import Rules
from adreg.service.watch.looking import KnownKeys
from adreg.service.watch.reader import Answer, Look, Problem, Reader
from adreg.service.watch.scanning import Scan, scan
from adreg.service.workspace import Workspace

_SECONDS_TO_WAIT = 0.5


def plan_now(ws: Workspace, rules: Rules) -> list[Action]:
    """Every action that follows from how things are, as if each folder had come to rest, and why
    there is none for the others. Photos that no watcher has read before are read.

    The rules are as `checking.checked` returns them.
    """
    with closing(Reader(ws.settings)) as reader:
        return _plan(ws, rules, KnownKeys(ws), reader)


def _plan(ws: Workspace, rules: Rules, keys: KnownKeys, reader: Reader) -> list[Action]:
    settled: list[Settled] = []
    rests: list[Action] = []
    for root in rules.roots:
        try:
            found = scan(root.path)
        except OSError as error:
            problem = ExternalError(f"cannot look into {root.path}: {error.strerror}")
            rests.append(Rest(str(root.path), problem.message, problem))
            continue
        rests += _being_copied(found)
        base = keys.base(root.base).digest
        for folder, mark in sorted(found.marks.items()):
            reader.ask(Look(folder, root, mark, base, keep=False))
        for answer in _answers(reader):
            if answer.found is not None:
                settled.append(answer.found)
            elif answer.problem is not None:
                rests.append(_cannot_look(answer.request.folder, answer.problem))
    return [*rests, *next_actions(rules, read_state(ws, settled), keys)]


def _being_copied(found: Scan) -> list[Action]:
    return [
        Rest(folder.name, f"left until {file} is copied or gone")
        for folder, file in sorted(found.under_way.items())
    ]


def _answers(reader: Reader) -> Iterator[Answer]:
    while reader.asked:
        yield from reader.answers(_SECONDS_TO_WAIT)


def _cannot_look(folder: Path, problem: Problem) -> Rest:
    told = problem if isinstance(problem, AdregError) else ExternalError(f"{folder}: {problem}")
    return Rest(folder.name, str(problem), told)
