"""The daemon's log: one JSON object a line, rotated, read and followed across rotations."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TextIO

from adreg.domain import Json
from adreg.settings import Settings
from adreg.store.staging import disk_errors, make_private

_LARGEST = 2_000_000  # bytes of a file
_OLDER = 5  # files kept beside it
_SECONDS_BETWEEN_LOOKS = 0.2


def log_path(settings: Settings) -> Path:
    return settings.logs / "daemon.log"


def open_log(settings: Settings, *, largest: int = _LARGEST) -> logging.Logger:
    """A logger whose records may bring `event` (a word of its own) and `facts` in `extra`.

    Raises ExternalError where the disk refuses.
    """
    path = log_path(settings)
    with disk_errors(path):
        make_private(path.parent)
        file = RotatingFileHandler(path, maxBytes=largest, backupCount=_OLDER, encoding="utf-8")
    file.setFormatter(_Lines())
    logger = logging.Logger("adreg daemon")
    logger.addHandler(file)
    return logger


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "note"),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return written(told)


def read_log(settings: Settings, last: int) -> list[Json]:
    """The last entries, the oldest first, of as many files as that takes."""
    path = log_path(settings)
    found = deque(_older(path), maxlen=last)
    with suppress(OSError):
        found.extend(_entries(path.read_text("utf-8", errors="replace").split("\n")))
    return list(found)


def follow_log(settings: Settings, last: int = 0) -> Iterator[Json]:
    """The last entries, then what is logged from now on, for ever; a file that is rotated away is
    read to its end."""
    path = log_path(settings)
    # Opened before the older ones are read, and read on from here: no entry falls between.
    file = _wait_for(path)
    found = deque(_older(path, opened=file), maxlen=last)
    *lines, half = file.read().split("\n")
    found.extend(_entries(lines))
    yield from found
    while True:
        # Looked at before the rest is read: nothing is written to a file that was moved.
        moved = _moved(path, file)
        for line in file:
            half += line
            if half.endswith("\n"):
                yield from _entries([half])
                half = ""
        if moved:
            file.close()
            file = _wait_for(path)
        else:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def written(entry: Json) -> str:
    """An entry as the file has it."""
    return json.dumps(entry, ensure_ascii=False)


def readable(entry: Json) -> str:
    """An entry for people: local time and message, trouble marked, what to do below."""
    clock = datetime.fromisoformat(entry["time"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    mark = "" if entry["level"] == "info" else f"{entry['level']}: "
    below = [f"  hint: {entry['remedy']}"] if entry.get("remedy") else []
    below += [f"  {line}" for line in entry.get("traceback", "").splitlines()]
    return "\n".join([f"{clock}  {mark}{entry['message']}", *below])


def _older(path: Path, opened: TextIO | None = None) -> Iterator[Json]:
    """What is in the files that were rotated away, but for one that is `opened` already."""
    for number in range(_OLDER, 0, -1):
        with suppress(OSError):
            part = path.with_name(f"{path.name}.{number}")
            if opened is None or part.stat().st_ino != os.fstat(opened.fileno()).st_ino:
                yield from _entries(part.read_text("utf-8", errors="replace").split("\n"))


def _wait_for(path: Path) -> TextIO:
    while True:
        try:
            return path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _moved(path: Path, file: TextIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:  # in the midst of it
        return False


def _entries(lines: Iterable[str]) -> Iterator[Json]:
    """What was logged; a line that the disk had no space for is left out."""
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)
