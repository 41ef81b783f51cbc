"""`adreg export`: a stored checkpoint as one file, a folder or a LoRA, where a user wants it."""

from __future__ import annotations

import shutil
from pathlib import Path

from adreg.domain import Base, Checkpoint, Job, JobState, Json, readable_size
from adreg.errors import ArtifactError, ConflictError, ExternalError, UsageError
from adreg.merge.export.plan import ExportPlan, embeddings_folder, plan_export
from adreg.merge.export.source import read_source
from adreg.merge.export.spec import ExportSpec
from adreg.registry import jobs
from adreg.registry.bases import base_reference
from adreg.registry.connection import immediate
from adreg.service.checkpoints import present_checkpoint
from adreg.service.outputs import check_folder
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json
from adreg.store.staging import disk_errors, publish_dir, publish_file

_INDEX = "model_index.json"


def check_out(ws: Workspace, out: Path, spec: ExportSpec, *, force: bool = False) -> None:
    """Whether the result may be written there; for callers that make the checkpoint first.

    Raises ConflictError where something is there that `force` does not replace or was not given
    for, UsageError for a place inside adreg's own home, ExternalError where nothing can be written.
    """
    out = out.absolute()
    if out.resolve().is_relative_to(ws.settings.home.resolve()):
        raise UsageError(f"{out} is inside adreg's own home", remedy="name a place outside of it")
    _check_free(out, folder=spec.form == "folder", force=force)
    if spec.form == "folder" and out.exists() and not _is_pipeline(out):
        raise ConflictError(f"{out} is a folder of something else", remedy="name another place")
    if spec.form == "single":
        _check_free(embeddings_folder(out), folder=True, force=force)
    check_folder(out.parent, out)


def plan(ws: Workspace, name: str, out: Path, spec: ExportSpec) -> ExportPlan:
    """What would be written. Raises what `request_export` raises, but for what is there already."""
    checkpoint = present_checkpoint(ws, name)
    source = read_source(checkpoint.path, [c.trigger for c in checkpoint.concepts])
    return plan_export(source, spec, out, _base_for(ws, checkpoint, spec))


def request_export(
    ws: Workspace, name: str, out: Path, spec: ExportSpec, *, force: bool = False
) -> Job:
    """Queues the export of a checkpoint to `out`, once more where it was done before.

    Raises NotFoundError, what `check_out` raises, ArtifactError (the checkpoint or its base is
    gone or broken, or no single file can hold it), ExternalError where the disk has too little
    room.
    """
    check_out(ws, out, spec, force=force)
    checkpoint = present_checkpoint(ws, name)
    base = _base_for(ws, checkpoint, spec)
    if base is None:  # a LoRA is small, and its plan reads checkpoint and base through
        _check_room(out.absolute(), plan(ws, name, out, spec))
    request = {
        "checkpoint": checkpoint.digest,
        "name": checkpoint.name,
        "spec": spec.to_json(),
        "out": str(out.absolute()),
        "force": force,
    }
    # One job for one command: where it was killed, the next such attempt finds what it left.
    key = sha256_json(request)
    request["partial"] = str(out.absolute().with_name(f".{out.name}.{key[:12]}.part"))
    revive: tuple[JobState, ...] = (*jobs.ENDED_BADLY, "done")
    return jobs.enqueue(ws.registry.db, "export", key, request, priority=1, revive=revive)


def resolve(ws: Workspace, request: Json) -> Json:
    spec, out = ExportSpec(**request["spec"]), Path(request["out"])
    check_out(ws, out, spec, force=request["force"])
    checkpoint = present_checkpoint(ws, request["checkpoint"])
    base = _base_for(ws, checkpoint, spec)
    return {
        **models_for_job(checkpoint, request["name"], base),
        "spec": request["spec"],
        "name": out.name,
        "partial": request["partial"],
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Moves what was written and verified to its place, on its own disk."""
    request = job.request
    spec = ExportSpec(**request["spec"])
    out, partial = Path(request["out"]), Path(request["partial"])
    try:
        check_out(ws, out, spec, force=request["force"])
        if spec.form == "folder":
            _replace_folder(partial, out)
        else:
            # The checkpoint last: where it is, what belongs to it is.
            for file in reversed(outputs["files"]):
                publish_file(partial / file["path"], out.parent / file["path"])
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    files = [{**file, "path": str(out.parent / file["path"])} for file in outputs["files"]]
    result = {
        "out": str(out),
        "digest": request["checkpoint"],
        "name": request["name"],
        "form": spec.form,
        "dtype": spec.dtype,
        **outputs,
        "files": files,
    }
    with immediate(ws.registry.db):
        jobs.conclude(ws.registry.db, job, result)


def _replace_folder(partial: Path, out: Path) -> None:
    if out.exists():
        with disk_errors(out):
            out.rename(partial / "replaced")
    publish_dir(partial / out.name, out)


def base_of_lora(ws: Workspace, checkpoint: Checkpoint) -> Base:
    """The base of a checkpoint, whose LoRA is what the checkpoint is beyond it.

    Raises ArtifactError where it is another by now, NotFoundError where it is gone.
    """
    known = base_reference(ws.registry.db, checkpoint.base_digest)
    base = ws.base(known or checkpoint.base_name)
    if base.digest != checkpoint.base_digest:
        raise ArtifactError(
            f"{base.path}: is not the base any more that {checkpoint.name!r} was merged on",
            remedy="put that base back there: a LoRA is what a checkpoint is beyond it",
        )
    return base


def models_for_job(checkpoint: Checkpoint, name: str | None, base: Base | None) -> Json:
    """Checkpoint and base as a job takes them that exports the one, as a LoRA beyond the other."""
    told = {
        "digest": checkpoint.digest,
        "path": str(checkpoint.path),
        "name": name,
        "method": checkpoint.method,
        "adapters": list(checkpoint.adapters),
        "concepts": [concept.to_json() for concept in checkpoint.concepts],
        "base_digest": checkpoint.base_digest,
        "base_name": checkpoint.base_name,
    }
    if base is None:
        return {"checkpoint": told, "base": None}
    components = dict(base.components)
    return {
        "checkpoint": told,
        "base": {"path": str(base.path), "name": base.name, "components": components},
    }


def _base_for(ws: Workspace, checkpoint: Checkpoint, spec: ExportSpec) -> Base | None:
    return base_of_lora(ws, checkpoint) if spec.form == "lora" else None


def _check_free(out: Path, *, folder: bool, force: bool) -> None:
    if not out.exists():
        return
    if not force:
        raise ConflictError(f"{out} is there already", remedy="name another, or pass --force")
    if out.is_dir() != folder:
        what = "a folder" if out.is_dir() else "a file"
        raise ConflictError(f"{out} is {what}, and is not replaced", remedy="name another place")


def _is_pipeline(folder: Path) -> bool:
    """Or an empty folder: nothing else is ever replaced."""
    return (folder / _INDEX).is_file() or not any(folder.iterdir())


def _check_room(out: Path, planned: ExportPlan) -> None:
    there = next(folder for folder in out.parents if folder.exists())
    with disk_errors(out):
        free = shutil.disk_usage(there).free
    if free < planned.bytes:
        raise ExternalError(
            f"{out} takes {readable_size(planned.bytes)}, and the disk has"
            f" {readable_size(free)} left",
            remedy="free some disk space, or write halves: --dtype fp16",
        )
