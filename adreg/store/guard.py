"""Who publishes into the store, and who takes out of it, keep out of each other's way.

A file goes into the store before its row is written. A collector that looked in between would see
a file that no row points at; and where the same content lay there already, from an adapter that is
being removed, it would take the very file that the new row is about to point at. So who publishes
holds the store's lock, shared with others who publish, from before the file until after the row;
who takes out holds it alone. The kernel lets go of the lock of a process that is killed.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from adreg.store.staging import disk_errors, make_private, sync_folder

LOCK_FILE = ".lock"
INCOMING = ".incoming"


@contextmanager
def publishing(root: Path) -> Iterator[None]:
    """Held from before a file goes into the store until its row is committed; may be nested.

    Waits for who takes out. ExternalError where the disk refuses.
    """
    with _locked(root, fcntl.LOCK_SH):
        yield


@dataclass(frozen=True)
class Trash:
    """Where what is taken out lies until it is deleted; on the store's file system."""

    folder: Path

    def take(self, path: Path) -> None:
        """Moves a file or folder out of sight at once; what is not there is no trouble."""
        with disk_errors(path), suppress(FileNotFoundError):
            path.rename(Path(tempfile.mkdtemp(dir=self.folder)) / path.name)
            sync_folder(path.parent)


@contextmanager
def taking_out(root: Path) -> Iterator[Trash]:
    """Held while rows are removed and their files moved aside; nobody publishes meanwhile.

    What was taken is deleted once the lock is let go, for that may last. A process that is killed
    before leaves it among what no row points at.
    """
    trash = None
    try:
        with _locked(root, fcntl.LOCK_EX):
            # Made under the lock: a collector takes whatever lies there when it has the lock.
            trash = Path(tempfile.mkdtemp(dir=make_private(root / INCOMING)))
            yield Trash(trash)
    finally:
        if trash is not None:
            shutil.rmtree(trash, ignore_errors=True)


@contextmanager
def _locked(root: Path, how: int) -> Iterator[None]:
    with disk_errors(root):
        file = (make_private(root) / LOCK_FILE).open("ab")
        fcntl.flock(file, how)
    with file:
        yield
