"""Continual lines: their tasks in order, and what was measured of what they kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adreg.domain import Adapter, Json, Score
from adreg.errors import ConflictError, NotFoundError, not_found
from adreg.registry import adapters, scores
from adreg.service.other_kinds import told_apart
from adreg.service.scores.scoring import photos_of
from adreg.service.training.forgetting import A_MMD, F_MMD, NAME, pictures_of
from adreg.service.workspace import Workspace

_SEE = "see the lines: adreg line list"


@dataclass(frozen=True)
class Line:
    """A line's adapters on one base, one a task, the oldest first."""

    name: str
    base_name: str | None
    base_digest: str
    tasks: tuple[Adapter, ...]

    @property
    def head(self) -> Adapter:
        return self.tasks[-1]

    def new_triggers(self, number: int) -> list[str]:
        """What the task of that number (from 0) added."""
        before = self.tasks[number - 1].triggers if number else []
        return [trigger for trigger in self.tasks[number].triggers if trigger not in before]


@dataclass(frozen=True)
class Kept:
    """What a line had kept at `tasks[-1]`: identity/1 of each concept after each task.

    `matrix` and `intervals` have a row a concept and a column a task, None before the concept was
    learnt. `pictures` maps a cell to its first picture, `photos` a row to the subject's photos;
    both only where they are there still.
    """

    tasks: Sequence[Adapter]
    concepts: Sequence[str]
    matrix: Sequence[Sequence[float | None]]
    intervals: Sequence[Sequence[list[float] | None]]
    scores: Mapping[str, Score]
    pictures: Mapping[tuple[int, int], Path]
    photos: Mapping[str, Sequence[Path]]


def all_lines(ws: Workspace) -> list[Line]:
    """Every line of the registry, by name."""
    return [_line(ws, name, digest) for name, digest in adapters.lines(ws.registry.db)]


def find_line(ws: Workspace, name: str, base_ref: str | None = None) -> Line:
    """The line of a name. Raises NotFoundError (suggests the nearest name), ConflictError where
    it is there on several bases and none is told."""
    found = [line for line in all_lines(ws) if line.name == name]
    if base_ref is not None:
        digest = ws.base(base_ref).digest
        found = [line for line in found if line.base_digest == digest]
    if not found:
        known = sorted({line.name for line in all_lines(ws)})
        with told_apart(ws, name):
            raise not_found("line", name, known, _SEE)
    if len(found) > 1:
        bases = ", ".join(str(line.base_name) for line in found)
        raise ConflictError(f"line {name!r} is on several bases: {bases}", remedy="pass --base")
    return found[0]


def line_of(ws: Workspace, adapter: Adapter) -> Line | None:
    """The line up to an adapter of it."""
    if adapter.line is None or adapter.base_digest is None:
        return None
    history = adapters.history(ws.registry.db, ws.registry.store, adapter)
    return Line(adapter.line, adapter.base_name, adapter.base_digest, tuple(history))


def kept(ws: Workspace, line: Line) -> Kept | None:
    """The newest measurement of a line, at its head or at an earlier task; None without one."""
    for count in range(len(line.tasks), 0, -1):
        found = {s.name: s for s in scores.of(ws.registry.db, line.tasks[count - 1].digest)}
        if NAME in found:
            return _kept(ws, line.tasks[:count], found)
    return None


def measured(ws: Workspace, line: Line) -> Kept:
    """As `kept`. Raises NotFoundError where nothing was measured."""
    found = kept(ws, line)
    if found is None:
        raise NotFoundError(
            f"line {line.name!r} was not measured", remedy=f"adreg score {line.head.name}"
        )
    return found


def line_view(line: Line, found: Kept | None) -> Json:
    """A line as `--json` prints it; docs/json.md has the keys."""
    return {
        "name": line.name,
        "base": line.base_name,
        "base_digest": line.base_digest,
        "method": line.head.method,
        "head": line.head.name,
        "triggers": line.head.triggers,
        "tasks": [
            {
                "task": number + 1,
                "adapter": adapter.name,
                "digest": adapter.digest,
                "triggers": line.new_triggers(number),
                "rank": adapter.rank,
                "state": adapter.state,
                "created": adapter.created,
            }
            for number, adapter in enumerate(line.tasks)
        ],
        "forgetting": None if found is None else kept_view(found),
    }


def kept_view(found: Kept) -> Json:
    return {
        "adapter": found.tasks[-1].name,
        "concepts": list(found.concepts),
        "tasks": [task.name for task in found.tasks],
        "matrix": [list(row) for row in found.matrix],
        "intervals": [list(row) for row in found.intervals],
        "scores": {
            name: {"value": score.value, "interval": score.interval}
            for name, score in found.scores.items()
        },
    }


def _line(ws: Workspace, name: str, base_digest: str) -> Line:
    registry = ws.registry
    head = adapters.head_of_line(registry.db, registry.store, name, base_digest)
    assert head is not None
    history = adapters.history(registry.db, registry.store, head)
    return Line(name, head.base_name, base_digest, tuple(history))


def _kept(ws: Workspace, tasks: Sequence[Adapter], found: Mapping[str, Score]) -> Kept:
    details = found[NAME].details
    photos = photos_of(ws, tasks[-1])
    return Kept(
        tasks=tasks,
        concepts=details["concepts"],
        matrix=details["matrix"],
        intervals=details["intervals"],
        scores={name: found[name] for name in (NAME, A_MMD, F_MMD) if name in found},
        pictures=_pictures(ws, tasks, details["concepts"]),
        photos={trigger: [Path(path) for path in paths] for trigger, paths in photos.items()},
    )


def _pictures(
    ws: Workspace, tasks: Sequence[Adapter], concepts: Sequence[str]
) -> dict[tuple[int, int], Path]:
    digests = [task.digest for task in tasks]
    found: dict[tuple[int, int], Path] = {}
    for picture in pictures_of(ws, tasks[-1]):
        path = ws.registry.store.blob_path(picture["blob"])
        cell = concepts.index(picture["trigger"]), digests.index(picture["task"])
        if path.is_file():
            found.setdefault(cell, path)
    return found
