"""jobs list|show|cancel|retry|logs: the job table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args

import typer

from adreg.commands.options import AsJson
from adreg.commands.output import notice, print_json, print_table, say
from adreg.commands.run import open_workspace
from adreg.commands.views import job_view
from adreg.domain import JobState
from adreg.errors import UsageError

jobs_app = typer.Typer(no_args_is_help=True, help="See, cancel and retry jobs; read their logs.")
_SHOWN = 8  # of a list
JobId = Annotated[int, typer.Argument(help="A job's number, as `adreg jobs list` shows it.")]


@jobs_app.command("list")
def list_(
    state: Annotated[
        str | None, typer.Option(help="Only queued, running, done, failed or cancelled ones.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many, the newest first.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    from adreg.registry import jobs

    if state is not None and state not in get_args(JobState):
        raise UsageError(f"no job is ever {state!r}", remedy=f"{', '.join(get_args(JobState))}")
    views = [job_view(j) for j in jobs.listing(open_workspace().registry.db, state, limit)]
    if as_json:
        print_json(views)
        return
    if not views:
        notice("no jobs")
        return
    rows = [
        [
            v["id"],
            v["kind"],
            "running (worker killed)" if v["lost"] else v["state"],
            v["attempt"],
            v["updated"],
            (v["error"] or {}).get("message"),
        ]
        for v in views
    ]
    print_table("jobs", ["id", "kind", "state", "attempt", "updated", "error"], rows)


@jobs_app.command()
def show(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job: its request, how it stands, its error."""
    from adreg.registry import jobs

    job = jobs.get(open_workspace().registry.db, job_id)
    view = {**job_view(job), "request": job.request}
    if as_json:
        print_json(view)
    else:
        print_table(f"job {job_id}", ["what", "value"], _facts(view))


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, object]]:
    """What is inside of what, one after the other: `request.spec.steps`; long lists counted."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _facts(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and len(value) > _SHOWN:
        yield name, f"{len(value)} of them: --json"
    else:
        yield name, value


@jobs_app.command()
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a queued or running job; a running one saves its state and stops within seconds."""
    from adreg.service.running import supervisor

    job = supervisor.cancel(open_workspace(), job_id)
    print_json(job_view(job)) if as_json else say(f"job {job_id} is cancelled")


@jobs_app.command()
def retry(job_id: JobId, as_json: AsJson = False) -> None:
    """Queue a failed or cancelled job again; it goes on from its saved state."""
    from adreg.registry import jobs

    job = jobs.retry(open_workspace().registry.db, job_id)
    print_json(job_view(job)) if as_json else say(f"job {job_id} is queued again")


@jobs_app.command()
def logs(job_id: JobId) -> None:
    """Print the log of a job's child processes, all attempts."""
    from adreg.registry import jobs
    from adreg.service.running.child import log_file

    ws = open_workspace()
    jobs.get(ws.registry.db, job_id)
    file = log_file(ws.settings, job_id)
    if not file.is_file() or not file.stat().st_size:
        notice(f"job {job_id} has printed nothing")
        return
    say(file.read_text(encoding="utf-8", errors="replace").rstrip("\n"))
