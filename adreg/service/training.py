"""`adreg train`: a folder of images becomes a train job, and its result an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, get_args

from adreg.bases.find import reference
from adreg.domain import (
    LINE_METHODS,
    Adapter,
    Base,
    Job,
    JobState,
    Json,
    Subject,
    SubjectKind,
    check_name,
    trigger_for,
)
from adreg.errors import ArtifactError, ConflictError, UsageError
from adreg.formats.digest import adapter_digest
from adreg.formats.probe import match, probe
from adreg.registry import adapters, columns, jobs, names, sources
from adreg.registry.connection import immediate
from adreg.service import class_images, scoring
from adreg.service.subjects import take_in
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json
from adreg.train.buckets import frame_sizes, grid_of
from adreg.train.spec import TrainSpec, make_spec


@dataclass(frozen=True)
class TrainingWish:
    """What a user asks for; `settings` are the fields of the spec that were given."""

    folder: Path
    class_word: str
    name: str
    method: str
    base: str
    kind: SubjectKind = "object"
    line: str | None = None
    settings: Mapping[str, Any] | None = None
    scorer: str | None = None
    identity_scorer: str | None = None
    revive: tuple[JobState, ...] = jobs.ENDED_BADLY


def request_training(ws: Workspace, wish: TrainingWish) -> Job:
    """Copies the images into the store and queues the one train job for them and this spec.

    What was queued is what is trained, whatever happens to the folder. Raises UsageError,
    NotFoundError, ArtifactError (no usable image), ConflictError (name or trigger taken).
    """
    base = ws.base(wish.base)
    spec = spec_of(wish, base)
    subject = take_in(ws, wish.folder, name=wish.name, class_word=wish.class_word, kind=wish.kind)
    _check_line(ws, wish, base)
    key = _key(subject, spec, base, wish)
    request = {
        "subject": subject.digest,
        "images": list(subject.images),
        "base": reference(base),
        "base_digest": base.digest,
        "base_name": base.name,
        "spec": spec.to_json(),
        "name": wish.name,
        "line": wish.line,
        "scorer": wish.scorer,
        "identity_scorer": wish.identity_scorer,
        "set_aside": dict(subject.set_aside),
        "source": subject.source,
    }
    # The name is looked up and taken in one transaction: another process may want it as well.
    with immediate(ws.registry.db):
        if jobs.find(ws.registry.db, "train", key) is None:
            _check_name_free(ws, wish.name, spec.trigger, base)
        if spec.method == "orthogonal":
            first = columns.assign(ws.registry.db, base.digest, key, spec.rank)
            request["spec"] = replace(spec, first_column=first).to_json()
        sources.insert_subject(ws.registry.db, subject)
        return jobs.enqueue(
            ws.registry.db,
            "train",
            key,
            request,
            lock=f"line {base.digest} {wish.line}" if wish.line else None,
            revive=wish.revive if _still_there(ws, key) else (*wish.revive, "done"),
        )


def check_kind(kind: str) -> SubjectKind:
    """Raises UsageError for anything but object, person, style."""
    if kind not in get_args(SubjectKind):
        raise UsageError(f"--kind {kind!r}", remedy=f"one of {', '.join(get_args(SubjectKind))}")
    return cast(SubjectKind, kind)


def resolve(ws: Workspace, request: Json) -> Json:
    """The child's inputs; the line's head becomes the parent now, when the job is claimed."""
    base = ws.base_of(request["base_digest"], request["base"])
    parent = _parent(ws, request["line"], base)
    return {
        "base": str(base.path),
        "base_name": base.name,
        "subject": str(ws.registry.store.subject_path(request["subject"])),
        "images": request["images"],
        "spec": request["spec"],
        "line": request["line"],
        "parent": None if parent is None else str(parent.path),
        "parent_digest": None if parent is None else parent.digest,
        "statistics": None if parent is None else _statistics(ws, parent),
        **class_images.inputs(ws, request, base),
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Holds the file against the base, moves it into the store, and writes its rows."""
    request = job.request
    base = ws.base_of(request["base_digest"], request["base"])
    file = staging / outputs["adapter"]
    found = probe(file)
    match(found, base.modules)
    digest, path = ws.registry.store.add_adapter_file(file, adapter_digest)
    if "class_images" in outputs:
        class_images.take_in(ws, request, base, staging / outputs["class_images"])
    if "statistics" in outputs:
        ws.registry.store.add_statistics(staging / outputs["statistics"], digest)
    manifest = found.manifest
    adapter = Adapter(
        digest=digest,
        path=path,
        format=found.format,
        base_digest=base.digest,
        base_name=base.name,
        family=base.family,
        concepts=found.concepts,
        method=manifest["method"],
        rank=found.rank,
        modules=len(found.modules),
        line=request["line"],
        continued_from=manifest.get("continued_from"),
        source=request["source"],
        spec=request["spec"],
    )
    result = {"digest": digest, "name": request["name"], **_kept(outputs), "job": job.id}
    wanted = _score_wanted(ws, request, adapter, base)
    with immediate(ws.registry.db):
        adapters.insert(ws.registry.db, adapter)
        names.point(ws.registry.db, request["name"], "adapter", digest)
        jobs.conclude(ws.registry.db, job, result)
        if wanted is not None:
            scoring.enqueue(ws, wanted)


def _score_wanted(ws: Workspace, request: Json, adapter: Adapter, base: Base) -> Json | None:
    """The score job to queue with the adapter. Hashes the scorers: no work for a transaction."""
    if not request["scorer"]:
        return None
    # Jobs that were queued before there were identity scorers name none.
    identity_scorer = request.get("identity_scorer")
    return scoring.score_request(ws, adapter, base, request["scorer"], identity_scorer)


def _kept(outputs: Json) -> Json:
    files = ("adapter", "statistics", "class_images")
    return {key: value for key, value in outputs.items() if key not in files}


def spec_of(wish: TrainingWish, base: Base) -> TrainSpec:
    """The whole spec of a wish. UsageError for a setting that method or base cannot take."""
    if wish.line and wish.method not in LINE_METHODS:
        raise UsageError(
            f"--line is for {', '.join(LINE_METHODS)};"
            f" {wish.method} trains every adapter by itself",
            remedy="use --method c-lora",
        )
    spec = make_spec(
        wish.method,
        base.family,
        trigger=trigger_for(check_name(wish.name)),
        class_word=wish.class_word,
        kind=wish.kind,
        **{k: v for k, v in (wish.settings or {}).items() if v is not None},
    )
    frame_sizes(grid_of(base.path), spec.resolution, buckets=spec.buckets)
    return spec


def _check_line(ws: Workspace, wish: TrainingWish, base: Base) -> None:
    """A line is of one method: what it keeps of earlier tasks is the method's."""
    if wish.line is None:
        return
    head = adapters.head_of_line(ws.registry.db, ws.registry.store, wish.line, base.digest)
    if head is not None and head.method != wish.method:
        raise UsageError(
            f"the line {wish.line!r} is of method {head.method}, not {wish.method}",
            remedy=f"use --method {head.method}, or start another --line",
        )


def _key(subject: Subject, spec: TrainSpec, base: Base, wish: TrainingWish) -> str:
    return sha256_json([subject.digest, spec.digest(), base.digest, wish.line])


def _check_name_free(ws: Workspace, name: str, trigger: str, base: Base) -> None:
    names.check_free(ws.registry.db, name)
    if (job := jobs.wants_name(ws.registry.db, name)) is not None:
        raise ConflictError(
            f"job {job.id} ({job.state}) will give the name {name!r} to its adapter",
            remedy=f"choose another with --name, or cancel it: adreg jobs cancel {job.id}",
        )
    taken = adapters.with_trigger(ws.registry.db, ws.registry.store, trigger, base.digest)
    if taken is not None:
        raise ConflictError(
            f"the trigger {trigger} belongs to adapter {taken.name!r} on this base",
            remedy="choose another --name: the trigger is made from it",
        )


def _still_there(ws: Workspace, key: str) -> bool:
    """Whether the adapter that the job of this key made is in the store."""
    job = jobs.find(ws.registry.db, "train", key)
    if job is None or job.result is None:
        return True
    made = adapters.by_digest(ws.registry.db, ws.registry.store, job.result["digest"])
    return made is not None and made.state == "present"


def _parent(ws: Workspace, line: str | None, base: Base) -> Adapter | None:
    if line is None:
        return None
    parent = adapters.head_of_line(ws.registry.db, ws.registry.store, line, base.digest)
    if parent is not None and parent.state != "present":
        raise ArtifactError(
            f"{parent.path}: the line's last adapter {parent.name!r} is missing",
            remedy="add its file again, or start another --line",
        )
    return parent


def _statistics(ws: Workspace, parent: Adapter) -> str | None:
    path = ws.registry.store.statistics_path(parent.digest)
    return str(path) if path.is_file() else None
