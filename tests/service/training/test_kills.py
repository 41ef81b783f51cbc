"""Twenty kill -9s of one training run, and the same command each time after."""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path

import pytest

from adreg.domain import Job
from adreg.registry import jobs
from adreg.service.running.child import Child, OwnChild
from adreg.service.running.supervisor import run_next, run_now
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.workspace import Workspace
from tests.service.processes import Home
from tests.tiny import photos

KILLS = 20
STEPS = 240

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="children are forked on Linux only"),
]


class Killer:
    """Kills a child some steps further than the last one came, and some milliseconds later."""

    def __init__(self, home: Home, moments: random.Random) -> None:
        self.home = home
        self.moments = moments
        self.thread: threading.Thread | None = None

    def __call__(self, child: Child) -> None:
        assert isinstance(child, OwnChild)
        if self.thread is None:
            goal = self.home.saved_steps() + self.moments.randrange(4)
            delay = self.moments.uniform(0, 0.05)
            self.thread = threading.Thread(target=self._kill, args=(child, goal, delay))
            self.thread.start()

    def _kill(self, child: OwnChild, goal: int, delay: float) -> None:
        while self.home.saved_steps() < goal and not child.ended():
            time.sleep(0.002)
        time.sleep(delay)
        child.process.kill()


def request(ws: Workspace, folder: Path) -> Job:
    wish = TrainingWish(
        folder=folder,
        class_word="dog",
        name="rex",
        method="lora",
        base=ws.settings.base,
        settings={"steps": STEPS, "batch": 1, "checkpoint_every": 1},
    )
    return request_training(ws, wish)


def test_twenty_kills_at_random_change_nothing(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adreg.service.running.forking._started", 1)
    rex = photos(tmp_path / "rex", 2, 32)
    ws, moments = home.open(), random.Random(7)
    saved = []
    for _ in range(KILLS):
        killer = Killer(home, moments)
        after = run_next(ws, killer, job_id=request(ws, rex).id)
        assert killer.thread is not None
        killer.thread.join()
        assert after is not None
        assert after.error is not None, "the run ended before it was killed so often"
        assert "killed by signal 9" in after.error["message"]
        saved.append(home.saved_steps())
        jobs.cancel(ws.registry.db, after.id)  # a fresh budget for the same command
    assert saved == sorted(saved)
    assert 20 < saved[-1] < STEPS
    killed = run_now(ws, request(ws, rex))
    assert killed["resumed_from"] == saved[-1]
    assert killed["notes"] == []
    other = Workspace.open(Home(tmp_path / "other", home.base, home.scorer).settings)
    whole = run_now(other, request(other, rex))
    assert whole["resumed_from"] is None
    assert killed["digest"] == whole["digest"]
