"""Whether a train job may give its name and triggers: nobody else has them, or will."""

from __future__ import annotations

from dataclasses import replace

from adreg.domain import Adapter, Job, Json, without_version
from adreg.errors import ConflictError
from adreg.registry import adapters, jobs, names
from adreg.service.subjects import subjects_of
from adreg.service.workspace import Workspace
from adreg.train.spec import TrainSpec


def check_free(ws: Workspace, request: Json) -> None:
    """For a job that is not queued yet. ConflictError naming who has them."""
    name = request["name"]
    names.check_free(ws.registry.db, name)
    if (job := jobs.wants_name(ws.registry.db, name)) is not None:
        raise ConflictError(
            f"job {job.id} ({job.state}) will give the name {name!r} to its adapter"
            f"{_apart(job, request)}",
            remedy=f"choose another with --name, or cancel it: adreg jobs cancel {job.id}",
        )
    for concept in TrainSpec.from_json(request["spec"]).concepts:
        _check_trigger(ws, concept.trigger, request)


def check_still_free(ws: Workspace, request: Json) -> None:
    """For a claimed job: one that had ended badly left name and triggers to others meanwhile.

    An adapter whose file is gone may be this job's own. Raises ConflictError.
    """
    db, store = ws.registry.db, ws.registry.store
    held = names.digest_of(db, request["name"], "adapter")
    holder = adapters.by_digest(db, store, held) if held else None
    if holder is None or holder.state == "present":
        names.check_free(db, request["name"])
    for concept in TrainSpec.from_json(request["spec"]).concepts:
        taken = adapters.with_trigger(db, store, concept.trigger, request["base_digest"])
        if taken is not None and taken.state == "present" and not _earlier(taken.name, request):
            raise _trigger_taken(concept.trigger, taken)


def _check_trigger(ws: Workspace, trigger: str, request: Json) -> None:
    base_digest = request["base_digest"]
    taken = adapters.with_trigger(ws.registry.db, ws.registry.store, trigger, base_digest)
    if taken is not None and not _earlier(taken.name, request):
        raise _trigger_taken(trigger, taken)
    job = jobs.wants_trigger(ws.registry.db, trigger, base_digest)
    if job is not None and not _earlier(job.request["name"], request):
        raise ConflictError(
            f"job {job.id} ({job.state}) will give the trigger {trigger} to its adapter",
            remedy=f"wait for it, or cancel it: adreg jobs cancel {job.id}",
        )


def _earlier(name: str | None, request: Json) -> bool:
    """Whether an adapter of that name is another version of the one that is to be trained: it has
    the same trigger. On a line, which has the earlier one's token still, there is no such thing."""
    if name is None or request["line"]:
        return False
    return without_version(name).casefold() == without_version(request["name"]).casefold()


def _trigger_taken(trigger: str, by: Adapter) -> ConflictError:
    return ConflictError(
        f"the trigger {trigger} belongs to adapter {by.name!r} on this base",
        remedy="choose another --name (or name in its subject.toml): it makes the trigger",
    )


def _apart(job: Job, request: Json) -> str:
    """What is another in the job, for a user who meant to run the very same again."""
    if job.kind != "train":
        return ""
    ours, theirs = (_known_by(one) for one in (request, job.request))
    others = [what for what, value in ours.items() if theirs[what] != value]
    return f", from other {' and '.join(others)}" if others else ""


def _known_by(request: Json) -> Json:
    # An orthogonal adapter's columns are given out later, and none of the user's settings.
    spec = replace(TrainSpec.from_json(request["spec"]), first_column=0)
    return {
        "images or captions": [subject["subject"] for _, subject in subjects_of(request)],
        "settings": (spec.digest(), request["line"]),
        "weights of the base": request["base_digest"],
    }
