"""Claims a job, runs its child, keeps its lease, and records how it ended."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from adreg.domain import Job, Json
from adreg.errors import BY_NAME, AdregError, ConflictError, ExternalError
from adreg.registry import jobs
from adreg.service import kinds
from adreg.service.child import Child, OwnChild, log_file, open_log, staging_folder, start_child
from adreg.service.stopping import stoppable
from adreg.service.workers import end_orphans, known_dead, me
from adreg.service.workspace import Workspace

Tick = Callable[[Child], None]
_SECONDS_BETWEEN_TICKS = 0.1
_SECONDS_BEFORE_RETRY = 2.0


def quiet(child: Child) -> None:
    """A Tick that shows nothing."""


def run_next(
    ws: Workspace, tick: Tick = quiet, *, job_id: int | None = None, wait: bool = True
) -> Job | None:
    """Claims and runs one job (the next, or the one named); None where none may run.

    Raises KeyboardInterrupt, with the job given back and the child ended, and whatever `tick`
    raises.
    """
    free_dead_workers(ws)
    job = jobs.claim(ws.registry.db, me(), ws.settings.lease_seconds, job_id)
    if job is None:
        return None
    try:
        inputs = kinds.resolve(ws, job)
        child = start_child(ws.settings, job, inputs, wait=wait)
    except Exception as error:
        _park(ws, job, error)
        return jobs.get(ws.registry.db, job.id)
    except BaseException:
        jobs.release(ws.registry.db, job)
        raise
    try:
        if _follow(ws, child, tick):
            _conclude(ws, child)
    except BaseException:
        child.end()
        jobs.release(ws.registry.db, job)
        raise
    return jobs.get(ws.registry.db, job.id)


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


def _follow(ws: Workspace, child: OwnChild, tick: Tick) -> bool:
    """Ticks until the child ends; False where the job was taken away and the child ended."""
    beat = time.monotonic()
    while not child.ended():
        tick(child)
        if time.monotonic() - beat > min(ws.settings.lease_seconds / 4, 1.0):
            beat = time.monotonic()
            if not jobs.heartbeat(ws.registry.db, child.job, ws.settings.lease_seconds):
                child.end()
                return False
        time.sleep(_SECONDS_BETWEEN_TICKS)
    tick(child)
    return True


def _conclude(ws: Workspace, child: OwnChild) -> None:
    """Records the child's end: disk first, then row and job in one transaction."""
    job, db = child.job, ws.registry.db
    result = child.result()
    if "stopped" in (result or {}) or (result is None and child.was_asked_to_end()):
        jobs.release(db, job)  # somebody else asked it to stop: no failure
    elif result is None:
        jobs.requeue(db, job, _broken(ws, child), _SECONDS_BEFORE_RETRY * job.failures)
    elif "error" in result:
        _fail(ws, job, result["error"])
    else:
        _record(ws, child, result["outputs"])


def _record(ws: Workspace, child: OwnChild, outputs: Json) -> None:
    try:
        kinds.record(ws, child.job, child.staging, outputs)
    except Exception as error:
        _park(ws, child.job, error)
        return
    shutil.rmtree(child.staging, ignore_errors=True)


def _park(ws: Workspace, job: Job, error: Exception) -> None:
    """Fails the job, so that an error of ours does not stop a watcher again at every start."""
    if isinstance(error, AdregError):
        _fail(ws, job, error.to_json())
        return
    _fail(ws, job, {"type": "Crash", "message": f"{type(error).__name__}: {error}"})
    with open_log(ws.settings, job.id) as log:
        log.write("".join(traceback.format_exception(error)).encode())


def _fail(ws: Workspace, job: Job, told: Json) -> None:
    """What may pass (a Hub that is away, a full disk) is tried again, within the budget."""
    if told.get("retryable"):
        jobs.requeue(ws.registry.db, job, told, _SECONDS_BEFORE_RETRY * (job.failures + 1))
    else:
        jobs.fail(ws.registry.db, job, told)


def _broken(ws: Workspace, child: OwnChild) -> Json:
    code = child.process.returncode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return {
        "type": "ExternalError",
        "message": f"the child process of job {child.job.id} {how} and left no result",
        "remedy": f"its log: {log_file(ws.settings, child.job.id)}",
        "retryable": True,
    }
