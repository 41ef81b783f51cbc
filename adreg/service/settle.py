"""When a folder has come to rest: a pure tracker, signatures in, settled folders out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adreg.store.digest import signature

TEMPORARY_SUFFIXES = (".part", ".tmp", ".crdownload", ".partial", ".download")


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
        return any(not seen.reported for seen in self._seen.values())


def folder_marks(root: Path) -> dict[Path, str]:
    """The signature of every subject folder right below `root`.

    One that holds the temporary files of a copy under way is left out, so it starts anew when
    they are gone; hidden folders are nobody's subject.
    """
    return {folder: signature(folder) for folder in _folders(root) if not _under_way(folder)}


def under_way(root: Path) -> dict[Path, str]:
    """The folders left out, and the temporary file each still holds."""
    found = {folder: _under_way(folder) for folder in _folders(root)}
    return {folder: file for folder, file in found.items() if file}


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _under_way(folder: Path) -> str | None:
    names = sorted(file.name for file in folder.rglob("*"))
    return next((name for name in names if name.endswith(TEMPORARY_SUFFIXES)), None)
