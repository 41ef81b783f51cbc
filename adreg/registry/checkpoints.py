"""The table of merged checkpoints, one row a digest."""

from __future__ import annotations

import json
import sqlite3

from sqlite_utils import Database

from adreg.domain import Checkpoint
from adreg.registry.connection import immediate
from adreg.registry.rows import dump, dump_concepts, load_concepts, now
from adreg.store.files import Store

_SELECT = """
select c.*, (select n.name from names n where n.digest=c.digest and n.kind='checkpoint'
             order by n.rowid limit 1) as name
  from checkpoints c
"""


def insert(db: Database, checkpoint: Checkpoint) -> None:
    """The same digest twice is one row."""
    with immediate(db):
        db.conn.execute(
            "insert into checkpoints(digest, method, adapters, base_digest, base_name, concepts,"
            " recipe, state, created) values (?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " on conflict(digest) do nothing",
            [
                checkpoint.digest,
                checkpoint.method,
                dump(list(checkpoint.adapters)),
                checkpoint.base_digest,
                checkpoint.base_name,
                dump_concepts(checkpoint.concepts),
                dump(checkpoint.recipe),
                checkpoint.state,
                now(),
            ],
        )


def remove_unnamed(db: Database, digest: str) -> bool:
    """Removes the row, with its scores and previews, unless a name points at it or it was
    published; whether it did."""
    with immediate(db):
        kept = "select 1 from names where digest=:digest union select 1 from publications"
        if db.conn.execute(f"{kept} where artefact=:digest", {"digest": digest}).fetchone():
            return False
        db.conn.execute("delete from previews where artefact=?", [digest])
        db.conn.execute("delete from scores where artefact=?", [digest])
        done = db.conn.execute("delete from checkpoints where digest=?", [digest])
    return bool(done.rowcount)


def by_digest(db: Database, store: Store, digest: str) -> Checkpoint | None:
    row = db.conn.execute(f"{_SELECT} where c.digest=?", [digest]).fetchone()
    return _checkpoint(row, store) if row else None


def listing(db: Database, store: Store, limit: int = -1) -> list[Checkpoint]:
    """Checkpoints, the newest first."""
    rows = db.conn.execute(f"{_SELECT} order by c.rowid desc limit ?", [limit])
    return [_checkpoint(row, store) for row in rows]


def _checkpoint(row: sqlite3.Row, store: Store) -> Checkpoint:
    path = store.checkpoint_path(row["digest"])
    return Checkpoint(
        digest=row["digest"],
        path=path,
        method=row["method"],
        adapters=tuple(json.loads(row["adapters"])),
        base_digest=row["base_digest"],
        base_name=row["base_name"],
        concepts=load_concepts(row["concepts"]),
        recipe=json.loads(row["recipe"]),
        name=row["name"],
        state=row["state"] if path.is_dir() else "missing",
        created=row["created"],
    )
