"""`adreg score`: what an adapter does to its base, measured in a job and kept with all inputs."""

from __future__ import annotations

from pathlib import Path

from adreg.bases.find import POCKET, find_scorer, reference
from adreg.domain import Adapter, Base, Job, Json, Score
from adreg.errors import ArtifactError, UsageError
from adreg.registry import jobs, scores
from adreg.registry.connection import immediate
from adreg.score.spec import score_spec
from adreg.service.adding import check_fits
from adreg.service.generating import base_ref_of
from adreg.service.pictures import take_in
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json


def request_score(
    ws: Workspace, ref: str, *, base_ref: str | None = None, scorer: str | None = None
) -> Job:
    """Queues the one score job of an adapter, a scorer and the current score definitions.

    Measured with the same inputs before, the job is done already. Raises NotFoundError,
    UsageError (no scorer for this base, or the adapter has no trigger), ArtifactError.
    """
    adapter = ws.registry.adapter(ref)
    base = ws.base(base_ref or base_ref_of(ws, [adapter]))
    return enqueue_score(ws, adapter, base, scorer or default_scorer(ws, base))


def default_scorer(ws: Workspace, base: Base) -> str:
    """The scorer of the settings, else pocket's own for pocket.

    Raises UsageError for another base: pocket's scorer has seen nothing but drawings.
    """
    if ws.settings.scorer:
        return ws.settings.scorer
    if base.name != POCKET:
        raise UsageError(
            f"no scorer is set for base {base.name!r}",
            remedy="pass --scorer FOLDER with a transformers CLIP (or --scorer pocket)",
        )
    return POCKET


def enqueue_score(ws: Workspace, adapter: Adapter, base: Base, scorer: str) -> Job:
    """The score job, queued. Raises what request_score raises."""
    if not adapter.concepts:
        raise UsageError(
            f"adapter {adapter.name!r} has no trigger to score by",
            remedy="add it again with --trigger and --class",
        )
    check_fits(adapter, base)
    folder, scorer_digest = find_scorer(scorer)
    spec = score_spec(base.family)
    request = {
        "adapter": adapter.digest,
        "base": reference(base),
        "base_digest": base.digest,
        "base_name": base.name,
        "scorer": str(folder),
        "scorer_digest": scorer_digest,
        "spec": spec.to_json(),
    }
    key = sha256_json([adapter.digest, base.digest, scorer_digest, spec.to_json()])
    return jobs.enqueue(ws.registry.db, "score", key, request, revive=jobs.ENDED_BADLY)


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
        "scorer": request["scorer"],
        "spec": request["spec"],
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Writes scores and previews; the pictures go into the store first."""
    request = job.request
    pictures = take_in(ws, request["adapter"], staging, outputs["previews"])
    values = {score["name"]: score["value"] for score in outputs["scores"]}
    with immediate(ws.registry.db):
        for score in outputs["scores"]:
            scores.insert(
                ws.registry.db,
                Score(
                    name=score["name"],
                    value=score["value"],
                    artefact=request["adapter"],
                    base=request["base_digest"],
                    scorer=score["scorer"],
                    inputs=score["inputs"],
                    details=score["details"],
                ),
            )
        for picture in pictures:
            scores.insert_preview(ws.registry.db, picture)
        jobs.conclude(ws.registry.db, job, {"digest": request["adapter"], "scores": values})
