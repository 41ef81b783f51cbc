from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from adreg.service.running.workers import child_arguments, end_orphans, known_dead, me
from tests.service.processes import until

# What a child is called like, but it only sleeps: deaf to SIGTERM where told so.
_SLEEPER = """
import signal, sys, time
if {deaf}: signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


class Sleepers:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, staging: Path, attempt: int, deaf: bool = False) -> subprocess.Popen[str]:
        """A process whose arguments are a child's: a package adreg.jobs that sleeps."""
        package = self.folder / "adreg"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
        (package / "jobs.py").write_text(_SLEEPER.format(deaf=deaf))
        process = subprocess.Popen(
            [sys.executable, *child_arguments(staging, attempt)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process


@pytest.fixture
def sleepers(tmp_path: Path) -> Iterator[Sleepers]:
    made = Sleepers(tmp_path)
    yield made
    for process in made.processes:
        process.kill()
        process.communicate()


def test_orphans_of_earlier_attempts_are_ended_and_no_other_process(
    tmp_path: Path, sleepers: Sleepers
) -> None:
    ours, other = tmp_path / "1", tmp_path / "2"
    orphan = sleepers.start(ours, 1)
    current = sleepers.start(ours, 2)
    stranger = sleepers.start(other, 1)
    assert end_orphans(ours, 2) == 1
    assert orphan.poll() is not None
    assert end_orphans(ours, 2) == 0
    assert current.poll() is None
    assert stranger.poll() is None


def test_an_orphan_that_does_not_listen_is_killed(
    tmp_path: Path, sleepers: Sleepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adreg.service.running.workers._SECONDS_TO_END", 0.2)
    orphan = sleepers.start(tmp_path / "1", 1, deaf=True)
    assert end_orphans(tmp_path / "1", 2) == 1
    assert orphan.poll() is not None


def test_an_orphan_is_found_through_a_linked_folder(tmp_path: Path, sleepers: Sleepers) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    sleepers.start(tmp_path / "link" / "1", 1)
    assert end_orphans(tmp_path / "real" / "1", 2) == 1


def test_who_is_dead_is_known_only_of_this_machine() -> None:
    host, pid, started = me().rsplit(" ", 2)
    assert host == socket.gethostname()
    assert psutil.Process(int(pid)) == psutil.Process()
    assert not known_dead(me())
    assert known_dead(f"{host} {pid} {float(started) - 60:.2f}")  # the pid is another's by now
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert known_dead(f"{host} {gone.pid} {started}")
    assert not known_dead(f"elsewhere {gone.pid} {started}")


def test_a_dead_process_that_nobody_has_waited_for_is_dead() -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(zombie.pid).create_time()
    until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE, "its end")
    assert known_dead(f"{socket.gethostname()} {zombie.pid} {started:.2f}")
    zombie.wait()
