"""`adreg score CHECKPOINT`: what a merge kept of base and concepts, measured in a job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adreg.bases.scorers import find_again
from adreg.domain import Base, Checkpoint, Job, Json
from adreg.errors import UsageError
from adreg.registry import jobs
from adreg.registry.bases import base_reference
from adreg.service.checkpoints import present_checkpoint
from adreg.service.origins import Origin, of_checkpoint
from adreg.service.scores.scoring import (
    TOLD_APART,
    default_scorer,
    identity_inputs,
    keep,
    measured_by,
    photos_of,
)
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json


def request_checkpoint_score(
    ws: Workspace,
    checkpoint: Checkpoint,
    *,
    base_ref: str | None = None,
    scorer: str | None = None,
    identity_scorer: str | None = None,
) -> Job:
    """Queues the one score job of a checkpoint, its scorers and the current score definitions.

    It is held against the base it was merged on. Measured with the same inputs before, the job is
    done already. Raises UsageError (no scorer for this base, no trigger to ask for), NotFoundError,
    ArtifactError, ExternalError.
    """
    base = _base(ws, checkpoint, base_ref)
    origins = of_checkpoint(ws, checkpoint)
    if not origins:
        raise UsageError(
            f"checkpoint {checkpoint.name!r} has no trigger to score by",
            remedy="add its adapters again with --trigger and --class, and merge them again",
        )
    asked = measured_by(ws, base, scorer or default_scorer(ws, base), identity_scorer)
    request = {"checkpoint": checkpoint.digest, **asked}
    key = _key(ws, request, origins)
    return jobs.enqueue(ws.registry.db, "score_checkpoint", key, request, revive=jobs.ENDED_BADLY)


def _base(ws: Workspace, checkpoint: Checkpoint, ref: str | None) -> Base:
    digest = checkpoint.base_digest
    if ref is None:
        return ws.base_of(digest, base_reference(ws.registry.db, digest) or ws.settings.base)
    base = ws.base(ref)
    if base.digest != digest:
        raise UsageError(
            f"checkpoint {checkpoint.name!r} was merged on {checkpoint.base_name!r}, not {ref!r}",
            remedy="leave out --base",
        )
    return base


def resolve(ws: Workspace, request: Json) -> Json:
    """Raises ArtifactError where the checkpoint's folder is gone."""
    checkpoint = present_checkpoint(ws, request["checkpoint"])
    origins = of_checkpoint(ws, checkpoint)
    return {
        "base": str(ws.base_of(request["base_digest"], request["base"]).path),
        "checkpoint": str(checkpoint.path),
        "concepts": [{**o.concept.to_json(), "method": o.method} for o in origins],
        "scorer": str(find_again(request["scorer"], request["scorer_digest"]).path),
        "identity": identity_inputs(request, _photos(ws, origins), "its adapters"),
        "spec": request["spec"],
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    keep(ws, job, job.request["checkpoint"], staging, outputs)


def _photos(ws: Workspace, origins: Sequence[Origin]) -> dict[str, list[str]]:
    """The checkpoint's triggers to the photos their adapters learnt from, where they are here."""
    found = {}
    for origin in origins:
        if origin.adapter is not None:
            own = photos_of(ws, origin.adapter)
            if origin.own_trigger in own:
                found[origin.concept.trigger] = own[origin.own_trigger]
    return found


def _key(ws: Workspace, request: Json, origins: Sequence[Origin]) -> str:
    """Digest of all that the measurement depends on."""
    root = ws.registry.store.root
    photos = {
        # Below the store: the same wherever that lies.
        trigger: [str(Path(path).relative_to(root)) for path in paths]
        for trigger, paths in _photos(ws, origins).items()
    }
    concepts = [[origin.concept.to_json(), origin.method] for origin in origins]
    return sha256_json([request["checkpoint"], *(request[f] for f in TOLD_APART), concepts, photos])
