"""Progress as lines of JSON in the staging folder, which any supervisor may follow.

A file, not a pipe: a child must outlive the end of the process that reads its progress.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from adreg.jobs.protocol import PROGRESS_FILE

_SECONDS_BETWEEN_LINES = 0.1


class ProgressFile:
    """An adreg.domain.Progress that appends to a file, at most ten lines a second and stage."""

    def __init__(self, staging: Path) -> None:
        self._file = (staging / PROGRESS_FILE).open("a", encoding="utf-8")
        self._stage = ""
        self._written = 0.0

    def __call__(self, stage: str, step: int, total: int, **values: float) -> None:
        clock = time.monotonic()
        fresh = stage != self._stage or step >= total
        if not fresh and clock - self._written < _SECONDS_BETWEEN_LINES:
            return
        self._stage, self._written = stage, clock
        line = {"stage": stage, "step": step, "total": total, "values": values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
