"""How everything stands: the daemon, what runs and how far it is, what waits, ended and failed."""

from __future__ import annotations

import shutil
from pathlib import Path

from adreg.domain import Job, Json
from adreg.errors import AdregError
from adreg.jobs.protocol import JOB_FILE
from adreg.registry import jobs
from adreg.service.daemon import control
from adreg.service.running.child import last_progress, staging_folder
from adreg.service.running.supervisor import error_of
from adreg.service.running.workers import known_dead
from adreg.service.workspace import Workspace
from adreg.store.sizes import size_of
from adreg.store.staging import read_json

_SHOWN = 5


def overview(ws: Workspace, home_bytes: int | None = None) -> Json:
    """All of it, as docs/json.md has it; `home_bytes` where they were counted a moment ago."""
    db = ws.registry.db
    found = control.find(ws.settings)
    return {
        "daemon": None if found is None else {k: found[k] for k in found if k != "started"},
        "working_on": working_on(ws),
        "jobs": jobs.counts(db),
        "queue": [_short(job) for job in jobs.queue(db, _SHOWN)],
        "finished": [_short(job) for job in jobs.latest(db, "done", _SHOWN)],
        "failures": [_failure(ws, job) for job in jobs.latest(db, "failed", _SHOWN)],
        "home": str(ws.settings.home),
        "home_bytes": size_of(ws.settings.home) if home_bytes is None else home_bytes,
        "free_bytes": shutil.disk_usage(ws.settings.home).free,
    }


def working_on(ws: Workspace) -> list[Json]:
    """The running jobs, the oldest first, and how far each is."""
    return [_run(ws, job) for job in reversed(jobs.listing(ws.registry.db, state="running"))]


def lost(job: Job) -> bool:
    """Whether its worker was killed: nobody works on it until an adreg that runs jobs comes by."""
    return job.state == "running" and job.worker is not None and known_dead(job.worker)


def _run(ws: Workspace, job: Job) -> Json:
    staging = staging_folder(ws.settings, job.id)
    told = last_progress(staging) or {"stage": "starting", "step": 0, "total": 1, "values": {}}
    rate = told["values"].get("rate")
    return {
        **_short(job),
        "attempt": job.attempt,
        "device": _device(staging),
        "stage": told["stage"],
        "step": told["step"],
        "total": told["total"],
        "seconds_left": (told["total"] - told["step"]) / rate if rate else None,
        "lost": lost(job),
    }


def _device(staging: Path) -> str | None:
    try:
        device: str | None = read_json(staging / JOB_FILE)["device"]
    except AdregError:  # claimed, not yet begun
        return None
    return device


def _failure(ws: Workspace, job: Job) -> Json:
    error = error_of(ws, job)
    return {**_short(job), "message": error.message, "remedy": error.remedy}


def _short(job: Job) -> Json:
    name = job.request.get("name")
    return {"id": job.id, "kind": job.kind, "name": name, "updated": job.updated}
