"""What the supervisor needs to know of each kind of job: inputs before, rows after.

`resolve` turns a request (names and digests) into the child's inputs (paths), at the moment the
job is claimed; `record` moves what the child made into the store and writes its rows together
with the job's end, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adreg.domain import Job, Json
from adreg.service import (
    bases,
    forgetting,
    generating,
    identifying,
    merging,
    publishing,
    scoring,
    training,
)
from adreg.service.workspace import Workspace


def _scored(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    scoring.record(ws, job, staging, outputs)
    forgetting.follow(ws, job.request)


_RESOLVE: dict[str, Callable[[Workspace, Json], Json]] = {
    "train": training.resolve,
    "score": scoring.resolve,
    "forgetting": forgetting.resolve,
    "identify": identifying.resolve,
    "generate": generating.resolve,
    "merge": merging.resolve,
    "publish": publishing.resolve,
    "convert": bases.resolve,
}

_RECORD: dict[str, Callable[[Workspace, Job, Path, Json], None]] = {
    "train": training.record,
    "score": _scored,
    "forgetting": forgetting.record,
    "identify": identifying.record,
    "generate": generating.record,
    "merge": merging.record,
    "publish": publishing.record,
    "convert": bases.record,
}


def resolve(ws: Workspace, job: Job) -> Json:
    """The child's inputs. Raises AdregError where the request cannot be met any more."""
    return _RESOLVE[job.kind](ws, job.request)


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Takes over what the child left in `staging`. Raises AdregError where it is not sound."""
    _RECORD[job.kind](ws, job, staging, outputs)
