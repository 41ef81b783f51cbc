"""One look at a root: its subject folders, what each holds, and which are still being copied."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from adreg.store.digest import sha256_json
from adreg.train.subject_file import read_counted

TEMPORARY_SUFFIXES = (".part", ".tmp", ".crdownload", ".partial", ".download")
_Identity = tuple[int, int]


@dataclass(frozen=True)
class Scan:
    """`marks` maps subject folders to their signatures; `under_way` those that are left out, since
    a copy into them is under way, to the temporary file they still hold."""

    marks: dict[Path, str] = field(default_factory=dict)
    under_way: dict[Path, str] = field(default_factory=dict)


def scan(root: Path) -> Scan:
    """Every subject below the root. Raises OSError where the root cannot be looked into.

    A folder that holds files, or nothing at all, is a subject; one with nothing but folders is
    looked into, so subjects may be nested. Hidden folders are nobody's subject. A folder that is
    reached twice, by a link, counts once: links that lead round in circles end, those that lead to
    the root itself or to what it lies in among them.
    """
    found = Scan()
    real = Path(os.path.realpath(root))
    seen = {_identity(folder) for folder in (real, *real.parents)}
    for folder in _subjects(str(root), seen):
        files = list(_files(folder, ""))
        names = sorted(name.rpartition("/")[2] for name, _ in files)
        copied = next((name for name in names if name.endswith(TEMPORARY_SUFFIXES)), None)
        if copied is not None:
            found.under_way[Path(folder)] = copied
        else:
            found.marks[Path(folder)] = _signature(files)
    return found


def file_sizes(folder: Path) -> dict[str, int]:
    """The bytes of each file below a folder by its relative name; of what cannot be read none."""
    found = {}
    for name, entry in _files(str(folder), ""):
        with suppress(OSError):
            found[name] = entry.stat().st_size
    return found


def _subjects(folder: str, seen: set[_Identity]) -> Iterator[str]:
    """The subjects below a folder, by name."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    # What a link leads to goes by its own name, where that is here too.
    inside = sorted(shown, key=lambda entry: (entry.is_symlink(), entry.name))
    for entry in inside:
        if not _is_folder(entry):
            continue
        try:
            identity = _identity(entry.path)
            if identity in seen:
                continue
            seen.add(identity)
            if _holds_nothing_but_folders(entry.path):
                yield from _subjects(entry.path, seen)
                continue
        except OSError:
            pass  # gone again, or closed to us: whoever takes it in says so
        yield entry.path


def _holds_nothing_but_folders(folder: str) -> bool:
    """Whether a folder is no subject itself; those of kohya's convention belong to theirs."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    folders = [entry for entry in shown if _is_folder(entry)]
    counted = any(read_counted(entry.name) for entry in folders)
    return bool(folders) and len(folders) == len(shown) and not counted


def _files(folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files below a folder by their relative names; linked folders are not entered."""
    try:
        with os.scandir(folder) as entries:
            inside = list(entries)
    except OSError:
        return
    for entry in inside:
        name = prefix + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, name + "/")
        elif _is_file(entry):
            yield name, entry


def _signature(files: list[tuple[str, os.DirEntry[str]]]) -> str:
    """SHA-256 over (name, size, mtime_ns, inode): tells without reading a byte whether anything
    was written, added, moved or removed."""
    marks = []
    for name, entry in sorted(files, key=lambda one: one[0]):
        try:
            stat = entry.stat()
        except OSError:  # gone since, or a link to nothing: the next signature differs
            continue
        marks.append([name, stat.st_size, stat.st_mtime_ns, stat.st_ino])
    return sha256_json(marks)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()  # of a link, what it leads to
    except OSError:
        return False


def _identity(folder: str | Path) -> _Identity:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino
