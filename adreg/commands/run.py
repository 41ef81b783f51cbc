"""How every command that does heavy work runs it: queued, then supervised right here.

Imports stand inside the functions here and in the commands, so that `adreg --help` and
`adreg list` start fast; benchmarks/startup.py measures them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from adreg.commands.output import notice, shown_progress

if TYPE_CHECKING:
    from adreg.domain import Job, Json
    from adreg.service.workspace import Workspace

INTERRUPTED = 130


def open_workspace(**flags: Any) -> Workspace:
    """The workspace of this user, with the flags that were given."""
    from adreg.service.workspace import Workspace
    from adreg.settings import load_settings

    return Workspace.open(load_settings(**flags))


def run_job(ws: Workspace, job: Job, *, wait: bool = True) -> Json:
    """The job's result; Ctrl-C stops the child, which saves its state, and ends with 130.

    Raises the AdregError the job ended with.
    """
    from adreg.service.running.supervisor import run_now

    try:
        with shown_progress() as tick:
            return run_now(ws, job, tick, wait=wait)
    except KeyboardInterrupt:
        notice(f"stopped: job {job.id} keeps what it has; the same command goes on from there")
        raise typer.Exit(INTERRUPTED) from None
