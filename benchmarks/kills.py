"""Kills the daemon and its children at random, and looks whether every job is done exactly once.

    python benchmarks/kills.py [--jobs 500] [--kills 50] [--seed 0] [--json]

Small training runs on an untrained base wait in a queue; a daemon works on them. As each of so
many randomly drawn jobs is done, and up to half a second later, the daemon, one of its children
(the process that forks them among these) or all of them get SIGKILL; a dead daemon is started
again. At the end the job table, the registry's rows and the files in the store must agree. How
far it is goes to stderr; the folder it worked in is kept where they do not agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from adreg.domain import Job
from adreg.formats.digest import adapter_digest
from adreg.registry import adapters, jobs
from adreg.service.daemon import control
from adreg.service.daemon.log import read_log
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.workspace import Workspace
from adreg.settings import Settings

ROOT = Path(__file__).parents[1]
VICTIMS = ("daemon", "child", "all")
DEADLINE = 4 * 3600.0
SECONDS_BETWEEN_REPORTS = 30.0

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Says nothing."""


@dataclasses.dataclass
class Storm:
    """A queue of jobs, and a daemon that is killed while it works on them."""

    ws: Workspace
    root: Path
    moments: random.Random
    say: Say = silent
    killed: Counter[str] = dataclasses.field(default_factory=Counter)
    starts: int = 0

    def queue(self, count: int) -> None:
        """So many training runs of two steps, no two alike."""
        from tests.tiny import photos

        for number in range(count):
            wish = TrainingWish(
                folder=photos(self.root.parent / "queued" / f"subject-{number}", 1, 32, number),
                class_word="dog",
                name=f"subject-{number}",
                method="lora",
                base=self.ws.settings.base,
                settings={"steps": 2, "batch": 1, "checkpoint_every": 1},
            )
            request_training(self.ws, wish)

    def run(self, kills: int) -> None:
        """Until no job waits or runs."""
        total = sum(self.counts().values())
        # The last few are left alone: they might be done before the kill that is meant for them.
        goals = sorted(self.moments.sample(range(total - max(total // 50, 1)), kills))
        deadline = time.monotonic() + DEADLINE
        told = time.monotonic()
        while (counts := self.counts())["queued"] + counts["running"]:
            assert time.monotonic() < deadline, counts
            if control.find(self.ws.settings) is None:
                self.start()
            if goals and counts["done"] >= goals[0]:
                goals.pop(0)
                self.kill()
            if time.monotonic() - told > SECONDS_BETWEEN_REPORTS:
                told = time.monotonic()
                self.say(f"{counts['done']} of {total} done, {len(goals)} kills to come")
            time.sleep(0.05)
        assert not goals, "the jobs were done before all kills"

    def counts(self) -> dict[str, int]:
        return jobs.counts(self.ws.registry.db)

    def start(self) -> None:
        self.starts += 1
        subprocess.run(
            [sys.executable, "-m", "adreg.cli", "daemon", "start", self.root],
            env={**os.environ, **self._environ()},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        victim = self.moments.choice(VICTIMS)
        time.sleep(self.moments.uniform(0.0, 0.5))
        found = control.find(self.ws.settings)
        assert found is not None
        process = psutil.Process(found["pid"])
        family = process.children(recursive=True)
        if victim == "child" and family:
            doomed = [self.moments.choice(family)]
        elif victim == "all":
            doomed = [process, *family]
        else:
            victim, doomed = "daemon", [process]
        for one in doomed:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        if process in doomed:  # its successor must not meet it
            psutil.wait_procs([process], timeout=60)
        self.killed[victim] += 1
        self.say(f"killed {victim}: {', '.join(str(one.pid) for one in doomed)}")

    def stop(self) -> None:
        if control.find(self.ws.settings) is not None:
            control.stop(self.ws)

    def _environ(self) -> dict[str, str]:
        settings = self.ws.settings
        return {
            "ADREG_HOME": str(settings.home),
            "ADREG_BASE": settings.base,
            "ADREG_DEVICE": settings.device,
        }


def check(ws: Workspace) -> dict[str, Any]:
    """What there is at the end. AssertionError where job table, rows and files do not agree."""
    db, store = ws.registry.db, ws.registry.store
    ended = list(reversed(jobs.listing(db)))
    kept = {adapter.digest: adapter for adapter in adapters.listing(db, store)}
    assert {job.state for job in ended} == {"done"}, jobs.counts(db)
    assert sorted(_digest(job) for job in ended) == sorted(kept)
    assert sorted(str(a.name) for a in kept.values()) == sorted(j.request["name"] for j in ended)
    assert all(adapter_digest(adapter.path) == digest for digest, adapter in kept.items())
    files = [file for file in (store.root / "adapters").rglob("*") if file.is_file()]
    assert sorted(files) == sorted(adapter.path for adapter in kept.values())
    told = Counter(e["job"] for e in read_log(ws.settings, 10**6) if e["event"] == "job.done")
    assert max(told.values()) == 1, "a job was done twice"
    return {
        "done": len(ended),
        "adapters": len(kept),
        "attempts": sum(job.attempt for job in ended),
        "failures": sum(job.failures for job in ended),
        "resumed": sum(_resumed(job) for job in ended),
    }


def _digest(job: Job) -> str:
    assert job.result is not None
    return str(job.result["digest"])


def _resumed(job: Job) -> bool:
    return job.result is not None and job.result["resumed_from"] is not None


def measure(
    folder: Path, base: Path, count: int, kills: int, seed: int, say: Say = silent
) -> dict[str, Any]:
    """A storm in a folder of its own; what it left, and how long it took in seconds."""
    settings = Settings(home=folder / "home", base=str(base), device="cpu")
    storm = Storm(Workspace.open(settings), folder / "subjects", random.Random(seed), say)
    storm.root.mkdir()
    say(f"queueing {count} jobs in {folder}")
    storm.queue(count)
    began = time.monotonic()
    try:
        storm.run(kills)
    finally:
        storm.stop()
    return {
        "jobs": count,
        "kills": dict(sorted(storm.killed.items())),
        "daemons": storm.starts,
        **check(storm.ws),
        "seconds": round(time.monotonic() - began, 1),
    }


def _tell(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def main() -> None:
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--jobs", type=int, default=500)
    asked.add_argument("--kills", type=int, default=50)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--json", action="store_true", help="print JSON")
    given = asked.parse_args()
    sys.path.insert(0, str(ROOT))
    from tests.tiny import pocket_folder

    folder = Path(tempfile.mkdtemp())
    base = pocket_folder(folder / "base")
    found = measure(folder, base, given.jobs, given.kills, given.seed, _tell)
    shutil.rmtree(folder)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for what, value in found.items():
        print(f"{what:10} {value}")


if __name__ == "__main__":
    main()
