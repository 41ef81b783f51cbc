"""`adreg merge --again`: a checkpoint's recipe carried out once more, and held against it."""

from __future__ import annotations

import shutil
from pathlib import Path

from adreg.bases.find import reference
from adreg.domain import Job, JobState, Json
from adreg.errors import ArtifactError
from adreg.merge.recipe import MergeRecipe, from_json
from adreg.registry import jobs
from adreg.registry.bases import base_reference
from adreg.registry.connection import immediate
from adreg.service.merges import merging
from adreg.service.other_kinds import told_apart
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_file, tree_digest, walk
from adreg.store.staging import publish_dir

_NAMED = 3  # files, in a message
_ENDED: tuple[JobState, ...] = ("done", "failed")


def request_again(ws: Workspace, ref: str) -> Job:
    """Queues the merge of a checkpoint once more, of its adapters by digest, whatever they are
    called now.

    Each time is a job of its own; one that was cancelled goes on. Raises NotFoundError,
    ArtifactError (an adapter's file is missing, the base has changed).
    """
    with told_apart(ws, ref):
        checkpoint = ws.registry.checkpoint(ref)
    recipe = from_json(checkpoint.recipe)
    found = base_reference(ws.registry.db, checkpoint.base_digest) or recipe.base.name
    base = ws.base_of(checkpoint.base_digest, found)
    merging.plan(ws, recipe, base)
    request = {
        "recipe": recipe.to_json(),
        "base": reference(base),
        "base_digest": base.digest,
        "again": checkpoint.digest,
        "called": checkpoint.name or ref,
    }
    key = _free_key(ws, recipe)
    return jobs.enqueue(ws.registry.db, "merge", key, request, revive=("cancelled",))


def resolve(ws: Workspace, request: Json) -> Json:
    """A merge's inputs; its pictures are there already."""
    return {**merging.resolve(ws, request), "previews": False}


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Ends the job where the folder has the checkpoint's digest; puts it in its place where that
    is empty. Raises ArtifactError, saying what differs, where it has not."""
    folder, wanted = staging / outputs["checkpoint"], job.request["again"]
    kept, digest = ws.registry.store.checkpoint_path(wanted), tree_digest(folder)
    there = kept.is_dir() and any(kept.iterdir())
    if digest != wanted:
        told = _difference(ws, job, folder, outputs["report"]["made_with"])
        shutil.rmtree(staging)  # its layers too: the next time is a job of its own
        raise ArtifactError(
            f"{job.request['called']}: merged again, its digest is {digest[:12]}, not"
            f" {wanted[:12]}{told}",
            remedy="merge on the same kind of device, with as many threads and the same versions",
        )
    if there and (changed := _differing(folder, kept)):
        shutil.rmtree(staging)
        raise ArtifactError(
            f"{kept}: merged again, the digest is the same, but the folder was changed since:"
            f" {', '.join(changed)}",
            remedy="move that folder away; the same command then restores it",
        )
    publish_dir(folder, kept)
    result = {"digest": digest, "restored": not there, "report": outputs["report"]}
    with immediate(ws.registry.db):
        jobs.conclude(ws.registry.db, job, result)


def _free_key(ws: Workspace, recipe: MergeRecipe) -> str:
    """The first key of "again" that no ended job has."""
    number = 1
    while True:
        key = f"{recipe.digest()} again-{number}"
        job = jobs.find(ws.registry.db, "merge", key)
        if job is None or job.state not in _ENDED:
            return key
        number += 1


def _difference(ws: Workspace, job: Job, folder: Path, now: Json) -> str:
    """Which files differ, and what else is not as it was the first time."""
    kept = ws.registry.store.checkpoint_path(job.request["again"])
    files = _differing(folder, kept) if kept.is_dir() else []
    first = jobs.find(ws.registry.db, "merge", from_json(job.request["recipe"]).digest())
    then = ((first and first.result) or {}).get("report", {}).get("made_with", {})
    facts = [
        f"{what}: {then[what]} then, {now[what]} now" for what in now if _other(then, now, what)
    ]
    if not then:
        facts.append("what it was first made with was not recorded")
    told = [*([f"{', '.join(files)} differ"] if files else []), *facts]
    return f" ({'; '.join(told)})" if told else ""


def _other(then: Json, now: Json, what: str) -> bool:
    return what in then and then[what] != now[what]


def _differing(one: Path, other: Path) -> list[str]:
    """Files that only one folder has or that differ; the first few, by name."""
    names = sorted({*walk(one), *walk(other)})
    found = [name for name in names if _digest(one / name) != _digest(other / name)]
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return [*found[:_NAMED], *more]


def _digest(file: Path) -> str | None:
    return sha256_file(file) if file.is_file() else None
