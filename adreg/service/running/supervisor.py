"""Claims jobs, runs their children, keeps their leases, and records how they ended."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, get_args

from adreg.domain import Job, JobKind, Json
from adreg.errors import BY_NAME, AdregError, ConflictError, ExternalError
from adreg.jobs.protocol import NEEDS_NO_DEVICE
from adreg.registry import jobs
from adreg.registry.connection import patient
from adreg.service.running import guard, kinds
from adreg.service.running.child import (
    SECONDS_TO_END,
    Child,
    OwnChild,
    staging_folder,
    start_child,
)
from adreg.service.running.concluding import conclude, disk_is_full, park
from adreg.service.running.stopping import stoppable
from adreg.service.running.workers import end_orphans, known_dead, me
from adreg.service.workspace import Workspace

Tick = Callable[[Child], None]
_SECONDS_BETWEEN_TICKS = 0.1
_SECONDS_BETWEEN_CLAIMS = 0.5
_NO_DEVICE = None  # the place of a job that needs none


def quiet(child: Child) -> None:
    """A Tick that shows nothing."""


@dataclass
class _Run:
    """A claimed job and the child that does it, on a device of its own or on none."""

    ws: Workspace
    child: OwnChild
    device: str | None
    endures: bool
    _pulse: guard.Pulse = field(init=False)
    _lease_until: float = field(init=False)
    _beat: float = field(default_factory=time.monotonic, init=False)
    _why: Json | None = field(default=None, init=False)
    _lost: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._pulse = guard.Pulse(self.child.staging)
        self._lease_until = self.child.job.lease_until

    def follow(self, tick: Tick) -> bool:
        """Ticks and keeps the lease; whether the child has ended, and that is recorded."""
        ended = self.child.ended()
        tick(self.child)
        if self._lost is not None:
            return ended or self._end_what_was_lost(self._lost)
        if ended:
            # Where that cannot be written (the disk is full), nobody keeps the lease any more:
            # the job is taken up again once there is space.
            with suppress(sqlite3.OperationalError):
                conclude(self.ws, self.child, self._why, endures=self.endures)
            return True
        self.beat()
        return False

    def beat(self) -> None:
        """Keeps the lease where that is due."""
        if self._lost is None and self._due():
            self._keep_lease()

    def end_if_it_hangs(self) -> None:
        if guard.hangs(self.child, self._pulse, self.ws.settings):
            self.end(guard.hanging_error(self.child, self.ws.settings))

    def end(self, why: Json) -> None:
        """Kills the child; its job is tried again, within its budget, with that error."""
        self._why = why
        self.child.process.kill()

    def _due(self) -> bool:
        # Others read the lease by the wall clock, which may have been set in either direction.
        lease = self.ws.settings.lease_seconds
        beaten = time.monotonic() - self._beat <= min(lease / 4, 1.0)
        return not beaten or not 0 < self._lease_until - time.time() <= lease

    def _keep_lease(self) -> None:
        self._beat = time.monotonic()
        lease = self.ws.settings.lease_seconds
        until = time.time() + lease
        try:
            kept = jobs.heartbeat(self.ws.registry.db, self.child.job, lease)
        except sqlite3.OperationalError:
            return  # locked, or the disk is full: the child works on, and the next beat may pass
        self._lease_until = until
        if not kept:  # cancelled, or handed to another worker
            self._lost = self._beat
            self.child.process.terminate()

    def _end_what_was_lost(self, since: float) -> bool:
        if time.monotonic() - since > SECONDS_TO_END:
            self.child.process.kill()
        return False


class Crew:
    """The children of this process, followed in one loop: at most one a device, and one that needs
    none, so that no publication waits for hours of training.

    A context: whatever it is left by, children that still work are asked to save their state and
    stop, and their jobs are given back. One that `endures` waits while the disk is full; else that
    is a failure as any other.
    """

    def __init__(
        self,
        ws: Workspace,
        *,
        devices: Sequence[str] = (),
        wait: bool = True,
        endures: bool = True,
    ) -> None:
        self._ws = ws
        self._wait = wait
        self._endures = endures
        named = devices or ws.settings.devices or (ws.settings.device,)
        self._free: list[str | None] = [*named, _NO_DEVICE]
        self._runs: list[_Run] = []
        self._ended: list[Job] = []
        self._looked = self._guarded = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._give_back()

    def busy(self) -> bool:
        return bool(self._runs)

    def run_next(self, tick: Tick = quiet) -> Job | None:
        """Keeps all devices at work until a job has ended; None where none may run.

        Raises KeyboardInterrupt, and whatever `tick` raises: it is called about every 0.1 s for
        each child.
        """
        while not self._ended:
            self._start_what_may_run()
            if not self._runs:
                break
            self.follow(tick)
            if not self._ended:
                time.sleep(_SECONDS_BETWEEN_TICKS)
        return self._ended.pop(0) if self._ended else None

    def follow(self, tick: Tick) -> None:
        """One look at every child."""
        self._look_after()
        for run in list(self._runs):
            if run.follow(tick):
                self._runs.remove(run)
                self._free.append(run.device)
                self._ended.append(jobs.get(self._ws.registry.db, run.child.job.id))
                self._looked = float("-inf")

    def start(self, job_id: int | None = None) -> Job | None:
        """Claims a job (the next, or the one named) and starts its child on a free place.

        None where none may run. One that cannot be started has ended.
        """
        ws = self._ws
        free_dead_workers(ws)
        waiting = [kind for kind in get_args(JobKind) if not self._places_for(kind)]
        job = jobs.claim(ws.registry.db, me(), ws.settings.lease_seconds, job_id, waiting)
        if job is None:
            return None
        try:
            inputs = kinds.resolve(ws, job)
            place = self._places_for(job.kind)[0]
            child = start_child(ws.settings, job, inputs, device=place, wait=self._wait)
        except Exception as error:
            park(ws, job, error)
            return jobs.get(ws.registry.db, job.id)
        except BaseException:
            jobs.release(ws.registry.db, job)
            raise
        self._free.remove(place)
        self._runs.append(_Run(ws, child, place, self._endures))
        # The server that children are forked from loads torch first, for longer than a lease on a
        # busy machine: nobody, this loop included, is to take those jobs for a dead worker's.
        for run in self._runs:
            run.beat()
        return job

    def _places_for(self, kind: str) -> list[str | None]:
        """The first free one, where one is free."""
        return [p for p in self._free if (p is _NO_DEVICE) == (kind in NEEDS_NO_DEVICE)][:1]

    def _start_what_may_run(self) -> None:
        while self._free and time.monotonic() - self._looked > _SECONDS_BETWEEN_CLAIMS:
            try:
                job = None if self._endures and disk_is_full(self._ws) else self.start()
            except sqlite3.OperationalError:
                if not self._runs:
                    raise
                job = None  # those that are at work go on
            if job is None:
                self._looked = time.monotonic()
            elif job.state != "running":
                self._ended.append(job)

    def _look_after(self) -> None:
        """Once a second: ends what hangs, and what takes the memory of all."""
        if time.monotonic() - self._guarded < 1.0:
            return
        self._guarded = time.monotonic()
        for run in self._runs:
            run.end_if_it_hangs()
        greedy = guard.greediest([run.child for run in self._runs], self._ws.settings)
        for run in self._runs:
            if run.child is greedy:
                run.end(guard.memory_error(greedy, self._ws.settings))

    def _give_back(self) -> None:
        try:
            for run in self._runs:  # all are asked before the first is waited for
                run.child.process.terminate()
            deadline = time.monotonic() + SECONDS_TO_END
            for run in self._runs:
                run.child.end(max(deadline - time.monotonic(), 0.0))
                # A lease that cannot be ended now is one of a dead worker soon: anyone sees that.
                with patient(False), suppress(sqlite3.OperationalError):
                    jobs.release(self._ws.registry.db, run.child.job)
        finally:
            for run in self._runs:  # interrupted once more
                run.child.process.kill()


def run_next(
    ws: Workspace, tick: Tick = quiet, *, job_id: int | None = None, wait: bool = True
) -> Job | None:
    """Claims and runs one job (the next, or the one named); None where none may run.

    Raises KeyboardInterrupt, with the job given back and the child ended, and whatever `tick`
    raises.
    """
    with Crew(ws, devices=(ws.settings.device,), wait=wait, endures=False) as crew:
        job = crew.start(job_id)
        while crew.busy():
            crew.follow(tick)
            time.sleep(_SECONDS_BETWEEN_TICKS)
    return job and jobs.get(ws.registry.db, job.id)


def run_now(ws: Workspace, job: Job, tick: Tick = quiet, *, wait: bool = True) -> Json:
    """Runs a job that was just queued, in the foreground; its result.

    A failure that may pass (a killed child, a Hub that is away) is tried again, within the job's
    budget. Raises ConflictError where another worker had it already, KeyboardInterrupt with the
    job cancelled, else the AdregError the job ended with.
    """
    try:
        with stoppable():
            job = _see_through(ws, job, tick, wait)
    except KeyboardInterrupt:
        with suppress(ConflictError):  # it may have ended in this very moment
            jobs.cancel(ws.registry.db, job.id)
        raise
    if job.state == "done" and job.result is not None:
        return job.result
    raise error_of(ws, job)


def _see_through(ws: Workspace, job: Job, tick: Tick, wait: bool) -> Job:
    """The job once it has ended, run here or, where a watcher was quicker to claim it, there."""
    ours = job.state == "queued"
    other = Child(job, staging_folder(ws.settings, job.id))
    while job.state in ("queued", "running"):
        ended = run_next(ws, tick, job_id=job.id, wait=wait)
        job = ended or jobs.get(ws.registry.db, job.id)
        ours = ours or ended is not None
        if job.state == "running" and not ours:
            break
        if ended is None:
            if job.state == "running":
                tick(other)
            time.sleep(_SECONDS_BETWEEN_TICKS)
    return job


def error_of(ws: Workspace, job: Job) -> AdregError:
    """The error a job ended with, as the exception it was."""
    if job.state == "running":
        return ConflictError(
            f"job {job.id} is running already (worker {job.worker})",
            remedy=f"see it with: adreg jobs show {job.id}",
        )
    if job.state == "cancelled" or job.error is None:
        return ConflictError(
            f"job {job.id} was {job.state}", remedy="run the same command again to go on"
        )
    kind = BY_NAME.get(job.error["type"], ExternalError)
    remedy = job.error.get("remedy") or f"the whole log: adreg jobs logs {job.id}"
    return kind(job.error["message"], remedy=remedy)


def free_dead_workers(ws: Workspace) -> None:
    """Ends the leases of workers of this machine that were killed, so that nobody waits.

    Their children are ended first: they would keep the device.
    """
    for job in jobs.listing(ws.registry.db, state="running"):
        if job.worker and known_dead(job.worker):
            end_orphans(staging_folder(ws.settings, job.id), job.attempt + 1)
            jobs.expire_lease(ws.registry.db, job)


def cancel(ws: Workspace, job_id: int) -> Job:
    """Cancels a job; its worker ends the child at its next heartbeat, here where that is dead.

    Raises NotFoundError, ConflictError where the job has ended already.
    """
    job = jobs.cancel(ws.registry.db, job_id)
    if job.worker and known_dead(job.worker):
        end_orphans(staging_folder(ws.settings, job.id), job.attempt + 1)
    return job
