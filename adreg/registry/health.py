"""Whether a registry's database is sound, looked at without changing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database

from adreg.registry.migrations import migrations

_SHOWN = 5  # of what is wrong


def damage(path: Path) -> list[str]:
    """What is wrong inside the file, a few sentences; none where all is well.

    Raises sqlite3.Error where it cannot even be opened or read.
    """
    with _read_only(path) as db:
        found = [row[0] for row in db.conn.execute(f"pragma integrity_check({_SHOWN})")]
        lost = list(db.conn.execute("pragma foreign_key_check"))
    told = [f"{row[0]}: a row points at no {row[2]}" for row in lost[:_SHOWN]]
    return [] if found == ["ok"] and not told else [*(t for t in found if t != "ok"), *told]


def unlike_this_program(path: Path) -> tuple[list[str], list[str]]:
    """Migrations that are still to be made, and those that this program does not know: a newer
    one made them. Raises sqlite3.Error."""
    with _read_only(path) as db:
        pending = [migration.name for migration in migrations.pending(db)]
        applied = [migration.name for migration in migrations.applied(db)]
    known = {migration.name for migration in migrations.pending(Database(memory=True))}
    return pending, [name for name in applied if name not in known]


@contextmanager
def _read_only(path: Path) -> Iterator[Database]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        yield Database(connection, execute_plugins=False)
