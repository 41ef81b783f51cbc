"""Which subject (digest) a folder held that looked like this (mark)."""

from __future__ import annotations

from sqlite_utils import Database

from adreg.registry.connection import immediate


def find(db: Database, mark: str) -> str | None:
    row = db.conn.execute("select subject from folder_digests where mark=?", [mark]).fetchone()
    return str(row["subject"]) if row else None


def put(db: Database, mark: str, subject: str) -> None:
    with immediate(db):
        db.conn.execute(
            "insert into folder_digests(mark, subject) values (?, ?) on conflict do nothing",
            [mark, subject],
        )
