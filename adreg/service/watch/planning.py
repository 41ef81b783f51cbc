"""`adreg daemon plan`: what the daemon would do now, and why; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adreg.errors import AdregError, ExternalError
from adreg.service.policy.decide import next_actions
from adreg.service.policy.records import Action, Rest, Settled
from adreg.service.policy.state import read_state
from adreg.service.rules.records import Root, Rules
from adreg.service.watch.looking import KnownKeys, look_into
from adreg.service.watch.scanning import Scan, scan
from adreg.service.workspace import Workspace


def plan_now(ws: Workspace, rules: Rules) -> list[Action]:
    """Every action that follows from how things are, as if each folder had come to rest, and why
    there is none for the others. Photos that no watcher has read before are read.

    The rules are as `checking.checked` returns them.
    """
    keys = KnownKeys(ws)
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
        for one in _looked_into(ws, root, found, keys):
            if isinstance(one, Settled):
                settled.append(one)
            else:
                rests.append(one)
    return [*rests, *next_actions(rules, read_state(ws, settled), keys)]


def _being_copied(found: Scan) -> list[Action]:
    return [
        Rest(folder.name, f"left until {file} is copied or gone")
        for folder, file in sorted(found.under_way.items())
    ]


def _looked_into(
    ws: Workspace, root: Root, found: Scan, keys: KnownKeys
) -> Iterator[Settled | Rest]:
    base = keys.base(root.base).digest
    for folder, mark in sorted(found.marks.items()):
        try:
            yield look_into(ws, folder, root, mark, base, keep=False)
        except (AdregError, OSError) as problem:
            yield Rest(folder.name, str(problem), _told(folder, problem))


def _told(folder: Path, problem: AdregError | OSError) -> AdregError:
    return problem if isinstance(problem, AdregError) else ExternalError(f"{folder}: {problem}")
