"""The table of adapters, one row a digest."""

from __future__ import annotations

import json
import sqlite3

from sqlite_utils import Database

from adreg.domain import Adapter
from adreg.registry.connection import immediate
from adreg.registry.rows import dump, dump_concepts, load_concepts, now
from adreg.store.files import Store

_SELECT = """
select a.*, (select n.name from names n where n.digest=a.digest and n.kind='adapter'
             order by n.rowid limit 1) as name
  from adapters a
"""


def insert(db: Database, adapter: Adapter) -> None:
    """The same digest twice is one row; what the first said stays."""
    with immediate(db):
        db.conn.execute(
            "insert into adapters(digest, format, base_digest, base_name, family, concepts,"
            " method, rank, modules, state, tags, line, continued_from, source, spec, created)"
            " values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            " on conflict(digest) do nothing",
            [
                adapter.digest,
                adapter.format,
                adapter.base_digest,
                adapter.base_name,
                adapter.family,
                dump_concepts(adapter.concepts),
                adapter.method,
                adapter.rank,
                adapter.modules,
                adapter.state,
                dump(list(adapter.tags)),
                adapter.line,
                adapter.continued_from,
                adapter.source,
                dump(adapter.spec),
                now(),
            ],
        )


def set_base(db: Database, adapter: Adapter) -> None:
    """Takes over the base that a user names for a file that does not say it."""
    with immediate(db):
        db.conn.execute(
            "update adapters set base_digest=?, base_name=? where digest=?",
            [adapter.base_digest, adapter.base_name, adapter.digest],
        )


def set_concepts(db: Database, adapter: Adapter) -> None:
    """Takes over the trigger and class word that a user names for a file."""
    with immediate(db):
        db.conn.execute(
            "update adapters set concepts=? where digest=?",
            [dump_concepts(adapter.concepts), adapter.digest],
        )


def add_tags(db: Database, digest: str, tags: list[str]) -> None:
    with immediate(db):
        row = db.conn.execute("select tags from adapters where digest=?", [digest]).fetchone()
        merged = sorted({*json.loads(row["tags"]), *tags})
        db.conn.execute("update adapters set tags=? where digest=?", [dump(merged), digest])


def by_digest(db: Database, store: Store, digest: str) -> Adapter | None:
    row = db.conn.execute(f"{_SELECT} where a.digest=?", [digest]).fetchone()
    return _adapter(row, store) if row else None


def starting_with(db: Database, store: Store, prefix: str) -> list[Adapter]:
    """Adapters whose digest starts with `prefix` (hexadecimal digits)."""
    rows = db.conn.execute(f"{_SELECT} where a.digest glob ? order by a.rowid", [f"{prefix}*"])
    return [_adapter(row, store) for row in rows]


def listing(db: Database, store: Store, tag: str | None = None, limit: int = -1) -> list[Adapter]:
    """Adapters, the newest first."""
    rows = db.conn.execute(
        f"{_SELECT} where :tag is null or exists"
        " (select 1 from json_each(a.tags) where value=:tag)"
        " order by a.rowid desc limit :limit",
        {"tag": tag, "limit": limit},
    )
    return [_adapter(row, store) for row in rows]


def with_trigger(db: Database, store: Store, trigger: str, base_digest: str) -> Adapter | None:
    """The adapter trained on that base that owns the trigger, blind to case."""
    row = db.conn.execute(
        f"{_SELECT} where a.base_digest=? and exists (select 1 from json_each(a.concepts) c"
        " where json_extract(c.value, '$[0]')=? collate nocase) order by a.rowid limit 1",
        [base_digest, trigger],
    ).fetchone()
    return _adapter(row, store) if row else None


def head_of_line(db: Database, store: Store, line: str, base_digest: str) -> Adapter | None:
    """The newest adapter of a continual line on a base."""
    row = db.conn.execute(
        f"{_SELECT} where a.line=? and a.base_digest=? order by a.rowid desc limit 1",
        [line, base_digest],
    ).fetchone()
    return _adapter(row, store) if row else None


def history(db: Database, store: Store, adapter: Adapter) -> list[Adapter]:
    """The adapter and all that it goes on from, the oldest first, as far back as there are rows."""
    found = [adapter]
    while (earlier := found[-1].continued_from) is not None:
        before = by_digest(db, store, earlier)
        if before is None:
            break
        found.append(before)
    return found[::-1]


def lines(db: Database) -> list[tuple[str, str]]:
    """Name and base digest of every continual line, by name."""
    rows = db.conn.execute(
        "select distinct line, base_digest from adapters"
        " where line is not null and base_digest is not null order by line, base_digest"
    )
    return [(row["line"], row["base_digest"]) for row in rows]


def _adapter(row: sqlite3.Row, store: Store) -> Adapter:
    path = store.adapter_path(row["digest"])
    return Adapter(
        digest=row["digest"],
        path=path,
        format=row["format"],
        base_digest=row["base_digest"],
        base_name=row["base_name"],
        family=row["family"],
        concepts=load_concepts(row["concepts"]),
        method=row["method"],
        rank=row["rank"],
        modules=row["modules"],
        state=row["state"] if path.is_file() else "missing",
        name=row["name"],
        tags=tuple(json.loads(row["tags"])),
        line=row["line"],
        continued_from=row["continued_from"],
        source=row["source"],
        spec=json.loads(row["spec"]),
        created=row["created"],
    )
