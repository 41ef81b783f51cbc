"""One heavy job a device: a lock file that the daemon's and the foreground's children share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from adreg.domain import Progress
from adreg.errors import ConflictError

WAITING = "waiting for the device"


@contextmanager
def hold_device(device: str, locks: Path, *, wait: bool, progress: Progress) -> Iterator[None]:
    """Holds the device's lock; the child holds it, so that an orphan still counts as busy.

    Raises ConflictError where the device is busy and `wait` is off.
    """
    locks.mkdir(parents=True, exist_ok=True)
    # "cuda" is the first GPU, and must be the same lock as "cuda:0"; so are "cpu" and "cpu:0".
    name = {"cuda": "cuda:0", "cpu:0": "cpu"}.get(device, device)
    lock = FileLock(locks / f"device-{name.replace(':', '-')}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise ConflictError(
                f"device {device} is busy with another job",
                remedy="wait for it (leave out --no-wait), or see: adreg jobs list",
            ) from None
        progress(WAITING, 0, 1)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
