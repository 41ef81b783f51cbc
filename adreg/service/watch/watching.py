"""`adreg watch` and the daemon: subject folders become adapters, checkpoints and publications.

What is done follows from rules alone (policy.py); this runs the jobs that come of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from adreg.domain import Job
from adreg.errors import AdregError, NotFoundError
from adreg.registry import jobs
from adreg.service.rules.records import Root, Rules
from adreg.service.running.child import Child
from adreg.service.running.stopping import stoppable
from adreg.service.running.supervisor import Crew, Tick, error_of, quiet
from adreg.service.watch.watcher import Watcher
from adreg.service.workspace import Workspace

Say = Callable[[str], None]
RunNext = Callable[[Tick], Job | None]


def watch_roots(
    ws: Workspace,
    rules: Rules,
    *,
    once: bool = False,
    say: Say,
    tick: Tick = quiet,
    run_next: RunNext,
    must_stay: bool = False,
) -> list[AdregError]:
    """Does what the rules say until an interrupt; with `once`, until nothing is left.

    The rules are as `checking.checked` returns them. `run_next` claims and runs jobs, calls its
    Tick every 0.1 s meanwhile, and returns one that ended or None where none may run, as that of a
    Crew does. A root that is not there is waited for, unless it `must_stay`. Returns what went
    wrong with folders, gates and jobs. Raises NotFoundError for a root that had to stay.
    """
    for root in rules.roots if must_stay else ():
        if not root.path.is_dir():
            raise NotFoundError(
                f"no folder {root.path}", remedy="make it, then drop subject folders in"
            )
    watcher = Watcher(ws, rules, say, must_stay=must_stay)
    broken: list[AdregError] = []

    def look_and_tick(child: Child) -> None:
        watcher.look()
        tick(child)

    with closing(watcher):
        while True:
            watcher.look()
            job = run_next(look_and_tick)
            if job is not None:
                broken += [error_of(ws, job)] if once and job.state == "failed" else []
            elif once and not watcher.restless() and not jobs.listing(ws.registry.db, "queued"):
                return [*watcher.errors(), *broken]
            else:
                time.sleep(0.1)


def watch(
    ws: Workspace, root: Root, *, once: bool = False, say: Say, tick: Tick = quiet
) -> list[AdregError]:
    """`watch_roots` of one root that is there and stays: what `adreg watch` does.

    Raises what that raises, and KeyboardInterrupt with the running jobs given back.
    """
    rules = Rules((replace(root, path=Path(os.path.abspath(root.path))),))
    with stoppable(), Crew(ws) as crew:

        def run_next(tick: Tick) -> Job | None:
            job = crew.run_next(tick)
            if job is not None:
                say(told(ws, job))
            return job

        return watch_roots(
            ws, rules, once=once, say=say, tick=tick, run_next=run_next, must_stay=True
        )


def told(ws: Workspace, job: Job) -> str:
    """How a job ended, in a line."""
    how = f"job {job.id}: {job.kind} {job.state}"
    return how if job.state == "done" else f"{how}: {error_of(ws, job).message}"
