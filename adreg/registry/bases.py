"""The tables of bases: what was hashed before, and the names that bases were added under."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlite_utils import Database

from adreg.domain import Base, check_name
from adreg.errors import ConflictError
from adreg.registry.connection import immediate
from adreg.registry.rows import dump, now

Kind = Literal["folder", "file", "hub"]
Files = Mapping[str, Mapping[str, str]]

_SELECT = """
select n.*, b.family, b.prediction_type, b.components
  from base_names n join bases b on b.digest=n.digest
"""


@dataclass(frozen=True)
class NamedBase:
    """A base under the name it was added with.

    `source` is what was added: a folder, a file, or the Hub's "owner/name"; `revision` the commit
    of a Hub id or the SHA-256 of a single file. `files` maps component to file name to digest.
    """

    name: str
    digest: str
    kind: Kind
    source: str
    family: str
    prediction_type: str
    revision: str | None = None
    components: Mapping[str, str] = field(default_factory=dict)
    files: Files = field(default_factory=dict)
    created: str = ""


def insert_base(db: Database, base: Base, reference: str, signature: str) -> None:
    """`reference` is what finds the base again: "pocket", or its folder.

    `signature` is that of the folder when its components were hashed.
    """
    with immediate(db):
        db.conn.execute(
            "insert into bases(digest, name, family, reference, signature, components,"
            " prediction_type, created) values (?, ?, ?, ?, ?, ?, ?, ?)"
            " on conflict(digest) do update set reference=excluded.reference,"
            " signature=excluded.signature",
            [
                base.digest,
                base.name,
                base.family,
                reference,
                signature,
                dump(dict(base.components)),
                base.prediction_type,
                now(),
            ],
        )


def known_components(db: Database, signature: str) -> dict[str, str]:
    """Component digests of a base folder that is unchanged since they were taken."""
    row = db.conn.execute("select components from bases where signature=?", [signature]).fetchone()
    return json.loads(row["components"]) if row else {}


def base_reference(db: Database, digest: str) -> str | None:
    """What finds the base of that digest: its name, else what it was when it was used here."""
    named = with_digest(db, digest)
    if named is not None:
        return named.name
    row = db.conn.execute("select reference from bases where digest=?", [digest]).fetchone()
    return str(row["reference"]) if row else None


def point(db: Database, base: Base, named: NamedBase) -> None:
    """Gives a base that was inserted the name; the same again is one row.

    Raises ConflictError where the name means another base, UsageError where it is unfit.
    """
    with immediate(db):
        check_free(db, named.name, base.digest)
        db.conn.execute(
            "insert into base_names(name, digest, kind, source, revision, files, created)"
            " values (?, ?, ?, ?, ?, ?, ?) on conflict(name) do update set kind=excluded.kind,"
            " source=excluded.source, revision=excluded.revision, files=excluded.files",
            [
                check_name(named.name),
                base.digest,
                named.kind,
                named.source,
                named.revision,
                dump({part: dict(files) for part, files in named.files.items()}),
                now(),
            ],
        )


def check_free(db: Database, name: str, digest: str | None = None) -> None:
    """Raises ConflictError where the name means any base but the one of `digest`."""
    found = with_name(db, check_name(name))
    if found is not None and found.digest != digest:
        raise ConflictError(
            f"the name {found.name!r} is taken by base {found.digest[:12]} ({found.source})",
            remedy="choose another with --name",
        )


def with_name(db: Database, name: str) -> NamedBase | None:
    row = db.conn.execute(f"{_SELECT} where n.name=?", [name]).fetchone()
    return _named(row) if row else None


def with_digest(db: Database, digest: str) -> NamedBase | None:
    """The base under its first name."""
    row = db.conn.execute(
        f"{_SELECT} where n.digest=? order by n.rowid limit 1", [digest]
    ).fetchone()
    return _named(row) if row else None


def from_hub(db: Database, ref: str) -> NamedBase | None:
    """The base added last of "owner/name" or "owner/name@commit"."""
    row = db.conn.execute(
        f"{_SELECT} where n.kind='hub' and ? in (n.source, n.source || '@' || n.revision)"
        " order by n.rowid desc limit 1",
        [ref],
    ).fetchone()
    return _named(row) if row else None


def listing(db: Database) -> list[NamedBase]:
    """All that were added, by name."""
    return [_named(row) for row in db.conn.execute(f"{_SELECT} order by n.name")]


def all_names(db: Database) -> list[str]:
    return [row["name"] for row in db.conn.execute("select name from base_names order by name")]


def _named(row: sqlite3.Row) -> NamedBase:
    return NamedBase(
        name=row["name"],
        digest=row["digest"],
        kind=row["kind"],
        source=row["source"],
        family=row["family"],
        prediction_type=row["prediction_type"],
        revision=row["revision"],
        components=json.loads(row["components"]),
        files=json.loads(row["files"]),
        created=row["created"],
    )
