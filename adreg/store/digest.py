"""Identity by content: SHA-256 of files, of plain JSON values and of whole folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHUNK = 1 << 20


def canonical_json(value: Any) -> str:
    """One spelling for one value: sorted keys, no spaces, ASCII, no NaN (ValueError)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def sha256_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(folder: Path) -> str:
    """SHA-256 over the sorted (relative path, SHA-256) of every file below `folder`."""
    return sha256_json([[name, sha256_file(folder / name)] for name in walk(folder)])


def signature(folder: Path) -> str:
    """SHA-256 over (relative path, size, mtime_ns, inode) of every file below `folder`.

    Tells without reading a byte whether anything was written, added, moved or removed. A file
    that vanishes during the walk is left out: the next signature then differs from this one.
    """
    seen: list[list[str | int]] = []
    for name in walk(folder):
        try:
            stat = (folder / name).stat()
        except FileNotFoundError:
            continue
        seen.append([name, stat.st_size, stat.st_mtime_ns, stat.st_ino])
    return sha256_json(seen)


def walk(folder: Path) -> Iterator[str]:
    """Relative posix paths of all regular files below `folder`, sorted.

    Linked folders are not entered (they may lead round in circles); a named pipe is no file (to
    read one would never end), nor is a link to nothing.
    """
    paths = [Path(parent, name) for parent, _, files in os.walk(folder) for name in files]
    yield from sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())
