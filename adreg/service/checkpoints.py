"""Checkpoints whose folder is there."""

from __future__ import annotations

from adreg.domain import Checkpoint
from adreg.errors import ArtifactError
from adreg.registry import sources
from adreg.service.other_kinds import told_apart
from adreg.service.workspace import Workspace


def present_checkpoint(ws: Workspace, ref: str) -> Checkpoint:
    """NotFoundError of a name that no checkpoint bears, ArtifactError where its folder is gone."""
    with told_apart(ws, ref):
        checkpoint = ws.registry.checkpoint(ref)
    if checkpoint.state != "present":
        raise ArtifactError(
            f"{checkpoint.path}: checkpoint {checkpoint.name or ref} is {checkpoint.state}",
            remedy=restored_by(ws, checkpoint),
        )
    return checkpoint


def restored_by(ws: Workspace, checkpoint: Checkpoint) -> str:
    """What brings back a checkpoint whose folder is gone: the Hub, where it was pulled from."""
    pulled = sources.pulls(ws.registry.db, checkpoint.digest)
    if pulled:
        return f"adreg pull {pulled[-1].ref} restores it"
    return f"adreg merge --again {checkpoint.name or checkpoint.digest} restores it"
