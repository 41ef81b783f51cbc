"""What rows point at: the other half of finding out which files nobody needs."""

from __future__ import annotations

from typing import Literal, NamedTuple

from sqlite_utils import Database

from adreg.domain import JobState
from adreg.registry.removal import REMOVED

Table = Literal["adapters", "checkpoints", "subjects"]


class Stand(NamedTuple):
    """How a job stands, and since when (UTC)."""

    state: JobState
    since: str
    attempt: int


def digests(db: Database, table: Table) -> set[str]:
    return {row["digest"] for row in db.conn.execute(f"select digest from {table}")}


def stands(db: Database) -> dict[int, Stand]:
    """Every job's number to how it stands."""
    rows = db.conn.execute("select id, state, updated, attempt from jobs")
    return {row["id"]: Stand(row["state"], row["updated"], row["attempt"]) for row in rows}


def live_requests(db: Database) -> str:
    """The requests of all queued and running jobs, as one text to look for digests in."""
    rows = db.conn.execute("select request from jobs where state in ('queued', 'running')")
    return "\n".join(row["request"] for row in rows)


def idle_subjects(db: Database, before: str) -> list[str]:
    """Digests of subjects that only removed adapters learnt from, since before that time."""
    rows = db.conn.execute(
        "with users as (select request from jobs where kind='train' and (updated>=:before"
        " or coalesce(json_extract(error, '$.type'), '')<>:removed))"
        " select digest from subjects where created<:before"
        " except select json_extract(request, '$.subject') from users"
        " except select json_extract(a.value, '$.subject') from users u, json_each(u.request,"
        " '$.also') a",
        {"before": before, "removed": REMOVED},
    )
    return [row["digest"] for row in rows]


def blobs(db: Database, *, samples_since: str = "") -> set[str]:
    """Digests of all pictures that a preview or a job's result points at; samples of trainings
    that ended before that time left out."""
    rows = db.conn.execute(
        "select blob from previews union select t.value from jobs j, json_tree(j.result) t"
        " where t.key='blob' and j.result is not null and not (j.kind='train' and j.updated<?)",
        [samples_since],
    )
    return {str(row[0]) for row in rows}


def previews(db: Database) -> list[str]:
    """Digests of all previews, in order."""
    rows = db.conn.execute("select distinct blob from previews order by blob")
    return [row["blob"] for row in rows]
