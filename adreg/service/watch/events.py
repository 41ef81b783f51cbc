"""Hints that something below a root has changed, from the file system where it gives any."""

from __future__ import annotations

import threading
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver


class Events:
    """Sets `hint` at every change below a folder; not below those that came when the system's
    limit of watches was reached, and not at what another machine does on a network drive."""

    def __init__(self, root: Path, hint: threading.Event) -> None:
        """Raises OSError where the system gives none at all."""
        self._observer: BaseObserver = Observer()
        self._observer.schedule(_Hint(hint), str(root), recursive=True)
        self._observer.start()

    def stop(self) -> None:
        self._observer.stop()
        self._observer.join()


class _Hint(FileSystemEventHandler):
    def __init__(self, hint: threading.Event) -> None:
        self._hint = hint

    def on_any_event(self, event: FileSystemEvent) -> None:
        # Reading an image makes events too; reacting to those would be a loop.
        if event.event_type not in ("opened", "closed_no_write"):
            self._hint.set()
