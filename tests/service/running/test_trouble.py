"""A database that another process keeps, and clocks that are set while jobs run."""

from __future__ import annotations

import datetime
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from adreg.domain import Job
from adreg.registry import connection, jobs
from adreg.service.running.child import Child, OwnChild
from adreg.service.running.supervisor import Crew, run_now
from adreg.service.running.workers import known_dead, me
from tests.service.daemon.test_control import queue
from tests.service.processes import Home, until

# As a backup does it that wants nobody to write meanwhile; one line in, and it lets go.
_KEEPER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("begin exclusive")
print("kept", flush=True)
sys.stdin.readline()
db.execute("rollback")
"""

pytestmark = pytest.mark.timeout(1200)


@contextmanager
def _kept(database: Path) -> Iterator[subprocess.Popen[str]]:
    keeper = subprocess.Popen(
        [sys.executable, "-c", _KEEPER, database],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "kept\n"
        yield keeper
    finally:
        keeper.communicate("")


def test_a_database_that_is_kept_past_the_end_of_a_job_loses_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_MILLISECONDS", 200)
    ws, job = home.open(), queue(home, tmp_path / "rex", 10)
    kept = threading.Event()
    refused: list[bool] = []

    def keep() -> None:
        with _kept(home.settings.database):
            kept.set()
            until((home.settings.staging / "1" / "result.json").is_file, "the child's result")
            until(lambda: len(refused) > 2, "several vain attempts to record it")

    def note(error: Exception) -> bool:
        refused.append((home.settings.staging / "1" / "result.json").is_file())
        return True

    monkeypatch.setattr(connection, "is_locked", note)
    keeper = threading.Thread(target=keep)

    def tick(child: Child) -> None:
        if not kept.is_set() and home.saved_steps() >= 1:
            keeper.start()
            kept.wait()

    result = run_now(ws, job, tick)
    keeper.join()
    ended = jobs.get(ws.registry.db, job.id)
    assert (ended.state, ended.attempt, ended.failures) == ("done", 1, 0)
    assert (result["steps"], result["resumed_from"]) == (10, None)
    assert [adapter.digest for adapter in home.adapters()] == [result["digest"]]


def test_a_daemon_waits_for_a_database_that_is_kept_and_goes_on(home: Home, tmp_path: Path) -> None:
    root = tmp_path / "subjects"
    root.mkdir()
    queue(home, tmp_path / "rex", 4)
    with _kept(home.settings.database):
        assert home.run("daemon", "start", root) == 0
        asked = home.start("status", "--json")  # readers are in nobody's way
        assert asked.wait() == 0
        assert home.jobs()[0].state == "queued"
    until(lambda: home.jobs()[0].state == "done", "the job to be done")
    assert home.run("daemon", "stop") == 0


def test_a_disk_that_is_full_for_a_while_ends_no_daemon_and_loses_no_job(
    home: Home, small_disk: Path, tmp_path: Path
) -> None:
    small = Home(small_disk / "home", home.base, home.scorer)
    small.environ["ADREG_LEASE_SECONDS"] = "2"
    root = tmp_path / "subjects"
    root.mkdir()
    queue(small, tmp_path / "rex", 200)
    try:
        assert small.run("daemon", "start", root) == 0
        running = small.daemon()
        small.until_saved(2)
        _fill(small_disk / "filler")
        (child,) = small.children()
        until(lambda: not child.is_running(), "the child's end for want of space")
        _fill(small_disk / "filler-2")
        until(lambda: not _leased(small), "the job to be let go")
        (small_disk / "filler").unlink()
        (small_disk / "filler-2").unlink()
        until(lambda: small.jobs()[0].state in ("done", "failed"), "the end of the job")
        assert small.daemon() == running
        (job,) = small.jobs()
        assert (job.state, job.failures) == ("done", 0), job.error
        assert [adapter.digest for adapter in small.adapters()] == [job.result["digest"]]  # type: ignore[index]
        assert small.run("daemon", "stop") == 0
    finally:
        small.end_all()


def test_a_full_disk_is_not_held_against_a_job(
    home: Home, small_disk: Path, tmp_path: Path
) -> None:
    small = Home(small_disk / "home", home.base, home.scorer)
    queue(small, tmp_path / "rex", 40)
    filler = small_disk / "filler"

    def tick(child: Child) -> None:
        assert isinstance(child, OwnChild)
        if not filler.exists() and small.saved_steps() >= 2:
            filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 500_000))
            child.process.kill()

    with Crew(small.open(), devices=("cpu",)) as crew:
        ended = crew.run_next(tick)
        assert ended is not None
        assert (ended.state, ended.failures) == ("queued", 0)
        assert crew.run_next(tick) is None  # nothing is begun where nothing can be kept
        filler.write_bytes(b"")
        done: list[Job | None] = []
        until(lambda: bool(done.append(crew.run_next(tick)) or done[-1]), "the job to go on")
    assert done[-1] is not None
    assert (done[-1].state, done[-1].attempt) == ("done", 2)


def _leased(home: Home) -> bool:
    (job,) = home.jobs()
    return job.state == "running" and job.lease_until > time.time()


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as taken, suppress(OSError):
        while True:
            taken.write(bytes(4096))


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_while_a_job_runs_starts_it_no_second_time(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    ws, job = home.open(), queue(home, tmp_path / "rex", 10)
    ahead = [0.0]
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + ahead[0])

    def tick(child: Child) -> None:
        if home.saved_steps() >= 2:
            ahead[0] = 3600.0 * hours

    with Crew(ws, devices=("cpu:0", "cpu:1")) as crew:  # the second device looks for work
        ended = crew.run_next(tick)
    assert ended is not None
    assert (ended.id, ended.state, ended.attempt) == (job.id, "done", 1)


def test_a_clock_that_is_set_makes_no_live_worker_a_dead_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, start = me(), psutil.boot_time()
    # Linux tells the machine's start in wall time: it moves with the clock.
    for moved in (3600.0, -3600.0):
        monkeypatch.setattr("psutil._psplatform.boot_time", lambda m=moved: start + m)
        assert psutil.boot_time() == start + moved
        assert not known_dead(worker)


def test_what_was_put_off_by_a_clock_that_was_wrong_is_not_waited_for(
    home: Home, tmp_path: Path
) -> None:
    ws, job = home.open(), queue(home, tmp_path / "rex", 4)
    year = datetime.datetime.now(datetime.UTC).year + 1
    ws.registry.db.conn.execute(
        "update jobs set not_before=?, updated=?",
        [time.time() + 366 * 86400, f"{year}-12-31T00:00:00+00:00"],
    )
    ws.registry.db.conn.commit()
    claimed = jobs.claim(ws.registry.db, me(), 30.0)
    assert claimed is not None
    assert claimed.id == job.id
