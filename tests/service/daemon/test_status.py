from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adreg.registry import jobs
from adreg.service.running.workers import me
from tests.json_keys import documented
from tests.service.daemon.test_control import queue
from tests.service.processes import DEADLINE, Home

pytestmark = pytest.mark.timeout(1200)

BROKEN = "[b] broken \x1b]0;owned"  # of a stranger's file


def _stand(home: Home, tmp_path: Path) -> None:
    """A job that runs, one whose worker was killed, one that failed, one that waits, one done."""
    db = home.open().registry.db
    for name in ("runs", "lost", "failed", "ended", "waits"):
        queue(home, tmp_path / name, 4)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    host = me().split()[0]
    gone.wait()
    claimed = [
        jobs.claim(db, w, 600.0) for w in (me(), f"{host} {gone.pid} 1.00", "w 1 1", "w 1 1")
    ]
    staging = home.settings.staging / "1"
    staging.mkdir(parents=True)
    told = {"stage": "train", "step": 30, "total": 50, "values": {"rate": 4.0}}
    (staging / "progress.jsonl").write_text(json.dumps(told) + '\n{"stage": "hal')
    (staging / "job.json").write_text('{"device": "cuda:1"}')
    error = {"type": "ArtifactError", "message": BROKEN, "remedy": "save it again"}
    assert claimed[2] is not None
    assert claimed[3] is not None
    jobs.fail(db, claimed[2], error)
    jobs.finish(db, claimed[3], {"digest": "d"})


def test_status_tells_the_truth_of_every_job(home: Home, tmp_path: Path) -> None:
    _stand(home, tmp_path)
    asked = home.start("status", "--json")
    assert asked.wait() == 0, home.told(asked)
    view = json.loads(home.told(asked, "out"))
    assert set(view) == documented("status")
    assert view["daemon"] is None
    assert view["jobs"] == {"queued": 1, "running": 2, "done": 1, "failed": 1, "cancelled": 0}
    runs, lost = view["working_on"]
    assert (runs["name"], runs["lost"], lost["name"], lost["lost"]) == ("runs", False, "lost", True)
    assert (runs["device"], runs["stage"], runs["step"], runs["seconds_left"]) == (
        "cuda:1",
        "train",
        30,
        5.0,
    )
    assert [job["name"] for job in view["queue"]] == ["waits"]
    assert [job["name"] for job in view["finished"]] == ["ended"]
    (failed,) = view["failures"]
    assert (failed["message"], failed["remedy"]) == (BROKEN, "save it again")
    assert view["home_bytes"] > 0

    shown = home.start("status")
    assert shown.wait() == 0
    text = home.told(shown, "out")
    for said in (
        "not running",
        "30 of 50",
        "5 s",
        "worker was killed",
        "queue (1)",
        "save it again",
    ):
        assert said in text
    listed = home.start("jobs", "list")
    assert listed.wait() == 0
    assert home.told(listed, "out").count("running (worker killed)") == 1


def test_the_live_view_goes_on_until_it_is_interrupted(home: Home, tmp_path: Path) -> None:
    _stand(home, tmp_path)
    with _live_view(home, 120) as (live, terminal):
        seen = b""
        while seen.count(b"30 of 50") < 2:
            seen += os.read(terminal, 4096)
        assert b"[b] broken" in seen
        assert b"\x1b]0;" not in seen
        live.send_signal(signal.SIGINT)
        assert live.wait(DEADLINE) == 0


def test_the_live_view_of_many_jobs_fits_a_small_terminal(home: Home) -> None:
    db = home.open().registry.db
    long = "said at such length that it takes three lines where it is not shortened " * 3
    told = {"type": "ArtifactError", "message": long, "remedy": "do this, " * 30}
    for number in range(24):
        jobs.enqueue(db, "train", str(number), {"name": f"a-subject-of-a-long-name-{number}"})
    for number in range(18):
        job = jobs.claim(db, "w 1 1", 600.0)
        assert job is not None
        if number < 16:
            jobs.fail(db, job, told) if number % 2 else jobs.finish(db, job, {"digest": "d"})
    with _live_view(home, 80) as (_, terminal):
        seen = b""
        while b" are free" not in seen:  # the last line of all
            seen += os.read(terminal, 4096)
    first = seen.decode().split(" are free")[0].replace("\r", "").splitlines()
    assert len(first) <= 24
    assert any("queue (6)" in line for line in first)
    assert any("last finished (of 8)" in line for line in first)
    assert all(f"name-{number} " in seen.decode() for number in (16, 17, 18))


@contextmanager
def _live_view(home: Home, columns: int) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`adreg status --watch` in a terminal of 24 lines, and what to read from."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    live = subprocess.Popen(
        [sys.executable, "-m", "adreg.cli", "status", "--watch"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environ, "ADREG_HOME": str(home.path), "TERM": "xterm"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    try:
        yield live, ours
    finally:
        live.kill()
        live.wait()
        os.close(ours)
