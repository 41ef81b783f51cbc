"""Publish by rename, fail by deleting: nothing half-written is seen under its final name.

Bytes reach the disk (fsync of file, then of folder) before the name does, so a name that is
there after a power cut points at complete content.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from adreg.errors import ArtifactError, ExternalError, NotFoundError

PRIVATE = 0o700
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_staging(root: Path, job_id: int) -> Path:
    """An empty private folder `root/<job_id>`, where it is not there yet; kept where it is."""
    with disk_errors(root):
        folder = make_private(root) / str(job_id)
        return make_private(folder)


def make_private(folder: Path) -> Path:
    """The folder, made with its parents where missing; only its owner may enter (0700)."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
    folder.chmod(PRIVATE)
    return folder


def publish_dir(staged: Path, final: Path) -> Path:
    """Rename a finished folder to its content-addressed name; returns `final`.

    Where `final` already has content, that is the same content by its name: `staged` is dropped.
    Both must lie on one file system. ExternalError where the disk refuses.
    """
    with disk_errors(final):
        _sync_tree(staged)
        _make_parents(final)
        try:
            staged.rename(final)
        except OSError as error:
            # rename(2) replaces an empty folder but never one with content: no look-then-leap race
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(staged)
        sync_folder(staged.parent)
        sync_folder(final.parent)
    return final


def publish_file(staged: Path, final: Path) -> Path:
    """Rename a finished file to its final name, replacing what was there; returns `final`."""
    with disk_errors(final):
        _sync(staged)
        _make_parents(final)
        staged.replace(final)
        sync_folder(final.parent)
    return final


@contextlib.contextmanager
def writing(final: Path) -> Iterator[IO[bytes]]:
    """A binary file that becomes `final` when the block ends, and vanishes when it raises.

    Readers see the old content or the new, never a part. Permissions follow the umask.
    ExternalError where the disk refuses (full, read-only).
    """
    with disk_errors(final):
        _make_parents(final)
        descriptor, name = tempfile.mkstemp(dir=final.parent, prefix=".", suffix=".tmp")
        staged = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            staged.chmod(0o666 & ~_umask())
            publish_file(staged, final)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def write_json_atomic(path: Path, value: Any) -> None:
    """Write `value` as readable JSON through `writing`; NaN is a ValueError."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with writing(path) as file:
        file.write(text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """The JSON value in a file. NotFoundError where it is missing, ArtifactError where broken."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"no file {path}", remedy="check the path") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is no readable JSON: {error}", remedy="restore it from its source"
        ) from None


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into an ExternalError that names `path`."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise ExternalError(
            f"cannot write {path}: {error.strerror or error}",
            remedy="free some disk space" if full else "check the folder and its permissions",
            retryable=full,
        ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_parents(path: Path) -> None:
    """Folders above `path`, each durable in the one above it before anything goes inside."""
    missing = [folder for folder in path.parents if not folder.is_dir()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            _sync(Path(parent, name))
        sync_folder(Path(parent))


def _umask() -> int:
    # The mask can only be read by setting it; 0o077 for that instant, so that a file another
    # thread makes meanwhile is too private rather than too open.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
