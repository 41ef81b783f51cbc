"""`adreg score`: what an adapter does to its base, measured in a job and kept with all inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adreg.bases.find import reference
from adreg.bases.folder import POCKET
from adreg.bases.scorers import find_again, find_identity_scorer, find_scorer
from adreg.domain import Adapter, Base, Job, Json, Score
from adreg.errors import ArtifactError, UsageError
from adreg.registry import adapters, jobs, scores
from adreg.registry.connection import immediate
from adreg.score.spec import score_spec
from adreg.service.generation.generating import base_ref_of
from adreg.service.models.adding import check_fits
from adreg.service.other_kinds import told_apart
from adreg.service.pictures import take_in
from adreg.service.subjects import subjects_of
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json

# What tells measurements of an adapter, or of a line, apart.
TOLD_APART = ("base_digest", "scorer_digest", "identity_scorer_digest", "spec")


def request_score(
    ws: Workspace,
    ref: str,
    *,
    base_ref: str | None = None,
    scorer: str | None = None,
    identity_scorer: str | None = None,
) -> Job:
    """Queues the one score job of an adapter, its scorers and the current score definitions.

    Measured with the same inputs before, the job is done already. Raises NotFoundError,
    UsageError (no scorer for this base, or the adapter has no trigger), ArtifactError,
    ExternalError (a Hub that cannot be read).
    """
    with told_apart(ws, ref):
        adapter = ws.registry.adapter(ref)
    base = ws.base(base_ref or base_ref_of(ws, [adapter]))
    wanted = score_request(ws, adapter, base, scorer or default_scorer(ws, base), identity_scorer)
    return enqueue(ws, wanted)


def default_scorer(ws: Workspace, base: Base) -> str:
    """The scorer of the settings, else pocket's own for pocket.

    Raises UsageError for another base: pocket's scorer has seen nothing but drawings.
    """
    if ws.settings.scorer:
        return ws.settings.scorer
    if base.name != POCKET:
        raise UsageError(
            f"no scorer is set for base {base.name!r}",
            remedy="pass --scorer with the folder or Hub id of a transformers CLIP or SigLIP"
            " (or --scorer pocket)",
        )
    return POCKET


def default_identity_scorer(ws: Workspace, base: Base) -> str | None:
    """The identity scorer of the settings, else pocket's own for pocket; None for another base."""
    return ws.settings.identity_scorer or (POCKET if base.name == POCKET else None)


def score_request(
    ws: Workspace,
    adapter: Adapter,
    base: Base,
    scorer: str,
    identity_scorer: str | None = None,
) -> Json:
    """What a score job is asked to do; without an identity scorer, with the default one.

    Raises what request_score raises.
    """
    if not adapter.concepts:
        raise UsageError(
            f"adapter {adapter.name!r} has no trigger to score by",
            remedy="add it again with --trigger and --class",
        )
    check_fits(adapter, base)
    return {"adapter": adapter.digest, **measured_by(ws, base, scorer, identity_scorer)}


def measured_by(ws: Workspace, base: Base, scorer: str, identity_scorer: str | None) -> Json:
    """Base, scorers and the current score definitions, as a request has them; without an identity
    scorer, with the default one."""
    found = find_scorer(scorer)
    identity_ref = identity_scorer or default_identity_scorer(ws, base)
    identity = find_identity_scorer(identity_ref) if identity_ref else None
    return {
        "base": reference(base),
        "base_digest": base.digest,
        "base_name": base.name,
        "scorer": found.reference,
        "scorer_digest": found.digest,
        "identity_scorer": identity.reference if identity else None,
        "identity_scorer_digest": identity.digest if identity else None,
        "spec": score_spec(base.family).to_json(),
    }


def enqueue(ws: Workspace, request: Json) -> Job:
    """The one score job of a request, queued."""
    key = inputs_key(ws, request, ("adapter", *TOLD_APART))
    return jobs.enqueue(ws.registry.db, "score", key, request, revive=jobs.ENDED_BADLY)


def inputs_key(ws: Workspace, request: Json, fields: Sequence[str]) -> str:
    """Digest of all that a measurement of a request's adapter depends on: those fields, what its
    concepts are called, and the photos that are here."""
    adapter = ws.registry.adapter(request["adapter"])
    photos = {
        # Below the store: the same wherever that lies.
        trigger: [str(Path(path).relative_to(ws.registry.store.root)) for path in paths]
        for trigger, paths in photos_of(ws, adapter).items()
    }
    concepts = [concept.to_json() for concept in adapter.concepts]
    return sha256_json([*(request[field] for field in fields), concepts, photos])


def resolve(ws: Workspace, request: Json) -> Json:
    adapter = ws.registry.adapter(request["adapter"])
    if adapter.state != "present":
        raise ArtifactError(f"{adapter.path}: the adapter's file is {adapter.state}")
    base = ws.base_of(request["base_digest"], request["base"])
    return {
        "base": str(base.path),
        "base_name": base.name,
        "adapter": str(adapter.path),
        "concepts": [concept.to_json() for concept in adapter.concepts],
        "scorer": str(find_again(request["scorer"], request["scorer_digest"]).path),
        "identity": identity_inputs(request, photos_of(ws, adapter), "the adapter"),
        "spec": request["spec"],
    }


def identity_inputs(request: Json, photos: Mapping[str, list[str]], whose: str) -> Json:
    """The identity scorer and the photos of each trigger; or why likeness is not measured.

    `whose` are the photos, in words.
    """
    # Jobs that were queued before there were identity scorers name none.
    if request.get("identity_scorer") is None:
        return {
            "skipped": f"no identity scorer is set for base {request['base_name']!r};"
            " name one with --identity-scorer"
        }
    if not photos:
        return {"skipped": f"the photos that {whose} learnt from are not in this registry"}
    digest = request["identity_scorer_digest"]
    found = find_again(request["identity_scorer"], digest, identity=True)
    return {"scorer": str(found.path), "photos": photos}


def photos_of(ws: Workspace, adapter: Adapter) -> dict[str, list[str]]:
    """Trigger to the photos it was trained on here, over the adapter and what it goes on from."""
    db, store = ws.registry.db, ws.registry.store
    found: dict[str, list[str]] = {}
    for one in adapters.history(db, store, adapter)[::-1]:
        job = jobs.trained(db, one.digest)
        if job is not None:
            for trigger, subject in subjects_of(job.request):
                folder = store.subject_path(subject["subject"])
                paths = [folder / name for name in subject["images"]]
                if all(path.is_file() for path in paths):
                    found.setdefault(trigger, [str(path) for path in paths])
    return {trigger: found[trigger] for trigger in adapter.triggers if trigger in found}


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    keep(ws, job, job.request["adapter"], staging, outputs)


def keep(ws: Workspace, job: Job, artefact: str, staging: Path, outputs: Json) -> None:
    """Writes an artefact's scores and previews; the pictures go into the store first."""
    pictures = take_in(ws, artefact, staging, outputs["previews"])
    values = {score["name"]: score["value"] for score in outputs["scores"]}
    with immediate(ws.registry.db):
        for score in outputs["scores"]:
            scores.insert(
                ws.registry.db,
                Score(
                    name=score["name"],
                    value=score["value"],
                    artefact=artefact,
                    base=job.request["base_digest"],
                    scorer=score["scorer"],
                    inputs=score["inputs"],
                    details=score["details"],
                ),
            )
        for picture in pictures:
            scores.insert_preview(ws.registry.db, picture)
        result = {
            "digest": artefact,
            "scores": values,
            "skipped": outputs["skipped"],
        }
        jobs.conclude(ws.registry.db, job, result)
