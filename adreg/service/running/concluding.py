"""How a job ended, as rows: disk first, then row and job in one transaction."""

from __future__ import annotations

import shutil
import sqlite3
import traceback

from adreg.domain import Job, Json
from adreg.errors import AdregError, ExternalError
from adreg.registry import jobs
from adreg.registry.connection import patient
from adreg.service.running import kinds
from adreg.service.running.child import OwnChild, log_file, open_log
from adreg.service.workspace import Workspace

_SECONDS_BEFORE_RETRY = 2.0
_NEXT_TO_NOTHING = 1_000_000  # bytes


def conclude(ws: Workspace, child: OwnChild, why: Json | None = None, *, endures: bool) -> None:
    """Records the end of a child; `why` is the error, where it was us that ended it.

    What was worked for is not lost to a database that another process keeps for long: this waits.
    Who `endures` does not hold a full disk against a job: it is put off until there is space.
    """
    job = child.job
    result = child.result() or {}
    with patient():
        if "outputs" in result:
            _record(ws, child, result["outputs"], endures)
        elif "stopped" in result or (not result and why is None and child.was_asked_to_end()):
            jobs.release(ws.registry.db, job)  # somebody else asked it to stop: no failure
        elif endures and disk_is_full(ws):
            _put_off(ws, job, result.get("error") or why or _broken(ws, child))
        elif "error" in result:
            _fail(ws, job, result["error"])
        else:
            told = why or _broken(ws, child)
            jobs.requeue(ws.registry.db, job, told, _SECONDS_BEFORE_RETRY * job.failures)


def park(ws: Workspace, job: Job, error: Exception) -> None:
    """Fails the job, so that an error of ours does not stop a watcher again at every start."""
    if isinstance(error, sqlite3.OperationalError):  # the disk is full, say: no fault of the job
        error = ExternalError(f"the registry: {error}", retryable=True)
    if isinstance(error, AdregError):
        _fail(ws, job, error.to_json())
        return
    _fail(ws, job, {"type": "Crash", "message": f"{type(error).__name__}: {error}"})
    with open_log(ws.settings, job.id) as log:
        log.write("".join(traceback.format_exception(error)).encode())


def disk_is_full(ws: Workspace) -> bool:
    """Whether the home's disk takes next to nothing any more, whoever filled it."""
    return shutil.disk_usage(ws.settings.home).free < _NEXT_TO_NOTHING


def _record(ws: Workspace, child: OwnChild, outputs: Json, endures: bool) -> None:
    try:
        kinds.record(ws, child.job, child.staging, outputs)
    except Exception as error:
        if endures and disk_is_full(ws):
            _put_off(ws, child.job, ExternalError(str(error), retryable=True).to_json())
        else:
            park(ws, child.job, error)
        return
    shutil.rmtree(child.staging, ignore_errors=True)


def _fail(ws: Workspace, job: Job, told: Json) -> None:
    """What may pass (a Hub that is away, a full disk) is tried again, within the budget."""
    if told.get("retryable"):
        jobs.requeue(ws.registry.db, job, told, _SECONDS_BEFORE_RETRY * (job.failures + 1))
    else:
        jobs.fail(ws.registry.db, job, told)


def _put_off(ws: Workspace, job: Job, told: Json) -> None:
    jobs.put_off(ws.registry.db, job, told, _SECONDS_BEFORE_RETRY)


def _broken(ws: Workspace, child: OwnChild) -> Json:
    code = child.process.returncode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return {
        "type": "ExternalError",
        "message": f"the child process of job {child.job.id} {how} and left no result",
        "remedy": f"its log: {log_file(ws.settings, child.job.id)}",
        "retryable": True,
    }
