"""What the daemon does for the disk unasked: once a day, what nobody needs any more goes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from adreg.domain import readable_size
from adreg.errors import AdregError
from adreg.service.house.collecting import collect
from adreg.service.workspace import Workspace
from adreg.settings import Settings

# Not at once: a daemon that is started again and again has other things to do.
_SECONDS_BEFORE_THE_FIRST = 3600.0
_SECONDS_BETWEEN = 86400.0


@dataclass
class Retention:
    """`look` often: once a day it begins a collection, in a thread with a registry of its own,
    since whoever looks has children to follow and leases to keep."""

    settings: Settings
    say: Callable[[str], None]
    first: float = _SECONDS_BEFORE_THE_FIRST
    _due: float = field(init=False)
    _at_work: threading.Thread | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._due = monotonic() + self.first

    def look(self) -> None:
        if monotonic() < self._due:
            return
        self._due = monotonic() + _SECONDS_BETWEEN
        # What is taken is moved aside first: a process that ends meanwhile loses nothing.
        self._at_work = threading.Thread(target=self._collect, daemon=True)
        self._at_work.start()

    def wait(self) -> None:
        """For the end of a collection that has begun."""
        if self._at_work is not None:
            self._at_work.join()

    def _collect(self) -> None:
        try:
            found = collect(Workspace.open(self.settings), unasked=True)
        except (AdregError, sqlite3.Error, OSError) as error:
            self.say(f"could not look for what nobody needs any more: {error}")
            return
        if found:
            size = readable_size(sum(item.bytes for item in found))
            self.say(f"removed {len(found)} files or folders that nobody needs any more ({size})")
