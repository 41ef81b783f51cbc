"""Where a user wants something written: looked at before work is done for it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from adreg.errors import UsageError
from adreg.store.staging import disk_errors


def check_file(out: Path, kind: str) -> None:
    """Raises UsageError for a folder, ExternalError where no file can be written; leaves nothing.

    `kind` is what would be written: "HTML".
    """
    if out.is_dir():
        raise UsageError(
            f"--out {out} is a folder", remedy=f"name the {kind} file to write into it"
        )
    check_folder(out.absolute().parent, out)


def check_folder(folder: Path, out: Path) -> None:
    """ExternalError, naming `out`, where nothing can be written to the folder, or it cannot be
    made; leaves nothing."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with disk_errors(out), TemporaryFile(dir=there):
        pass
