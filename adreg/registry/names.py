"""Names: pointers at adapters and checkpoints, one name space, blind to case."""

from __future__ import annotations

from typing import Literal

from sqlite_utils import Database

from adreg.domain import check_name
from adreg.errors import ConflictError
from adreg.registry.connection import immediate

ArtefactKind = Literal["adapter", "checkpoint"]


def point(db: Database, name: str, kind: ArtefactKind, digest: str) -> None:
    """Gives the artefact the name; the same pointer twice is one.

    Raises ConflictError where the name points elsewhere, UsageError where it is unfit.
    """
    with immediate(db):
        check_free(db, name, digest)
        db.conn.execute(
            "insert into names(name, kind, digest) values (?, ?, ?) on conflict(name) do nothing",
            [check_name(name), kind, digest],
        )


def check_free(db: Database, name: str, digest: str | None = None) -> None:
    """Raises ConflictError where `name` points at anything but `digest`."""
    row = db.conn.execute("select * from names where name=?", [check_name(name)]).fetchone()
    if row is not None and row["digest"] != digest:
        raise ConflictError(
            f"the name {row['name']!r} is taken by {row['kind']} {row['digest'][:12]}",
            remedy=f"choose another with --name, for instance {free_name(db, name)!r}",
        )


def free_name(db: Database, wanted: str) -> str:
    """`wanted`, or `wanted-2`, `wanted-3`... where it is taken."""
    name, n = wanted, 1
    while db.conn.execute("select 1 from names where name=?", [name]).fetchone():
        n += 1
        name = f"{wanted}-{n}"
    return name


def digest_of(db: Database, name: str, kind: ArtefactKind) -> str | None:
    row = db.conn.execute(
        "select digest from names where name=? and kind=?", [name, kind]
    ).fetchone()
    return str(row["digest"]) if row else None


def all_names(db: Database, kind: ArtefactKind) -> list[str]:
    rows = db.conn.execute("select name from names where kind=? order by name", [kind])
    return [row["name"] for row in rows]
