"""Which process works on what: workers by host, pid and start time, children by their arguments
or, where they were forked, by the pid they left."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import psutil

from adreg.errors import AdregError
from adreg.jobs.protocol import FORKED_FILE
from adreg.jobs.started import started
from adreg.store.staging import read_json

CHILD_MODULE = "adreg.jobs"
_SECONDS_TO_END = 10.0
# The machine's start is told in whole seconds, and may be rounded otherwise the next time.
_SAME_START = 2.0


def me() -> str:
    """This process as the job table names it. A pid alone may be another process by now."""
    process = psutil.Process()
    return f"{socket.gethostname()} {process.pid} {started(process):.2f}"


def known_dead(worker: str) -> bool:
    """Whether that worker was of this machine and is gone; False where it cannot be told."""
    host, pid, began = worker.rsplit(" ", 2)
    return host == socket.gethostname() and not alive(int(pid), float(began))


def child_arguments(staging: Path, attempt: int) -> list[str]:
    """How a child is called; by this it is found again, whatever became of who started it."""
    return ["-m", CHILD_MODULE, str(staging.resolve()), str(attempt)]


def end_orphans(staging: Path, attempt: int) -> int:
    """Ends children of attempts before `attempt` that are still at work; returns how many.

    A later attempt's child is somebody's, not an orphan. They are asked first (SIGTERM: a
    training run saves its state), then killed.
    """
    orphans = [p for p in psutil.process_iter() if _attempt_of(p, staging) < attempt]
    orphans += [p for p, tried in forked_child(staging) if tried < attempt]
    for orphan in orphans:
        with suppress(psutil.Error):
            orphan.terminate()
    _, stubborn = psutil.wait_procs(orphans, timeout=_SECONDS_TO_END)
    for orphan in stubborn:
        with suppress(psutil.Error):
            orphan.kill()
    psutil.wait_procs(stubborn, timeout=_SECONDS_TO_END)
    return len(orphans)


def forked_child(staging: Path) -> list[tuple[psutil.Process, int]]:
    """The child that was forked for that staging folder, if it is alive, and its attempt.

    One that was forked but has left no pid yet is not found; it looks whether the job is still
    its own before it begins.
    """
    try:
        told = read_json(staging / FORKED_FILE)
        if alive(told["pid"], told["started"]):
            return [(psutil.Process(told["pid"]), told["attempt"])]
    except (AdregError, psutil.Error):
        pass
    return []


def _attempt_of(process: psutil.Process, staging: Path) -> float:
    """Which attempt's child in that staging folder a process is; infinity for any other."""
    try:
        *_, flag, module, folder, attempt = process.cmdline()
    except (psutil.Error, ValueError):
        return float("inf")
    if [flag, module, folder] != child_arguments(staging, 0)[:3] or not attempt.isdecimal():
        return float("inf")
    return int(attempt)


def alive(pid: int, began: float) -> bool:
    """Whether the process of that pid and start (adreg.jobs.started) still runs."""
    try:
        process = psutil.Process(pid)
        same = abs(started(process) - began) < _SAME_START
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
