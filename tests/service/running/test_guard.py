"""Children that hang or take all memory are ended, told of, and their jobs tried again."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from adreg.domain import Job
from adreg.errors import ExternalError
from adreg.registry import jobs
from adreg.service.running import guard
from adreg.service.running.child import Child, OwnChild, log_file
from adreg.service.running.supervisor import run_next, run_now
from adreg.service.workspace import Workspace
from tests.service.daemon.test_control import queue
from tests.service.processes import Home

pytestmark = pytest.mark.timeout(1200)


def test_a_child_that_hangs_is_killed_and_its_job_goes_on(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws, job = home.open(), queue(home, tmp_path / "rex", 40)
    speed = [1.0]
    monkeypatch.setattr(guard, "monotonic", lambda: time.monotonic() * speed[0])

    def stop(child: Child) -> None:
        assert isinstance(child, OwnChild)
        if home.saved_steps() >= 2 and speed == [1.0]:
            psutil.Process(child.process.pid).send_signal(signal.SIGSTOP)
            speed[0] = 3600.0  # for the guard, a second is an hour from now on

    after = run_next(ws, stop, job_id=job.id)
    assert after is not None
    assert after.error is not None
    assert (after.state, after.failures) == ("queued", 1)
    assert "made no progress for 3600 s" in after.error["message"]
    speed[0] = 1.0
    assert run_now(ws, after)["resumed_from"] >= 2


def test_a_child_that_takes_too_much_memory_is_ended_and_parked_with_its_log(
    home: Home, tmp_path: Path
) -> None:
    settings = dataclasses.replace(home.settings, memory_share=1e-6)
    ws, job = Workspace.open(settings), queue(home, tmp_path / "rex", 4)
    with pytest.raises(ExternalError, match=r"held .* of memory") as caught:
        run_now(ws, job)
    assert "--batch" in str(caught.value.remedy)
    assert str(log_file(settings, job.id)) in str(caught.value.remedy)
    ended = jobs.get(ws.registry.db, job.id)
    assert (ended.state, ended.attempt, ended.failures) == ("failed", 3, 3)


@pytest.mark.parametrize(("line", "hangs"), [("waiting for the device", False), ("train", True)])
def test_who_waits_for_the_device_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, hangs: bool
) -> None:
    clock = [0.0]
    monkeypatch.setattr(guard, "monotonic", lambda: clock[0])
    pulse = guard.Pulse(tmp_path)
    (tmp_path / "progress.jsonl").write_text(f'{{"stage": "{line}", "step": 0, "total": 1}}\n')
    assert pulse.still_for() == 0.0
    clock[0] = 50.0
    assert pulse.still_for() == (50.0 if hangs else 0.0)
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"stage": "save", "step": 0, "total": 1}\n')
    assert pulse.still_for() == 0.0


def test_the_image_that_a_child_is_stuck_at_is_named(home: Home, tmp_path: Path) -> None:
    image = tmp_path / "07.png"
    image.write_bytes(b"x")
    code = "import sys, time; f = open(sys.argv[1]); print(flush=True); time.sleep(600)"
    stuck = subprocess.Popen([sys.executable, "-c", code, image], stdout=subprocess.PIPE)
    try:
        assert stuck.stdout is not None
        stuck.stdout.readline()
        job = Job(3, "train", "k", "running", 1, 0, {"images": ["06.png", "07.png"]})
        error = guard.hanging_error(OwnChild(job, tmp_path, stuck), home.settings)
    finally:
        stuck.kill()
        stuck.communicate()
    assert error["message"].endswith("was ended, while it read 07.png")


def test_memory_is_that_of_the_machine_or_of_its_container() -> None:
    assert 0 < guard.memory_here() <= psutil.virtual_memory().total
