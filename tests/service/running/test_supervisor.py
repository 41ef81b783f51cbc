from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from adreg.domain import Job
from adreg.errors import ArtifactError, ConflictError, ExternalError
from adreg.registry import adapters, jobs
from adreg.service.rules.records import Root
from adreg.service.running import supervisor
from adreg.service.running.child import Child, OwnChild, log_file, start_child
from adreg.service.running.stopping import stoppable
from adreg.service.running.supervisor import Crew, run_next, run_now
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.watch.watching import watch
from adreg.service.workspace import Workspace
from tests.service.processes import Home, until
from tests.tiny import photos

MANY = ("--steps", "40", "--checkpoint-every", "1")

# A loaded machine takes long, and long is not wrong.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def rex(tmp_path: Path) -> Path:
    return photos(tmp_path / "rex", 2, 32)


def _request(ws: Workspace, folder: Path, steps: int = 4) -> Job:
    wish = TrainingWish(
        folder=folder,
        class_word="dog",
        name=folder.name,
        method="lora",
        base=ws.settings.base,
        settings={"steps": steps, "checkpoint_every": 1},
    )
    return request_training(ws, wish)


def test_a_child_that_always_dies_fails_its_job_after_its_budget_and_names_the_log(
    home: Home, rex: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", "hf_secret")
    ws = home.open()
    job = _request(ws, rex)
    environments = []

    def kill(child: Child) -> None:
        assert isinstance(child, OwnChild)
        if not child.ended():
            process = psutil.Process(child.process.pid)
            # For an instant after it has begun, a process has no environment yet.
            until(lambda: bool(process.environ()), "the child's environment")
            environments.append(process.environ())
            child.process.kill()
            child.process.wait()

    with pytest.raises(ExternalError, match=r"job 1 was killed by signal 9") as caught:
        run_now(ws, job, kill)
    assert str(log_file(ws.settings, job.id)) in str(caught.value.remedy)
    ended = jobs.get(ws.registry.db, job.id)
    assert (ended.state, ended.attempt, ended.failures) == ("failed", 3, 3)
    # What trains has no use for the token of the Hub.
    assert len(environments) == 3
    for environment in environments:
        assert environment["HF_HUB_OFFLINE"] == "1"
        assert "hf_secret" not in environment.values()
    assert run_next(ws) is None


def test_an_image_that_is_gone_from_the_store_fails_at_once_and_is_named(
    home: Home, rex: Path
) -> None:
    ws = home.open()
    job = _request(ws, rex)
    stored = ws.registry.store.subject_path(job.request["subject"]) / "01.png"
    stored.unlink()
    with pytest.raises(ArtifactError, match=r"01\.png"):
        run_now(ws, job)
    assert jobs.get(ws.registry.db, job.id).failures == 1


def test_a_disk_that_takes_no_more_is_told_and_nothing_half_written_is_seen(
    home: Home, rex: Path
) -> None:
    ws = home.open()
    _request(ws, rex)

    def limit(child: Child) -> None:
        assert isinstance(child, OwnChild)
        if not child.ended():
            psutil.Process(child.process.pid).rlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    after = run_next(ws, limit)
    assert after is not None
    assert after.error is not None
    assert (after.state, after.error["type"]) == ("queued", "ExternalError"), after.error
    assert "cannot write" in after.error["message"]
    assert after.error["remedy"] == "free some disk space"
    assert adapters.listing(ws.registry.db, ws.registry.store) == []
    assert not (ws.registry.store.root / "adapters").exists()
    assert not list((home.settings.staging / "1").rglob("*.tmp"))
    # There is space again: the same job goes on and ends well.
    assert run_now(ws, after)["steps"] == 4


def test_a_full_disk_under_the_registry_is_told_and_the_registry_goes_on(
    home: Home, rex: Path, small_disk: Path
) -> None:
    small = Home(small_disk / "home", home.base, home.scorer)
    Workspace.open(small.settings).registry.db.conn.execute("pragma wal_checkpoint(truncate)")
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(bytes(free - 4096))
    environ = {**os.environ, "ADREG_HOME": str(small.path), "ADREG_BASE": str(home.base)}
    train = subprocess.run(
        [
            sys.executable,
            "-m",
            "adreg.cli",
            "train",
            str(rex),
            "--class",
            "dog",
            "--method",
            "lora",
        ],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert train.returncode == 7
    assert "Traceback" not in train.stderr
    filler.unlink()
    ws = small.open()
    assert ws.registry.db.conn.execute("pragma integrity_check").fetchone()[0] == "ok"
    assert jobs.listing(ws.registry.db) == []
    assert _request(ws, rex).state == "queued"


def test_a_job_is_cancelled_from_another_process_and_goes_on_when_retried(
    home: Home, rex: Path, tmp_path: Path
) -> None:
    train = home.start("train", rex, "--class", "dog", *MANY)
    home.until_saved(2)
    assert home.run("jobs", "cancel", "1") == 0
    assert train.wait() == 4
    assert "was cancelled" in home.told(train)
    assert not home.children()
    saved = home.saved_steps()

    assert home.run("jobs", "retry", "1") == 0
    (tmp_path / "empty").mkdir()
    assert home.run("watch", tmp_path / "empty", "--once") == 0
    (job,) = home.jobs()
    assert job.result is not None
    assert (job.state, job.result["resumed_from"]) == ("done", saved)


def test_a_child_that_somebody_else_asks_to_stop_has_not_failed(home: Home, rex: Path) -> None:
    ws = home.open()
    asked: list[int] = []

    def ask(child: Child) -> None:
        assert isinstance(child, OwnChild)
        # The first as soon as it is there, the second in the middle of its work.
        if not asked or (asked == [1] and child.job.attempt == 2 and home.saved_steps() >= 2):
            asked.append(child.job.attempt)
            child.process.terminate()

    assert run_now(ws, _request(ws, rex, 40), ask)["resumed_from"] >= 2
    (job,) = home.jobs()
    assert (job.state, job.attempt, job.failures) == ("done", 3, 0)


def test_one_device_does_one_job_at_a_time(home: Home, rex: Path) -> None:
    few = ("--class", "dog", "--steps", "4")
    home.settings.locks.mkdir(parents=True)
    with FileLock(home.settings.locks / "device-cpu.lock"):
        refused = home.start("train", rex, *few, "--no-wait")
        assert refused.wait() == 4
        assert "device cpu is busy" in home.told(refused)

        waiting = home.start("train", rex, *few)
        until(lambda: "waiting for the device" in home.told(waiting), "a child that waits")
        twice = home.start("train", rex, *few)
        assert twice.wait() == 4
        assert "job 1 is running already" in home.told(twice)
        assert home.run("jobs", "cancel", "1") == 0
        assert waiting.wait() == 4
        assert not home.children()
    assert home.run("train", rex, *few) == 0
    assert [job.attempt for job in home.jobs()] == [3]


def test_a_worker_that_slept_past_its_lease_changes_nothing(
    home: Home, rex: Path, tmp_path: Path
) -> None:
    home.environ["ADREG_LEASE_SECONDS"] = "2"
    stale = home.start("train", rex, "--class", "dog", *MANY)
    home.until_saved(2)
    _stop_between_writes(home, stale)
    (orphan,) = home.children()
    (tmp_path / "empty").mkdir()
    until(lambda: home.jobs()[0].lease_until < time.time(), "the end of the lease")
    assert home.run("watch", tmp_path / "empty", "--once") == 0
    (job,) = home.jobs()
    assert (job.state, job.attempt, job.failures) == ("done", 2, 0)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    stale.send_signal(signal.SIGCONT)
    assert stale.wait() == 0  # it finds its job done
    assert home.jobs() == [job]
    assert len(home.adapters()) == 1


def _stop_between_writes(home: Home, process: subprocess.Popen[str]) -> None:
    """A process that is stopped while it writes keeps the database from all others."""
    while True:
        process.send_signal(signal.SIGSTOP)
        with closing(sqlite3.connect(home.settings.database, timeout=1.0)) as db:
            try:
                db.execute("begin immediate")
                return
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)


def test_a_child_that_is_longer_in_starting_than_a_lease_costs_no_job_its_worker(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first is, on a busy machine: the server it is forked from loads torch."""
    ws = home.open()
    ws = replace(ws, settings=replace(ws.settings, lease_seconds=2.0))
    known = [_request(ws, photos(tmp_path / name, 1, 32, n)).id for n, name in enumerate("abc")]

    def slowly(*args: Any, **options: Any) -> OwnChild:
        child = start_child(*args, **options)
        time.sleep(2.5)
        return child

    monkeypatch.setattr(supervisor, "start_child", slowly)
    with Crew(ws, devices=("cpu:0", "cpu:1", "cpu:2")) as crew:
        claimed = [crew.start() for _ in known]
        assert [job and (job.id, job.attempt) for job in claimed] == [(one, 1) for one in known]


def test_a_job_that_a_watcher_claims_first_is_followed(home: Home, rex: Path) -> None:
    ws = home.open()
    queued = _request(ws, rex)
    (rex.parent / "empty").mkdir()
    watcher = home.start("watch", rex.parent / "empty", "--once")
    until(lambda: home.jobs()[0].state == "running", "the watcher to claim the job")
    stages = set()
    result = run_now(
        ws, queued, lambda child: stages.update(line["stage"] for line in child.progress())
    )
    assert result["steps"] == 4
    assert "train" in stages
    assert watcher.wait() == 0
    assert home.jobs()[0].attempt == 1


def test_an_error_of_our_own_parks_the_job_instead_of_stopping_the_watcher_again_and_again(
    home: Home, rex: Path, tmp_path: Path
) -> None:
    ws = home.open()
    broken = jobs.enqueue(ws.registry.db, "train", "made by a newer adreg", {"what": "is this"})
    (tmp_path / "empty").mkdir()
    root = Root(tmp_path / "empty", str(home.base), "lora")
    said: list[str] = []
    errors = watch(ws, root, once=True, say=said.append)
    assert len(errors) == 1
    ended = jobs.get(ws.registry.db, broken.id)
    assert ended.error is not None
    assert (ended.state, ended.error["type"]) == ("failed", "Crash")
    assert "Traceback" in log_file(ws.settings, broken.id).read_text()


def test_a_name_is_taken_once_however_many_ask_for_it(home: Home, tmp_path: Path) -> None:
    folders = [photos(tmp_path / str(n) / "rex", 1, 32, n) for n in range(4)]
    begin = threading.Barrier(len(folders))
    won, lost = [], []

    def ask(folder: Path) -> None:
        ws = home.open()
        begin.wait()
        try:
            won.append(_request(ws, folder))
        except ConflictError as error:
            lost.append(error)

    home.open()
    threads = [threading.Thread(target=ask, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 3)


@pytest.mark.parametrize("asking", [signal.SIGTERM, signal.SIGHUP])
def test_what_asks_a_process_to_end_is_an_interrupt(asking: signal.Signals) -> None:
    # A test run that was started by nohup ignores SIGHUP.
    before = signal.signal(asking, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), stoppable():
            signal.raise_signal(asking)
        assert signal.getsignal(asking) == signal.SIG_DFL
    finally:
        signal.signal(asking, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
