"""What the rules say, carried out right here: jobs are queued, and none is run."""

from __future__ import annotations

from adreg.domain import Job
from adreg.registry import jobs
from adreg.service.policy.records import Rest
from adreg.service.rules.records import Root, Rules
from adreg.service.watch.acting import act
from adreg.service.watch.planning import plan_now
from adreg.service.workspace import Workspace


def carry_out(ws: Workspace, *roots: Root) -> list[Job]:
    """The jobs that are there then, the oldest first. Raises what is wrong with a folder."""
    for action in plan_now(ws, Rules(roots)):
        if isinstance(action, Rest) and action.error is not None:
            raise action.error
        act(ws, action, lambda text: None)
    return jobs.listing(ws.registry.db)[::-1]
