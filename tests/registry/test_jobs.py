from __future__ import annotations

import subprocess
import sys
import time

import pytest

from adreg.errors import ConflictError, NotFoundError
from adreg.registry import jobs
from adreg.registry.api import Registry

LEASE = 30.0


def test_a_kind_and_key_is_one_job_for_ever(registry: Registry) -> None:
    db = registry.db
    first = jobs.enqueue(db, "train", "k", {"a": 1})
    assert jobs.enqueue(db, "train", "k", {"a": 2}) == first
    assert jobs.enqueue(db, "score", "k", {}).id != first.id


def test_claim_takes_the_oldest_and_nobody_else_gets_it(registry: Registry) -> None:
    db = registry.db
    older, newer = (jobs.enqueue(db, "train", key, {}) for key in "ab")
    claimed = jobs.claim(db, "w1", LEASE)
    assert claimed is not None
    assert (claimed.id, claimed.state, claimed.attempt, claimed.worker) == (
        older.id,
        "running",
        1,
        "w1",
    )
    other = jobs.claim(db, "w2", LEASE)
    assert other is not None
    assert other.id == newer.id
    assert jobs.claim(db, "w3", LEASE) is None


def test_priority_goes_first(registry: Registry) -> None:
    jobs.enqueue(registry.db, "train", "a", {})
    urgent = jobs.enqueue(registry.db, "train", "b", {}, priority=5)
    claimed = jobs.claim(registry.db, "w", LEASE)
    assert claimed is not None
    assert claimed.id == urgent.id


def test_kinds_that_are_left_out_wait(registry: Registry) -> None:
    first, second = (jobs.enqueue(registry.db, kind, "a", {}) for kind in ("train", "publish"))
    assert jobs.claim(registry.db, "w", LEASE, first.id, ["train", "score"]) is None
    taken = [jobs.claim(registry.db, "w", LEASE, left_out=["train"]) for _ in range(2)]
    assert [job and job.id for job in taken] == [second.id, None]
    last = jobs.claim(registry.db, "w", LEASE, left_out=["publish"])
    assert last is not None
    assert last.id == first.id


def test_an_expired_lease_is_taken_over_and_the_stale_worker_is_fenced_out(
    registry: Registry,
) -> None:
    db = registry.db
    jobs.enqueue(db, "train", "a", {})
    stale = jobs.claim(db, "dead", -1.0)
    fresh = jobs.claim(db, "alive", LEASE)
    assert stale is not None
    assert fresh is not None
    assert fresh.attempt == stale.attempt + 1
    assert not jobs.heartbeat(db, stale, LEASE)
    assert not jobs.finish(db, stale, {"from": "stale"})
    assert not jobs.fail(db, stale, {"type": "X", "message": "m"})
    assert jobs.finish(db, fresh, {"from": "fresh"})
    assert jobs.get(db, fresh.id).result == {"from": "fresh"}


def test_a_heartbeat_keeps_the_job(registry: Registry) -> None:
    db = registry.db
    jobs.enqueue(db, "train", "a", {})
    job = jobs.claim(db, "w", 0.05)
    assert job is not None
    assert jobs.heartbeat(db, job, LEASE)
    time.sleep(0.1)
    assert jobs.claim(db, "other", LEASE) is None


def test_one_lock_runs_one_job_at_a_time(registry: Registry) -> None:
    db = registry.db
    for key in "ab":
        jobs.enqueue(db, "train", key, {}, lock="line x")
    free = jobs.enqueue(db, "train", "c", {})
    first = jobs.claim(db, "w", LEASE)
    second = jobs.claim(db, "w", LEASE)
    assert first is not None
    assert second is not None
    assert second.id == free.id
    assert jobs.claim(db, "w", LEASE) is None
    jobs.finish(db, first, {})
    assert jobs.claim(db, "w", LEASE) is not None


def test_failures_are_a_budget_and_attempts_are_not(registry: Registry) -> None:
    db = registry.db
    queued = jobs.enqueue(db, "train", "a", {})
    for _ in range(5):  # five restarts of the machine
        job = jobs.claim(db, "w", LEASE)
        assert job is not None
        assert jobs.release(db, job)
    error = {"type": "ExternalError", "message": "killed"}
    states = []
    for _ in range(3):
        job = jobs.claim(db, "w", LEASE)
        assert job is not None
        jobs.requeue(db, job, error, 0.0)
        states.append(jobs.get(db, queued.id).state)
    assert states == ["queued", "queued", "failed"]
    assert jobs.claim(db, "w", LEASE) is None
    assert jobs.get(db, queued.id).error == error


def test_a_requeued_job_waits_out_its_delay(registry: Registry) -> None:
    db = registry.db
    jobs.enqueue(db, "train", "a", {})
    job = jobs.claim(db, "w", LEASE)
    assert job is not None
    jobs.requeue(db, job, {}, delay=60.0)
    assert jobs.claim(db, "w", LEASE) is None


def test_cancel_takes_a_running_job_away(registry: Registry) -> None:
    db = registry.db
    jobs.enqueue(db, "train", "a", {})
    job = jobs.claim(db, "w", LEASE)
    assert job is not None
    assert jobs.cancel(db, job.id).state == "cancelled"
    assert not jobs.heartbeat(db, job, LEASE)
    assert not jobs.finish(db, job, {})
    with pytest.raises(ConflictError, match="cancelled already"):
        jobs.cancel(db, job.id)


def test_retry_starts_what_ended_badly_with_a_fresh_budget(registry: Registry) -> None:
    db = registry.db
    jobs.enqueue(db, "train", "a", {})
    job = jobs.claim(db, "w", LEASE)
    assert job is not None
    with pytest.raises(ConflictError, match="running"):
        jobs.retry(db, job.id)
    jobs.fail(db, job, {"type": "X", "message": "m"})
    again = jobs.retry(db, job.id)
    assert (again.state, again.failures) == ("queued", 0)


@pytest.mark.parametrize("end", ["failed", "cancelled", "done"])
def test_enqueue_revives_only_the_states_it_is_told(registry: Registry, end: str) -> None:
    db = registry.db
    jobs.enqueue(db, "train", "a", {"old": True})
    job = jobs.claim(db, "w", LEASE)
    assert job is not None
    if end == "failed":
        jobs.fail(db, job, {})
    elif end == "cancelled":
        jobs.cancel(db, job.id)
    else:
        jobs.finish(db, job, {"x": 1})
    others = [state for state in ("failed", "cancelled", "done") if state != end]
    assert jobs.enqueue(db, "train", "a", {}, revive=others).state == end  # type: ignore[arg-type]
    revived = jobs.enqueue(db, "train", "a", {"new": True}, revive=[end])  # type: ignore[list-item]
    assert (revived.state, revived.request, revived.result) == ("queued", {"new": True}, None)


def test_a_name_that_a_live_job_wants_is_found(registry: Registry) -> None:
    jobs.enqueue(registry.db, "train", "a", {"name": "Rex"})
    found = jobs.wants_name(registry.db, "rex")
    assert found is not None
    jobs.cancel(registry.db, found.id)
    assert jobs.wants_name(registry.db, "rex") is None


def test_no_such_job(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="no job 7"):
        jobs.get(registry.db, 7)


def test_processes_claiming_at_once_share_the_jobs_without_overlap(registry: Registry) -> None:
    db = registry.db
    for key in range(60):
        jobs.enqueue(db, "train", str(key), {})
    path = db.conn.execute("pragma database_list").fetchone()["file"]
    code = (
        "import sys; from pathlib import Path\n"
        "from adreg.registry import jobs\n"
        "from adreg.registry.connection import open_database\n"
        "db = open_database(Path(sys.argv[1]))\n"
        "while (job := jobs.claim(db, sys.argv[2], 600)) is not None: print(job.id)\n"
    )
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code, path, f"w{n}"], stdout=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    claimed = [int(line) for racer in racers for line in racer.communicate(timeout=120)[0].split()]
    assert sorted(claimed) == list(range(1, 61))
