"""`adreg train`: a folder of images becomes a train job, and its result an adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_args

from adreg.bases.find import reference
from adreg.bases.scorers import find_again, find_identity_scorer
from adreg.domain import (
    JOINT_METHODS,
    LINE_METHODS,
    Adapter,
    Base,
    Concept,
    Job,
    JobState,
    Json,
    Subject,
    SubjectKind,
    check_name,
    is_plain,
    trigger_for,
)
from adreg.errors import ArtifactError, UsageError
from adreg.formats.digest import adapter_digest
from adreg.formats.probe import match, probe
from adreg.registry import adapters, columns, jobs, names, sources
from adreg.registry.connection import immediate
from adreg.service.scores import scoring
from adreg.service.subjects import subjects_of, take_in
from adreg.service.training import class_images, samples
from adreg.service.training.taken import check_free, check_still_free
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json
from adreg.store.guard import publishing
from adreg.train.buckets import frame_sizes, grid_of
from adreg.train.spec import TrainSpec, make_spec
from adreg.train.stopping import IDENTITY, read_bound


@dataclass(frozen=True)
class SubjectWish:
    """A further subject of a joint run; its trigger is made from its name."""

    folder: Path
    class_word: str
    name: str
    kind: SubjectKind = "object"


@dataclass(frozen=True)
class TrainingWish:
    """What a user asks for; `settings` are the fields of the spec that were given.

    `also` are further subjects that the same adapter learns; the first one's trigger is then made
    from `called`, and `name` is the adapter's alone; so it is for a version of an adapter.
    `tensorboard` is where its logs go, `tags` are the adapter's.
    """

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
    also: tuple[SubjectWish, ...] = ()
    called: str | None = None
    tensorboard: Path | None = None
    tags: tuple[str, ...] = ()
    revive: tuple[JobState, ...] = jobs.ENDED_BADLY


def request_training(ws: Workspace, wish: TrainingWish) -> Job:
    """Copies the images into the store and queues the one train job for them and this spec.

    What was queued is what is trained, whatever happens to the folder. Raises UsageError,
    NotFoundError, ArtifactError (no usable image), ConflictError (name or trigger taken).
    """
    base = ws.base(wish.base)
    spec = spec_of(wish, base)
    judge = check_with_registry(ws, wish, spec, base)
    with publishing(ws.registry.store.root):
        return _queue(ws, wish, spec, base, judge)


def _queue(
    ws: Workspace, wish: TrainingWish, spec: TrainSpec, base: Base, judge: Json | None
) -> Job:
    first = SubjectWish(wish.folder, wish.class_word, wish.called or wish.name, wish.kind)
    stored = [
        take_in(ws, one.folder, name=one.name, class_word=one.class_word, kind=one.kind)
        for one in (first, *wish.also)
    ]
    key = train_key([subject.digest for subject in stored], spec, base, wish.line, judge)
    request = _request(wish, stored, spec, base, judge)
    # The name is looked up and taken in one transaction: another process may want it as well.
    with immediate(ws.registry.db):
        if jobs.find(ws.registry.db, "train", key) is None:
            check_free(ws, request)
        if spec.method == "orthogonal":
            column = columns.assign(ws.registry.db, base.digest, key, spec.rank)
            request["spec"] = replace(spec, first_column=column).to_json()
        for subject in stored:
            sources.insert_subject(ws.registry.db, subject)
        return jobs.enqueue(
            ws.registry.db,
            "train",
            key,
            request,
            lock=f"line {base.digest} {wish.line}" if wish.line else None,
            revive=wish.revive if _still_there(ws, key) else (*wish.revive, "done"),
        )


def _request(
    wish: TrainingWish, stored: Sequence[Subject], spec: TrainSpec, base: Base, judge: Json | None
) -> Json:
    """The job's request; its first subject lies in it as it always has, the others in `also`."""
    first, *others = map(_subject_request, stored)
    return {
        **first,
        "base": reference(base),
        "base_digest": base.digest,
        "base_name": base.name,
        "spec": spec.to_json(),
        "name": wish.name,
        "line": wish.line,
        "scorer": wish.scorer,
        "identity_scorer": wish.identity_scorer,
        "folder": _plain_path(wish.folder),
        "tags": list(wish.tags),
        "also": others,
        "judge": judge,
        "tensorboard": log_folder(wish),
    }


def _subject_request(subject: Subject) -> Json:
    return {
        "subject": subject.digest,
        "images": list(subject.images),
        "set_aside": dict(subject.set_aside),
        "source": subject.source,
    }


def check_kind(kind: str) -> SubjectKind:
    """Raises UsageError for anything but object, person, style."""
    if kind not in get_args(SubjectKind):
        remedy = f"one of {', '.join(get_args(SubjectKind))}"
        raise UsageError(f"--kind cannot be {kind!r}", remedy=remedy)
    return cast(SubjectKind, kind)


def resolve(ws: Workspace, request: Json) -> Json:
    """The child's inputs; the line's head becomes the parent now, when the job is claimed.

    Raises ConflictError where another adapter has come to the name or the trigger meanwhile,
    ArtifactError where the photos were purged.
    """
    base = ws.base_of(request["base_digest"], request["base"])
    check_still_free(ws, request)
    _check_photos(ws, request)
    parent = _parent(ws, request["line"], base)
    judge = request.get("judge")
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
        "also": [
            {
                "subject": str(ws.registry.store.subject_path(other["subject"])),
                "images": other["images"],
            }
            for _, other in subjects_of(request)[1:]
        ],
        "identity_scorer": judge
        and str(find_again(judge["scorer"], judge["digest"], identity=True).path),
        "tensorboard": request.get("tensorboard"),
        "class_images": class_images.inputs(ws, request, base),
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
        # Jobs that were queued before there were rules have no tags.
        tags=tuple(request.get("tags", ())),
        source=", ".join(subject["source"] for _, subject in subjects_of(request)),
        spec=request["spec"],
    )
    result = {
        "digest": digest,
        "name": request["name"],
        **_kept(outputs),
        "samples": samples.take_in(ws, staging, outputs["samples"]),
        "job": job.id,
    }
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
    files = ("adapter", "statistics", "class_images", "samples")
    return {key: value for key, value in outputs.items() if key not in files}


def spec_of(wish: TrainingWish, base: Base) -> TrainSpec:
    """The whole spec of a wish. UsageError for a setting that method or base cannot take."""
    if wish.line is not None and not is_plain(wish.line):
        raise UsageError(f"--line {wish.line!r} is no name", remedy="write --line NAME")
    if wish.line and wish.method not in LINE_METHODS:
        raise UsageError(
            f"--line is for {', '.join(LINE_METHODS)};"
            f" {wish.method} trains every adapter by itself",
            remedy="use --method c-lora",
        )
    if wish.also and wish.method not in JOINT_METHODS:
        raise UsageError(
            f"--joint is for {', '.join(JOINT_METHODS)};"
            f" {wish.method} learns one concept after the other, on a line",
            remedy="choose one of these methods, or leave out --joint and give the --line",
        )
    also = tuple(Concept(trigger_for(o.name), o.class_word, o.kind) for o in wish.also)
    check_name(wish.name)
    spec = make_spec(
        wish.method,
        base.family,
        trigger=trigger_for(wish.called or wish.name),
        class_word=wish.class_word,
        kind=wish.kind,
        **{k: v for k, v in (wish.settings or {}).items() if v is not None},
        **({"also": also} if also else {}),
    )
    frame_sizes(grid_of(base.path), spec.resolution, buckets=spec.buckets)
    return spec


def check_with_registry(
    ws: Workspace, wish: TrainingWish, spec: TrainSpec, base: Base
) -> Json | None:
    """What ends the run by likeness: the identity scorer's reference and digest, or None.

    Raises UsageError for a line of another method and for a scorer that is missing, NotFoundError
    and ArtifactError for one that cannot be used.
    """
    _check_line(ws, wish, base)
    return _judge(ws, wish, spec, base)


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


def _judge(ws: Workspace, wish: TrainingWish, spec: TrainSpec, base: Base) -> Json | None:
    if not spec.stop_when or read_bound(spec.stop_when).figure != IDENTITY:
        return None
    ref = wish.identity_scorer or scoring.default_identity_scorer(ws, base)
    if ref is None:
        raise UsageError(
            f"stop_when {spec.stop_when}: no identity scorer is set for base {base.name!r}",
            remedy="pass --identity-scorer with a folder or Hub id, or stop by the loss",
        )
    found = find_identity_scorer(ref)
    return {"scorer": found.reference, "digest": found.digest}


def log_folder(wish: TrainingWish) -> str | None:
    """Where the run's logs go. UsageError where there is nothing to write them with."""
    if wish.tensorboard is None:
        return None
    if find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard needs the tensorboard package, which is not installed",
            remedy="pip install tensorboard",
        )
    return str(wish.tensorboard.absolute() / wish.name)


def train_key(
    subjects: Sequence[str], spec: TrainSpec, base: Base, line: str | None, judge: Json | None
) -> str:
    """What the train job of these subjects (digests) is known by.

    The same for one subject as it was when there was no more than one.
    """
    first, *others = subjects
    more = [others, judge["digest"] if judge else None] if others or judge else []
    return sha256_json([first, spec.digest(), base.digest, line, *more])


def _plain_path(folder: Path) -> str:
    """Where the folder is, as text that a database takes, whatever bytes its path is of."""
    return os.fsencode(os.path.abspath(folder)).decode(errors="backslashreplace")


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


def _check_photos(ws: Workspace, request: Json) -> None:
    for _, subject in subjects_of(request):
        folder = ws.registry.store.subject_path(subject["subject"])
        if not folder.is_dir():
            raise ArtifactError(
                f"the photos of {subject['source']} are no more in the store: {folder}",
                remedy="train from the folder itself: adreg train FOLDER",
            )


def _statistics(ws: Workspace, parent: Adapter) -> str | None:
    path = ws.registry.store.statistics_path(parent.digest)
    return str(path) if path.is_file() else None
