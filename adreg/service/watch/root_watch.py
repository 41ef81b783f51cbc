"""One root, looked at again and again: which of its folders have come to rest.

Events of the file system are hints; a scan is the truth, at start and periodically, one code path
for both. Scans run in a thread of their own: a network drive may take minutes over one, or hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from adreg.errors import NotFoundError
from adreg.service.rules.records import Root
from adreg.service.watch.events import Events
from adreg.service.watch.scanning import Scan, scan
from adreg.service.watch.settle import Settling

SECONDS_BETWEEN_SCANS = 30.0
SECONDS_BETWEEN_POLLS = 10.0
_SECONDS_BETWEEN_LOOKS = 0.5
# How late an event may be, after what it tells of was seen already.
_SECONDS_LATE = 5.0
# Of a root that takes long, most of the time is not spent on scans.
_PAUSE = 4.0

Say = Callable[[str], None]


class RootWatch:
    """`marks` are its folders by the last scan, with their signatures."""

    def __init__(self, root: Root, settle_seconds: float, say: Say, *, must_stay: bool) -> None:
        self.root = root
        self.marks: dict[Path, str] = {}
        self.hint = threading.Event()
        self._say = say
        self._must_stay = must_stay
        self._settling = Settling(settle_seconds)
        self._waiting: set[Path] = set()
        self._began = float("-inf")
        self._scanning: _Scanning | None = None
        self._events: Events | None = None
        self._lost = False
        self._unheard: float | None = None
        self._polling = root.polling
        self._refused = False
        self._seen = False

    def look(self, now: float) -> list[Path]:
        """The folders that have come to rest since the last look; begins a scan where there is
        reason to: a hint, a restless folder, or time.

        Raises NotFoundError for a root that is gone, where it must stay.
        """
        settled: list[Path] = []
        if self._scanning is not None and not self._scanning.is_alive():
            ended, self._scanning = self._scanning, None
            settled = self._take(ended)
        self._check_heard(now)
        if self._scanning is None and self._due(now):
            # Cleared before the scan: what changes during it sets the hint again.
            hinted = self.restless()
            self.hint.clear()
            self._began = now
            blind = self._events is None and not self._polling and not self._refused
            self._scanning = _Scanning(self.root.path, now, hinted, self.hint if blind else None)
        return settled

    def restless(self) -> bool:
        """Whether a scan is under way or wanted, or a folder waits out its quiet time."""
        first = self._began == float("-inf")
        scanning = self._scanning is not None
        return first or scanning or self.hint.is_set() or self._settling.restless()

    def restless_folders(self) -> set[Path]:
        """Those that wait out their quiet time; the root itself until it is known what is in it."""
        return self._settling.waiting() if self._seen else {self.root.path}

    def stop(self) -> None:
        if self._events is not None:
            self._events.stop()
            self._events = None

    def _due(self, now: float) -> bool:
        waited = now - self._began
        if waited < _SECONDS_BETWEEN_LOOKS:
            return False
        blind = self._polling or self._events is None
        usual = SECONDS_BETWEEN_POLLS if blind else SECONDS_BETWEEN_SCANS
        return self.hint.is_set() or self._settling.restless() or waited >= usual

    def _take(self, ended: _Scanning) -> list[Path]:
        self._events = self._events or ended.events
        if ended.error is not None:
            self._missing(ended.error)
            return []
        if ended.refused is not None:  # the system's limit of watched folders, or of watchers
            self._refused = True
            self._say(
                f"{self.root.path}: no events from the file system ({ended.refused}): looking every"
                f" {SECONDS_BETWEEN_POLLS:g} s"
            )
        if self._lost:
            self._lost = False
            self._say(f"{self.root.path} is back")
        listened = self._events is not None and ended.events is None
        if ended.found.marks != self.marks and not ended.hinted and listened:
            self._unheard = ended.began + ended.seconds
        self._seen = True
        self.marks = ended.found.marks
        self._say_waiting(ended.found)
        self._began = max(self._began, ended.began + _PAUSE * ended.seconds)
        return self._settling.observe(ended.began, self.marks)

    def _missing(self, error: OSError) -> None:
        """The root cannot be looked into: removed, or its drive is away. Nothing follows from
        that for what was made of it."""
        if isinstance(error, FileNotFoundError) and self.root.path.is_dir():
            self.hint.set()  # it was a folder in it that went while it was looked at
            return
        self._seen = True  # nobody waits for what may never come
        told = f"no folder {self.root.path} any more"
        if not isinstance(error, FileNotFoundError):
            told = f"cannot look into {self.root.path}: {error.strerror}"
        if self._must_stay:
            raise NotFoundError(told, remedy="make it, then drop subject folders in")
        if not self._lost:
            self._lost = True
            self._say(f"{told}: looking again every {SECONDS_BETWEEN_POLLS:g} s")
        self._refused = False
        self.stop()

    def _say_waiting(self, found: Scan) -> None:
        for folder in sorted(found.under_way.keys() - self._waiting):
            name = found.under_way[folder]
            self._say(f"{folder.name}: left until {name} is copied or gone")
        self._waiting = set(found.under_way)

    def _check_heard(self, now: float) -> None:
        """A change that a scan saw and no event told of, late ones included: there are no events
        here, or not for all folders. From then on the root is polled."""
        if self.hint.is_set():
            self._unheard = None
        if self._unheard is not None and now - self._unheard > _SECONDS_LATE:
            self._unheard = None
            self._polling = True
            self.stop()
            self._say(
                f"{self.root.path}: changes without events from the file system: looking every"
                f" {SECONDS_BETWEEN_POLLS:g} s"
            )


class _Scanning(threading.Thread):
    """A scan under way; what it found, or `error`. It keeps nobody from ending.

    Where there is a `hint` for them, it subscribes to events first, for that too goes through all
    folders: `events`, or why they were `refused`.
    """

    def __init__(
        self, root: Path, began: float, hinted: bool, hint: threading.Event | None
    ) -> None:
        super().__init__(name=f"scan of {root}", daemon=True)
        self.began = began
        self.hinted = hinted
        self.seconds = 0.0
        self.found = Scan()
        self.error: OSError | None = None
        self.events: Events | None = None
        self.refused: OSError | None = None
        self._root = root
        self._hint = hint
        self.start()

    def run(self) -> None:
        begun = time.monotonic()
        self._subscribe()
        try:
            self.found = scan(self._root)
        except OSError as error:
            self.error = error
        self.seconds = time.monotonic() - begun

    def _subscribe(self) -> None:
        if self._hint is None or not self._root.is_dir():
            return
        try:
            self.events = Events(self._root, self._hint)
        except OSError as error:
            self.refused = error
