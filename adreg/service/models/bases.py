"""`adreg base add`: a folder, a converted single file or a pinned commit of the Hub gets a name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from adreg.bases.find import base_folder, family_and_prediction
from adreg.bases.folder import POCKET
from adreg.bases.hub import is_hub_id, snapshot
from adreg.bases.parts import components_of, files_of
from adreg.bases.remote import BASE_FILES, base_on_hub
from adreg.bases.single import is_single_file, probe_single
from adreg.domain import Base, Job, JobState, Json, check_name, slug
from adreg.errors import ArtifactError, ConflictError, NotFoundError, UsageError, not_found
from adreg.registry import bases, jobs
from adreg.registry.bases import Files, Kind, NamedBase
from adreg.registry.connection import immediate
from adreg.service.workspace import Workspace, conversion_key
from adreg.store.digest import sha256_file
from adreg.store.staging import publish_dir

_PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Addition:
    """What adding a base would do. `copied` and `downloaded` are bytes that would be written.

    `source` is the folder, the file or the repository; `revision` the commit of a repository;
    `family` and `prediction_type` are None where they are only known once it is downloaded.
    `name` is what it would be called, `asked` whether somebody said so.
    """

    kind: Kind
    source: str
    name: str
    asked: bool
    family: str | None = None
    prediction_type: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()
    copied: int = 0
    downloaded: int = 0

    def to_json(self) -> Json:
        told = asdict(self)
        del told["asked"]
        return {**told, "files": list(self.files)}


def plan_addition(
    ws: Workspace, ref: str, *, name: str | None = None, prediction_type: str | None = None
) -> Addition:
    """Says what a reference is, and what adding it would copy or download; does neither.

    Raises UsageError, NotFoundError, ConflictError (the name is pocket's), ArtifactError (no
    base), ExternalError (the Hub).
    """
    if prediction_type not in (None, *_PREDICTIONS):
        raise UsageError(
            f"no prediction type {prediction_type!r}", remedy=f"use {' or '.join(_PREDICTIONS)}"
        )
    if name is not None and check_name(name).casefold() == POCKET:
        raise ConflictError(
            f"the name {name!r} is the built-in base's", remedy="choose another with --name"
        )
    if is_single_file(ref):
        return _file(Path(ref).expanduser(), name, prediction_type)
    if prediction_type is not None:
        raise UsageError(
            "--prediction-type is for single files",
            remedy="leave it out: the scheduler of a pipeline says it",
        )
    return _hub(ref, name) if is_hub_id(ref) else _folder(ws, ref, name)


def add_base(ws: Workspace, addition: Addition) -> tuple[Base, bool]:
    """Adds a folder where it lies, or fetches a commit of the Hub; and whether it is new.

    Every byte is hashed. Raises ConflictError (name taken), ArtifactError, ExternalError.
    """
    folder = Path(addition.source)
    if addition.kind == "hub":
        folder = snapshot(f"{addition.source}@{addition.revision}", BASE_FILES).path
    folder = base_folder(str(folder))
    return _register(ws, folder, files_of(folder), addition)


def request_conversion(ws: Workspace, addition: Addition) -> Job:
    """Queues the one conversion of a single file's content; the file is hashed here.

    Converted before, the job is done already. Raises ArtifactError, ConflictError where the name
    is taken.
    """
    single = probe_single(Path(addition.source), addition.prediction_type)
    sha256 = sha256_file(single.path)
    key = conversion_key(sha256, single.prediction_type)
    made = _converted(ws, key)
    if made is None or addition.asked:
        bases.check_free(ws.registry.db, addition.name, made.digest if made else None)
    request = {
        "file": addition.source,
        "sha256": sha256,
        "config": str(single.config),
        "prediction_type": single.prediction_type,
        "dtype": single.dtype,
        "addition": {**addition.to_json(), "asked": addition.asked, "revision": sha256},
    }
    revive: tuple[JobState, ...] = (*jobs.ENDED_BADLY, "done") if made is None else ()
    return jobs.enqueue(ws.registry.db, "convert", key, request, revive=revive)


def converted_base(ws: Workspace, addition: Addition, job: Job) -> Base:
    """What a finished conversion made, under the name that is asked for now."""
    made = _converted(ws, job.key)
    if made is None:
        raise ArtifactError(f"the base of job {job.id} is gone", remedy="add it again")
    revised = replace(addition, revision=made.revision)
    return _register(ws, ws.folder_of(made), made.files, revised)[0]


def _converted(ws: Workspace, key: str) -> NamedBase | None:
    """The base that was converted under a key, where it is still there."""
    folder = ws.registry.store.base_path(key)
    return bases.with_digest(ws.registry.db, ws.hashed(folder).digest) if folder.is_dir() else None


def resolve(ws: Workspace, request: Json) -> Json:
    file = Path(request["file"])
    if not file.is_file():
        raise NotFoundError(f"no file {file}", remedy="put it back, then add it again")
    return {key: value for key, value in request.items() if key != "addition"}


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Moves the converted folder into the store and gives it its name."""
    addition = Addition(**job.request["addition"])
    folder = publish_dir(staging / outputs["base"], ws.registry.store.base_path(job.key))
    ws.hashed(folder, components_of(outputs["files"]))
    with immediate(ws.registry.db):
        base, _ = _register(ws, folder, outputs["files"], addition)
        result = {"name": base.name, "digest": base.digest, "path": str(folder)}
        jobs.conclude(ws.registry.db, job, result)


def known_base(ws: Workspace, ref: str) -> NamedBase | None:
    """What was added under a name or Hub id; None for pocket.

    Raises NotFoundError, which suggests the nearest name.
    """
    named = ws.named_base(ref)
    if named is None and ref != POCKET:
        known = [POCKET, *bases.all_names(ws.registry.db)]
        raise not_found("base", ref, known, "see what there is: adreg base list")
    return named


def _register(ws: Workspace, folder: Path, files: Files, addition: Addition) -> tuple[Base, bool]:
    """Gives the base in a folder, whose files have these digests, its name."""
    base = ws.hashed(folder, components_of(files))
    if base.name == POCKET:
        raise ConflictError("this is the built-in base", remedy="use it as it is: --base pocket")
    known = bases.with_digest(ws.registry.db, base.digest)
    name = known.name if known and not addition.asked else addition.name
    point = NamedBase(
        name=name,
        digest=base.digest,
        kind=addition.kind,
        source=addition.source,
        family=base.family,
        prediction_type=base.prediction_type,
        revision=addition.revision,
        files=files,
    )
    bases.point(ws.registry.db, base, point)
    return ws.base(name), known is None


def _file(path: Path, name: str | None, prediction_type: str | None) -> Addition:
    single = probe_single(path, prediction_type)
    return Addition(
        kind="file",
        source=str(path.resolve()),
        name=name or slug(path.stem),
        asked=name is not None,
        family=single.family,
        prediction_type=single.prediction_type,
        files=(path.name,),
        copied=single.size,
    )


def _hub(ref: str, name: str | None) -> Addition:
    revision, files = base_on_hub(ref)
    repo = ref.partition("@")[0]
    return Addition(
        kind="hub",
        source=repo,
        name=name or slug(repo.partition("/")[2]),
        asked=name is not None,
        revision=revision,
        files=tuple(file.path for file in files),
        downloaded=sum(file.size for file in files if not file.here),
    )


def _folder(ws: Workspace, ref: str, name: str | None) -> Addition:
    if ref == POCKET or (ws.named_base(ref) and not Path(ref).expanduser().is_dir()):
        raise UsageError(f"{ref!r} is a base already", remedy=f"use it: --base {ref}")
    path = base_folder(ref)
    family, prediction_type = family_and_prediction(path)
    return Addition(
        kind="folder",
        source=str(path),
        name=name or slug(path.name),
        asked=name is not None,
        family=family,
        prediction_type=prediction_type,
    )
