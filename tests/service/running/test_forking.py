"""Children forked from a server do what children started anew do."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import psutil
import pytest

from adreg.registry import jobs
from adreg.service.running.child import Child, OwnChild, staging_folder
from adreg.service.running.forking import Forked
from adreg.service.running.supervisor import run_next, run_now
from adreg.service.running.workers import end_orphans, forked_child
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.workspace import Workspace
from tests.service.processes import Home, until
from tests.tiny import photos

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux only"),
]


@pytest.fixture
def rex(tmp_path: Path) -> Path:
    return photos(tmp_path / "rex", 2, 32)


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has run a job already."""
    monkeypatch.setattr("adreg.service.running.forking._started", 1)


def _train(ws: Workspace, folder: Path, name: str, steps: int = 4) -> int:
    wish = TrainingWish(
        folder=folder,
        class_word="dog",
        name=name,
        method="lora",
        base=ws.settings.base,
        settings={"steps": steps, "checkpoint_every": 1},
    )
    return request_training(ws, wish).id


def test_the_first_job_of_a_process_is_started_anew_and_the_next_is_forked(
    home: Home, rex: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adreg.service.running.forking._started", 0)
    kinds = []

    def look(child: Child) -> None:
        assert isinstance(child, OwnChild)
        kinds.append(isinstance(child.process, Forked))

    digests = []
    for path in (home.path, home.path.with_name("other")):
        ws = Workspace.open(Home(path, home.base, home.scorer).settings)
        job = jobs.get(ws.registry.db, _train(ws, rex, "rex"))
        digests.append(run_now(ws, job, look)["digest"])
    assert (kinds[0], kinds[-1]) == (False, True)
    assert digests[0] == digests[1]


def test_a_forked_child_that_is_killed_is_told_and_its_job_tried_again(
    home: Home, rex: Path, forking: None
) -> None:
    ws = home.open()
    number = _train(ws, rex, "rex")

    def kill(child: Child) -> None:
        assert isinstance(child, OwnChild)
        assert isinstance(child.process, Forked)
        child.process.kill()

    after = run_next(ws, kill, job_id=number)
    assert after is not None
    assert after.error is not None
    assert (after.state, after.failures) == ("queued", 1)
    assert f"killed by signal {int(signal.SIGKILL)}" in after.error["message"]


def test_an_orphan_that_was_forked_is_found_by_the_pid_it_left(
    home: Home, rex: Path, forking: None
) -> None:
    ws = home.open()
    number = _train(ws, rex, "rex", steps=100_000)
    staging = staging_folder(ws.settings, number)
    found: list[psutil.Process] = []

    def end_it(child: Child) -> None:
        alive = forked_child(staging)
        if alive and not found:
            found.append(alive[0][0])
            assert end_orphans(staging, 1) == 0  # it is of this attempt
            assert end_orphans(staging, 2) == 1

    after = run_next(ws, end_it, job_id=number)
    assert after is not None
    assert not found[0].is_running()
    assert (after.state, after.failures) == ("queued", 0)  # asked to end: no failure
    assert forked_child(staging) == []


def test_a_killed_server_is_started_again(home: Home, rex: Path, forking: None) -> None:
    ws = home.open()
    first = _server(ws, rex, "rex")
    first.kill()
    until(lambda: first.status() == psutil.STATUS_ZOMBIE, "the server's end")
    assert _server(ws, rex, "tom").pid != first.pid


def test_a_server_that_is_killed_while_a_child_is_asked_of_it_costs_a_try_not_the_job(
    home: Home, rex: Path, forking: None
) -> None:
    ws = home.open()
    before = _server(ws, rex, "rex")
    before.kill()
    until(lambda: before.status() == psutil.STATUS_ZOMBIE, "the server's end")
    number = _train(ws, rex, "tom")

    def kill_the_next() -> None:
        until(lambda: bool(_servers() - {before}), "the next server")
        (_servers() - {before}).pop().kill()

    killer = threading.Thread(target=kill_the_next)
    killer.start()
    after = run_next(ws, job_id=number)
    killer.join()
    assert after is not None
    assert (after.state, after.failures) == ("queued", 1), after.error
    assert run_now(ws, after)["steps"] == 4


def _servers() -> set[psutil.Process]:
    """Those that this process forks children from, and that are alive."""
    return {p for p in psutil.Process().children() if "forkserver" in " ".join(_command(p))}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()  # empty of one that has ended
    except psutil.NoSuchProcess:
        return []


def _server(ws: Workspace, folder: Path, name: str) -> psutil.Process:
    """Trains once; the process that the child was forked from."""
    found: list[psutil.Process] = []

    def look(child: Child) -> None:
        assert isinstance(child, OwnChild)
        if not found:
            found.append(psutil.Process(psutil.Process(child.process.pid).ppid()))

    run_now(ws, jobs.get(ws.registry.db, _train(ws, folder, name)), look)
    return found[0]
