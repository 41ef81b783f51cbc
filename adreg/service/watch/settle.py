"""When a folder has come to rest: a pure tracker, signatures in, settled folders out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class _Seen:
    mark: str
    since: float
    reported: bool = False


@dataclass
class Settling:
    """Remembers each folder's signature and since when it has not changed.

    Times are readings of the monotonic clock; a folder's mtimes are never compared with now,
    since moved folders keep old ones and network drives have clocks of their own.
    """

    quiet_seconds: float
    _seen: dict[Path, _Seen] = field(default_factory=dict)

    def observe(self, now: float, marks: Mapping[Path, str]) -> list[Path]:
        """The folders that have just settled: unchanged for the quiet time, told once a state."""
        for gone in [path for path in self._seen if path not in marks]:
            del self._seen[gone]
        settled = []
        for path in sorted(marks):
            seen = self._seen.get(path)
            if seen is None or seen.mark != marks[path]:
                self._seen[path] = _Seen(marks[path], now)
            elif not seen.reported and now - seen.since >= self.quiet_seconds:
                seen.reported = True
                settled.append(path)
        return settled

    def restless(self) -> bool:
        """Whether any folder is still waiting out its quiet time."""
        return bool(self.waiting())

    def waiting(self) -> set[Path]:
        """The folders that are."""
        return {path for path, seen in self._seen.items() if not seen.reported}
