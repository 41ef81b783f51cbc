"""The job table: one row a job, leased to one worker at a time, fenced by `attempt`."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from typing import get_args

from sqlite_utils import Database

from adreg.domain import Job, JobKind, JobState, Json
from adreg.errors import ConflictError, NotFoundError
from adreg.registry.connection import immediate
from adreg.registry.rows import dump, now

ENDED_BADLY: tuple[JobState, ...] = ("failed", "cancelled")

_CLAIM = """
update jobs set state='running', attempt=attempt+1, worker=:worker, lease_until=:until,
                error=null, updated=:stamp
 where id=(select id from jobs j
            where (:id is null or id=:id) and failures<max_failures
              and kind not in (select value from json_each(:left_out))
              and (not_before<=:now or updated>:stamp)
              and (state='queued' or (state='running' and lease_until<:now))
              and (lock is null or not exists (
                   select 1 from jobs r where r.lock=j.lock and r.id<>j.id
                      and r.state='running' and r.lease_until>=:now))
            order by priority desc, id limit 1)
returning *
"""


def enqueue(
    db: Database,
    kind: JobKind,
    key: str,
    request: Json,
    *,
    lock: str | None = None,
    priority: int = 0,
    revive: Sequence[JobState] = (),
) -> Job:
    """The one job of this kind and key: a new row, or the row that is there.

    A row in one of the states of `revive` is queued again with a fresh budget.
    """
    with immediate(db):
        db.conn.execute(
            "insert into jobs(kind, key, state, request, lock, priority, created, updated)"
            " values (?, ?, 'queued', ?, ?, ?, ?, ?) on conflict(kind, key) do nothing",
            [kind, key, dump(request), lock, priority, now(), now()],
        )
        db.conn.execute(
            "update jobs set state='queued', failures=0, not_before=0, error=null, result=null,"
            f" request=?, updated=? where kind=? and key=? and state in ({_marks(revive)})",
            [dump(request), now(), kind, key, *revive],
        )
        row = db.conn.execute("select * from jobs where kind=? and key=?", [kind, key]).fetchone()
    return _job(row)


def claim(
    db: Database,
    worker: str,
    lease_seconds: float,
    job_id: int | None = None,
    left_out: Sequence[str] = (),
) -> Job | None:
    """Leases the next job that may run (or the one named) to `worker`; None where there is none.
    Kinds that are `left_out` wait.

    A job that was put off by a clock that has been set back since (it was written in the future)
    is not waited for.
    """
    clock = time.time()
    with immediate(db):
        row = db.conn.execute(
            _CLAIM,
            {
                "worker": worker,
                "until": clock + lease_seconds,
                "now": clock,
                "id": job_id,
                "left_out": dump(left_out),
                "stamp": now(),
            },
        ).fetchone()
    return _job(row) if row else None


def heartbeat(db: Database, job: Job, lease_seconds: float) -> bool:
    """Extends the lease; False where the job was cancelled or handed to another worker."""
    return _fenced(db, job, "lease_until=?", [time.time() + lease_seconds])


def finish(db: Database, job: Job, result: Json) -> bool:
    """Marks the job done, in the caller's transaction; False for a stale worker."""
    return _fenced(db, job, "state='done', result=?", [dump(result)])


def conclude(db: Database, job: Job, result: Json) -> None:
    """`finish` for a transaction that writes what was made: a stale worker undoes all of it.

    Raises ConflictError for a stale worker.
    """
    if not finish(db, job, result):
        raise ConflictError(f"job {job.id} was taken over by another worker")


def fail(db: Database, job: Job, error: Json) -> bool:
    """Parks the job with its error; only a retry starts it again."""
    return _fenced(db, job, "state='failed', failures=failures+1, error=?", [dump(error)])


def requeue(db: Database, job: Job, error: Json, delay: float) -> bool:
    """A failure that may pass: queued again after `delay` seconds, or failed, budget spent."""
    return _fenced(
        db,
        job,
        "state=case when failures+1<max_failures then 'queued' else 'failed' end,"
        " failures=failures+1, not_before=?, error=?",
        [time.time() + delay, dump(error)],
    )


def put_off(db: Database, job: Job, error: Json, delay: float) -> bool:
    """Queued again after `delay` seconds; not the job's own failure, so not of its budget."""
    return _fenced(
        db,
        job,
        "state='queued', lease_until=0, not_before=?, error=?",
        [time.time() + delay, dump(error)],
    )


def release(db: Database, job: Job) -> bool:
    """Gives a job back untouched: its worker stops, the job has not failed."""
    return _fenced(db, job, "state='queued', lease_until=0", [])


def cancel(db: Database, job_id: int) -> Job:
    """Cancels a queued or running job; its worker sees that at the next heartbeat.

    Raises NotFoundError, ConflictError where the job has ended already.
    """
    with immediate(db):
        job = get(db, job_id)
        if job.state not in ("queued", "running"):
            raise ConflictError(
                f"job {job_id} is {job.state} already", remedy=f"see it: adreg jobs show {job_id}"
            )
        db.conn.execute("update jobs set state='cancelled', updated=? where id=?", [now(), job_id])
        return get(db, job_id)


def retry(db: Database, job_id: int) -> Job:
    """Queues a failed or cancelled job again with a fresh budget; what it had resumes.

    Raises NotFoundError, ConflictError where the job is live or done.
    """
    with immediate(db):
        job = get(db, job_id)
        if job.state not in ("failed", "cancelled"):
            raise ConflictError(
                f"job {job_id} is {job.state}: only a failed or cancelled one can be retried",
                remedy=f"see it: adreg jobs show {job_id}",
            )
        db.conn.execute(
            "update jobs set state='queued', failures=0, not_before=0, updated=? where id=?",
            [now(), job_id],
        )
        return get(db, job_id)


def expire_lease(db: Database, job: Job) -> None:
    """Ends the lease of a worker that is known to be dead, so that nobody waits it out."""
    with immediate(db):
        db.conn.execute(
            "update jobs set lease_until=0 where id=? and attempt=? and state='running'",
            [job.id, job.attempt],
        )


def get(db: Database, job_id: int) -> Job:
    """Raises NotFoundError."""
    row = db.conn.execute("select * from jobs where id=?", [job_id]).fetchone()
    if row is None:
        raise NotFoundError(f"no job {job_id}", remedy="see what there is: adreg jobs list")
    return _job(row)


def find(db: Database, kind: JobKind, key: str) -> Job | None:
    """The one job of this kind and key, where there is one."""
    row = db.conn.execute("select * from jobs where kind=? and key=?", [kind, key]).fetchone()
    return _job(row) if row else None


def trained(db: Database, digest: str) -> Job | None:
    """The latest train job that ended with the adapter of that digest."""
    row = db.conn.execute(
        "select * from jobs where kind='train' and json_extract(result, '$.digest')=?"
        " order by id desc limit 1",
        [digest],
    ).fetchone()
    return _job(row) if row else None


def done(db: Database, kind: JobKind) -> list[Job]:
    """Jobs of a kind that have ended well, the oldest first."""
    rows = db.conn.execute("select * from jobs where kind=? and state='done' order by id", [kind])
    return [_job(row) for row in rows]


def wants_name(db: Database, name: str) -> Job | None:
    """The live job whose adapter or checkpoint will be called `name`."""
    row = db.conn.execute(
        "select * from jobs where state in ('queued', 'running')"
        " and kind in ('train', 'merge') and json_extract(request, '$.name')=? collate nocase",
        [name],
    ).fetchone()
    return _job(row) if row else None


def wants_trigger(db: Database, trigger: str, base_digest: str) -> Job | None:
    """The live job that will teach a concept of that trigger to an adapter of that base."""
    row = db.conn.execute(
        "select * from jobs where state in ('queued', 'running') and kind='train'"
        " and json_extract(request, '$.base_digest')=:base and"
        " (json_extract(request, '$.spec.trigger')=:trigger collate nocase or exists"
        " (select 1 from json_each(request, '$.spec.also') c"
        " where json_extract(c.value, '$.trigger')=:trigger collate nocase))",
        {"base": base_digest, "trigger": trigger},
    ).fetchone()
    return _job(row) if row else None


def listing(db: Database, state: str | None = None, limit: int = -1) -> list[Job]:
    """Jobs, the newest first."""
    rows = db.conn.execute(
        "select * from jobs where (:state is null or state=:state) order by id desc limit :limit",
        {"state": state, "limit": limit},
    )
    return [_job(row) for row in rows]


def queue(db: Database, limit: int) -> list[Job]:
    """Queued jobs, the next first."""
    rows = db.conn.execute(
        "select * from jobs where state='queued' order by priority desc, id limit ?", [limit]
    )
    return [_job(row) for row in rows]


def latest(db: Database, state: JobState, limit: int) -> list[Job]:
    """Jobs in a state, the last that changed first."""
    rows = db.conn.execute(
        "select * from jobs where state=? order by updated desc, id desc limit ?", [state, limit]
    )
    return [_job(row) for row in rows]


def counts(db: Database) -> dict[str, int]:
    """How many jobs are in each state; states of none are 0."""
    found = db.conn.execute("select state, count(*) from jobs group by state")
    return {**dict.fromkeys(get_args(JobState), 0), **{row[0]: row[1] for row in found}}


def _fenced(db: Database, job: Job, assignments: str, values: list[object]) -> bool:
    # `attempt` fences: a worker whose lease ran out and was taken over changes nothing.
    with immediate(db):
        row = db.conn.execute(
            f"update jobs set {assignments}, updated=?"
            " where id=? and attempt=? and state='running' returning id",
            [*values, now(), job.id, job.attempt],
        ).fetchone()
    return row is not None


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        kind=row["kind"],
        key=row["key"],
        state=row["state"],
        attempt=row["attempt"],
        failures=row["failures"],
        request=json.loads(row["request"]),
        error=json.loads(row["error"]) if row["error"] else None,
        result=json.loads(row["result"]) if row["result"] else None,
        worker=row["worker"],
        lease_until=row["lease_until"],
        created=row["created"],
        updated=row["updated"],
    )
