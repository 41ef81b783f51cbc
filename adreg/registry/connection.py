"""One SQLite connection, set up the same way every time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from sqlite_utils import Database

from adreg.errors import ArtifactError, ExternalError
from adreg.registry.migrations import migrations
from adreg.store.mounts import mounts_here, network_drive

BUSY_MILLISECONDS = 15_000

_patient = ContextVar("patient", default=False)


def open_database(path: Path) -> Database:
    """Opens the registry's database, makes its folder (0700) and brings its tables up to date.

    Raises ArtifactError where the file is no SQLite database, ExternalError where it cannot be
    written, or lies on a network drive.
    """
    _check_local(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _close_to_others(path.parent)
        db = Database(path, execute_plugins=False, recursive_triggers=False)
        _set_up(db, path)
    except sqlite3.DatabaseError as error:
        raise _explain(path, error) from error
    except OSError as error:
        raise ExternalError(
            f"{path}: {error.strerror}", remedy="set ADREG_HOME elsewhere"
        ) from error
    return db


def _check_local(path: Path) -> None:
    """Processes share a WAL journal's index by memory, which two machines do not have in common:
    one would write over what the other wrote."""
    drive = network_drive(path, mounts_here())
    if drive is not None:
        raise ExternalError(
            f"{path} lies on a network drive ({drive}), where a registry loses what it is told",
            remedy="move the home to a local disk, and set ADREG_HOME; folders of photos may stay"
            " where they are",
        )


def _close_to_others(home: Path) -> None:
    """Photos will lie there. Only when it is first used: who opens it later means to."""
    with suppress(PermissionError):  # a folder of somebody else's, who let us write
        home.chmod(0o700)


def _set_up(db: Database, path: Path) -> None:
    db.conn.row_factory = sqlite3.Row
    db.conn.execute(f"pragma busy_timeout={BUSY_MILLISECONDS}")
    db.conn.execute("pragma foreign_keys=on")
    if migrations.pending(db):
        from filelock import FileLock  # here, since every listing would pay for it

        # Two processes that both see a pending migration would both run it: one lock, and
        # `apply` looks again once it is held.
        with FileLock(f"{path}.migrate.lock"):
            db.conn.execute("pragma journal_mode=wal")
            migrations.apply(db)
        os.chmod(path, 0o600)


def _explain(path: Path, error: sqlite3.DatabaseError) -> ArtifactError | ExternalError:
    if isinstance(error, sqlite3.OperationalError):
        return ExternalError(f"{path}: {error}", remedy="is the disk full or read-only?")
    return ArtifactError(f"{path}: {error}", remedy="move the file away or restore a backup")


@contextmanager
def immediate(db: Database) -> Iterator[None]:
    """A write transaction that takes the lock at once.

    A deferred BEGIN that reads and then writes fails with "database is locked" whenever another
    process wrote in between; BEGIN IMMEDIATE waits its turn. Nested use joins the outer one.
    """
    if db.conn.in_transaction:
        yield
        return
    _begin(db)
    try:
        yield
    except BaseException:
        db.conn.rollback()
        raise
    db.conn.commit()


@contextmanager
def patient(however_long: bool = True) -> Iterator[None]:
    """Within it, `immediate` waits for its turn however long another process takes; or not."""
    before = _patient.set(however_long)
    try:
        yield
    finally:
        _patient.reset(before)


def is_locked(error: sqlite3.Error) -> bool:
    """Whether another process keeps the database, which passes."""
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _begin(db: Database) -> None:
    # SQLite waits for BUSY_MILLISECONDS at a time, deaf to signals; between two waits Ctrl-C is
    # heard.
    while True:
        try:
            db.conn.execute("begin immediate")
            return
        except sqlite3.OperationalError as error:
            if not (_patient.get() and is_locked(error)):
                raise


@contextmanager
def rehearsed(db: Database) -> Iterator[None]:
    """A write transaction of which nothing stays: what would happen, found out by doing it."""
    db.conn.execute("begin immediate")
    try:
        yield
    finally:
        db.conn.rollback()
