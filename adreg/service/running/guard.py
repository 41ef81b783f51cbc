"""Which child has to be ended: one that gets nowhere, or that takes more memory than there is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import psutil

from adreg.domain import Json, readable_size
from adreg.errors import ExternalError
from adreg.jobs.device import WAITING
from adreg.jobs.protocol import PROGRESS_FILE
from adreg.service.running.child import OwnChild, last_progress, log_file
from adreg.settings import Settings

# Its transfers tell nothing while they last; the Hub's client has bounds of its own.
_WITHOUT_PROGRESS = ("publish",)
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass
class Pulse:
    """Whether a child gets on: its progress grows, or it only waits for its device.

    Times are of the monotonic clock, and the progress file's size is looked at, not its time: a
    clock that is set ends nobody.
    """

    staging: Path
    _size: int = field(default=-1, init=False)
    _since: float = field(default_factory=lambda: monotonic(), init=False)

    def still_for(self) -> float:
        """Seconds since the last sign of life."""
        now = monotonic()
        with suppress(OSError):
            size = (self.staging / PROGRESS_FILE).stat().st_size
            if size != self._size or _waits(self.staging):
                self._size, self._since = size, now
        return now - self._since


def hangs(child: OwnChild, pulse: Pulse, settings: Settings) -> bool:
    """Whether a child has made no progress for longer than the settings allow (0: for ever)."""
    if not settings.hang_seconds or child.job.kind in _WITHOUT_PROGRESS:
        return False
    return pulse.still_for() > settings.hang_seconds


def hanging_error(child: OwnChild, settings: Settings) -> Json:
    """What is told of a child that hangs. Called before it is killed: what it reads is named."""
    return _error(
        f"job {child.job.id} made no progress for {settings.hang_seconds:g} s and was ended"
        + _reading(child),
        "where a step really takes that long, raise hang_seconds in adreg.toml; its log:"
        f" {log_file(settings, child.job.id)}",
    )


def greediest(children: Sequence[OwnChild], settings: Settings) -> OwnChild | None:
    """The child with the most memory, where all together hold more than they may."""
    if not settings.memory_share:
        return None
    held = [(held_by(child), number) for number, child in enumerate(children)]
    if sum(size for size, _ in held) <= settings.memory_share * memory_here():
        return None
    return children[max(held)[1]]


def memory_error(child: OwnChild, settings: Settings) -> Json:
    """What is told of a child that takes too much memory. Called before it is killed."""
    return _error(
        f"job {child.job.id} held {readable_size(held_by(child))} of memory, and jobs may take"
        f" {settings.memory_share:g} of the {readable_size(memory_here())} here: it was ended"
        + _reading(child),
        "ask for less (a smaller --batch, --gradient-checkpointing, --precision bf16), or raise"
        f" memory_share in adreg.toml; its log: {log_file(settings, child.job.id)}",
    )


def held_by(child: OwnChild) -> int:
    """Bytes of memory that only its end gives back: mapped files are not counted."""
    try:
        memory = psutil.Process(child.process.pid).memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))


def memory_here() -> int:
    """Bytes of memory that this machine, or the container it is in, has."""
    return min([psutil.virtual_memory().total, *_limits()])


def _limits() -> list[int]:
    """The bounds of this process's control groups, if there are any."""
    try:
        paths = [line.split(":", 2)[2] for line in _MEMBERSHIP.read_text().splitlines()]
    except OSError:
        return []
    folders = {_CGROUPS, _CGROUPS / "memory"}
    for path in paths:
        own = Path(path.lstrip("/"))
        folders |= {_CGROUPS / above for above in (own, *own.parents)}
    found = []
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                found.append(int((folder / name).read_text()))
    return [limit for limit in found if limit > 0]


def _reading(child: OwnChild) -> str:
    """Which image the child has open: most likely what it got stuck at."""
    try:
        files = [Path(file.path) for file in psutil.Process(child.process.pid).open_files()]
    except psutil.Error:
        return ""
    images = [file.name for file in files if file.name in _images(child.job.request)]
    return f", while it read {images[0]}" if images else ""


def _images(request: Json) -> list[str]:
    return [*request.get("images", ()), *(i for s in request.get("also", ()) for i in s["images"])]


def _waits(staging: Path) -> bool:
    line = last_progress(staging)
    return line is not None and line["stage"] == WAITING


def _error(message: str, remedy: str) -> Json:
    return ExternalError(message, remedy=remedy, retryable=True).to_json()
