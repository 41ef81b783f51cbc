"""The course of a training's loss, small enough to be kept with its job's result."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from adreg.domain import Json, Progress

_POINTS = 100


class Curve:
    """An adreg.domain.Progress that passes all on and keeps about a hundred points of the loss.

    A point is the mean over the steps since the one before: a single step's loss says more of the
    timestep that was drawn than of the training. The points lie in a file in the staging folder,
    so that a run that goes on keeps those up to where it goes on.
    """

    def __init__(self, staging: Path, progress: Progress) -> None:
        self._file = staging / "curve.jsonl"
        self._progress = progress
        self._points: list[Json] | None = None
        self._since: list[dict[str, float]] = []

    def __call__(self, stage: str, step: int, total: int, **values: float) -> None:
        self._progress(stage, step, total, **values)
        if "loss" not in values:
            return
        if self._points is None:
            self._points = [point for point in self._read() if point["step"] < step]
            self._file.write_text("".join(map(_line, self._points)))
        self._since.append(values)
        if step % max(1, total // _POINTS) == 0 or step == total:
            self._points.append({"step": step, **_means(self._since)})
            self._since = []
            with self._file.open("a") as file:
                file.write(_line(self._points[-1]))

    def points(self, names: Iterable[str]) -> Json:
        """The steps of the points, and the means of the loss terms of those names, as columns.

        A term adds nothing to the loss of a step that leaves it out: it counts as 0 there.
        """
        points = self._read() if self._points is None else self._points
        named = ("step", *names) if points else ()
        return {name: [point.get(name, 0.0) for point in points] for name in named}

    def _read(self) -> list[Json]:
        """What an earlier attempt wrote; a line that a kill cut short is left out."""
        if not self._file.is_file():
            return []
        lines = self._file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def _line(point: Json) -> str:
    return json.dumps(point) + "\n"


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row.get(name, 0.0) for row in rows) / len(rows) for name in names}
