"""What depends on an artefact, and its rows taken out, in the caller's transaction.

Digests are 64 digits, so that a request which holds the text of one is about that artefact.
"""

from __future__ import annotations

from sqlite_utils import Database

from adreg.domain import JobKind
from adreg.registry.names import ArtefactKind
from adreg.registry.rows import dump, now

# What a train job's error says of it once its adapter was removed.
REMOVED = "Removed"
# Jobs that are about one artefact alone, and whose outcome went with it: asked for again, they
# must not count as done.
_MEASURED: tuple[JobKind, ...] = ("score", "forgetting", "score_checkpoint")


def names_of(db: Database, digest: str, kind: ArtefactKind) -> list[str]:
    """All names of an artefact, the first one first."""
    rows = db.conn.execute(
        "select name from names where digest=? and kind=? order by rowid", [digest, kind]
    )
    return [row["name"] for row in rows]


def drop_name(db: Database, name: str) -> None:
    db.conn.execute("delete from names where name=?", [name])


def later_tasks(db: Database, digest: str) -> list[str]:
    """Digests of the adapters that go on from this one, and of those that go on from them."""
    rows = db.conn.execute(
        "with recursive later(digest) as (select digest from adapters where continued_from=?"
        " union select a.digest from adapters a join later on a.continued_from=later.digest)"
        " select digest from later",
        [digest],
    )
    return [row["digest"] for row in rows]


def merged_into(db: Database, digest: str) -> list[str]:
    """Digests of the checkpoints that the adapter was merged into."""
    rows = db.conn.execute(
        "select digest from checkpoints c where exists (select 1 from"
        " json_each(c.recipe, '$.adapters') a where json_extract(a.value, '$.digest')=?)"
        " order by c.rowid",
        [digest],
    )
    return [row["digest"] for row in rows]


def live_users(db: Database, digest: str) -> list[int]:
    """Ids of queued and running jobs that were asked about the artefact."""
    return _job_ids(db, "state in ('queued', 'running') and instr(request, ?)", digest)


def live_on_line(db: Database, base_digest: str, line: str) -> list[int]:
    """Ids of queued and running jobs that will go on with a line."""
    lock = f"line {base_digest} {line}"
    return _job_ids(db, "state in ('queued', 'running') and lock=?", lock)


def train_jobs(db: Database, digest: str) -> list[int]:
    """Ids of the train jobs that ended with the adapter."""
    return _job_ids(db, "kind='train' and json_extract(result, '$.digest')=?", digest)


def subject_users(db: Database, digest: str) -> list[int]:
    """Ids of the train jobs that have a subject's photos, those of removed adapters left out."""
    known = "kind='train' and instr(request, ?) and coalesce(json_extract(error, '$.type'), '')<>?"
    return _job_ids(db, known, digest, REMOVED)


def _job_ids(db: Database, known: str, *values: str) -> list[int]:
    """Ids of the jobs of which `known`, a condition in SQL, holds."""
    rows = db.conn.execute(f"select id from jobs where {known} order by id", values)
    return [row["id"] for row in rows]


def drop_adapter(db: Database, digest: str) -> None:
    """Its row with names, scores, previews, publications and measurements.

    The job that trained it is cancelled and no more done: the same command trains it again, and
    a watcher that sees the folder leaves it alone, as all that a user has stopped.
    """
    told = {
        "type": REMOVED,
        "message": "its adapter was removed",
        "remedy": "train it again with the same adreg train",
        "retryable": False,
    }
    db.conn.execute(
        "update jobs set state='cancelled', error=?, result=null, updated=?"
        " where kind='train' and json_extract(result, '$.digest')=?",
        [dump(told), now(), digest],
    )
    _drop(db, "adapter", digest)


def drop_checkpoint(db: Database, digest: str) -> None:
    """Likewise; its merge job stays done, and the recipe is merged again where it is asked for."""
    _drop(db, "checkpoint", digest)


def _drop(db: Database, kind: ArtefactKind, digest: str) -> None:
    marks = ", ".join("?" * len(_MEASURED))
    db.conn.execute(
        f"delete from jobs where kind in ({marks})"
        " and (json_extract(request, '$.adapter')=? or json_extract(request, '$.checkpoint')=?)",
        [*_MEASURED, digest, digest],
    )
    for table in ("previews", "scores", "publications"):
        db.conn.execute(f"delete from {table} where artefact=?", [digest])
    db.conn.execute("delete from names where digest=? and kind=?", [digest, kind])
    db.conn.execute(f"delete from {kind}s where digest=?", [digest])


def drop_subject(db: Database, digest: str) -> None:
    db.conn.execute("delete from subjects where digest=?", [digest])


def drawn_into(db: Database, digest: str) -> list[str]:
    """Where ended jobs have put pictures that they drew with the artefact, as request or result
    names it."""
    rows = db.conn.execute(
        "select coalesce(json_extract(request, '$.out'), json_extract(result, '$.folder')) as place"
        " from jobs where kind in ('generate', 'sample') and instr(request, ?)"
        " and state not in ('queued', 'running')",
        [digest],
    )
    return [row["place"] for row in rows if row["place"]]
