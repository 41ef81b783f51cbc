"""How much room files take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; links count as links, what is gone as 0."""
    return sum(size for _, size in files_below(path))


def files_below(path: Path) -> list[tuple[Path, int]]:
    """Every file below a folder (or the file itself) with its bytes; what vanishes is left out.

    Of several names of one file (hard links) the first has its bytes, the others none.
    """
    found = []
    seen: set[tuple[int, int]] = set()
    for file in [path] if not path.is_dir() else _walk(path):
        with suppress(OSError):
            stat = file.lstat()
            known = (stat.st_dev, stat.st_ino) in seen
            seen.add((stat.st_dev, stat.st_ino))
            found.append((file, 0 if known else stat.st_size))
    return found


def _walk(folder: Path) -> list[Path]:
    return [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
