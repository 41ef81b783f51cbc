"""What the supervisor needs to know of each kind of job: inputs before, rows after.

`resolve` turns a request (names and digests) into the child's inputs (paths), at the moment the
job is claimed; `record` moves what the child made into the store and writes its rows together
with the job's end, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adreg.domain import Job, Json
from adreg.service.comparison import measuring
from adreg.service.generation import generating, sampling
from adreg.service.hub import publishing, pulling
from adreg.service.merges import again, exporting, interference, merging
from adreg.service.models import bases
from adreg.service.scores import identifying, scoring, scoring_checkpoints
from adreg.service.training import forgetting, runs
from adreg.service.workspace import Workspace
from adreg.store.guard import publishing as publishing_into


def _scored(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    scoring.record(ws, job, staging, outputs)
    forgetting.follow(ws, job.request)


def _merge_inputs(ws: Workspace, request: Json) -> Json:
    return again.resolve(ws, request) if "again" in request else merging.resolve(ws, request)


def _merged(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    what = again if "again" in job.request else merging
    what.record(ws, job, staging, outputs)


_RESOLVE: dict[str, Callable[[Workspace, Json], Json]] = {
    "train": runs.resolve,
    "score": scoring.resolve,
    "score_checkpoint": scoring_checkpoints.resolve,
    "forgetting": forgetting.resolve,
    "identify": identifying.resolve,
    "generate": generating.resolve,
    "sample": sampling.resolve,
    "compare": measuring.resolve,
    "merge": _merge_inputs,
    "interference": interference.resolve,
    "publish": publishing.resolve,
    "pull": pulling.resolve,
    "convert": bases.resolve,
    "export": exporting.resolve,
}

_RECORD: dict[str, Callable[[Workspace, Job, Path, Json], None]] = {
    "train": runs.record,
    "score": _scored,
    "score_checkpoint": scoring_checkpoints.record,
    "forgetting": forgetting.record,
    "identify": identifying.record,
    "generate": generating.record,
    "sample": sampling.record,
    "compare": measuring.record,
    "merge": _merged,
    "interference": interference.record,
    "publish": publishing.record,
    "pull": pulling.record,
    "convert": bases.record,
    "export": exporting.record,
}


def resolve(ws: Workspace, job: Job) -> Json:
    """The child's inputs. Raises AdregError where the request cannot be met any more."""
    return _RESOLVE[job.kind](ws, job.request)


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Takes over what the child left in `staging`. Raises AdregError where it is not sound."""
    with publishing_into(ws.registry.store.root):
        _RECORD[job.kind](ws, job, staging, outputs)
