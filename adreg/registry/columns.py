"""Columns of the basis that orthogonal adapters of a base share: no two adapters get one twice.

Numbers count up without an end; a layer of n inputs takes them modulo n (train/methods/orthogonal).
"""

from __future__ import annotations

from sqlite_utils import Database

from adreg.registry.connection import immediate


def assign(db: Database, base_digest: str, holder: str, count: int) -> int:
    """The first of the `count` columns of a base that are the holder's from now on.

    The same holder is given the same ones again, whatever became of its training.
    """
    with immediate(db):
        row = db.conn.execute(
            "select first from columns where base_digest=? and holder=?", [base_digest, holder]
        ).fetchone()
        if row is not None:
            return int(row["first"])
        (first,) = db.conn.execute(
            "select coalesce(max(first + count), 0) from columns where base_digest=?", [base_digest]
        ).fetchone()
        db.conn.execute(
            "insert into columns(base_digest, holder, first, count) values (?, ?, ?, ?)",
            [base_digest, holder, first, count],
        )
        return int(first)
