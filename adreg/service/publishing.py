"""`adreg publish`: an artefact and what is known of it, as the publish job takes them."""

from __future__ import annotations

from pathlib import Path

from adreg.domain import Adapter, Checkpoint, Job, Json
from adreg.errors import ArtifactError
from adreg.registry import jobs, scores, sources
from adreg.registry.connection import immediate
from adreg.service.recipes import recipe_toml
from adreg.service.workspace import Workspace


def publish_inputs(ws: Workspace, ref: str, repo: str, *, private: bool) -> Json:
    """Everything a publication needs but the token; for `adreg.jobs.publish.preview` and `run`.

    Raises NotFoundError, ArtifactError where the artefact's files are missing.
    """
    artefact = ws.registry.artefact(ref)
    if artefact.state != "present":
        merged = isinstance(artefact, Checkpoint)
        raise ArtifactError(
            f"{artefact.path}: {ref} is {artefact.state}",
            remedy=f"adreg merge --again {ref} restores it" if merged else "add it again",
        )
    db, store = ws.registry.db, ws.registry.store
    return {
        "kind": "checkpoint" if isinstance(artefact, Checkpoint) else "adapter",
        "path": str(artefact.path),
        "name": artefact.name or artefact.digest[:12],
        "repo": repo,
        "private": private,
        "endpoint": None,
        "description": _describe(ws, artefact),
        "previews": [
            {"path": str(store.blob_path(preview.blob)), "prompt": preview.prompt}
            for preview in scores.previews_of(db, artefact.digest)
        ],
    }


def request_publication(ws: Workspace, ref: str, repo: str, *, private: bool) -> Job:
    """Queues the publication of an artefact to a repository; done before, it looks again.

    Raises NotFoundError, ArtifactError.
    """
    publish_inputs(ws, ref, repo, private=private)
    artefact = ws.registry.artefact(ref)
    request = {"artefact": artefact.digest, "ref": ref, "repo": repo, "private": private}
    return jobs.enqueue(
        ws.registry.db,
        "publish",
        f"{artefact.digest} {repo}",
        request,
        revive=(*jobs.ENDED_BADLY, "done"),
    )


def resolve(ws: Workspace, request: Json) -> Json:
    return publish_inputs(ws, request["ref"], request["repo"], private=request["private"])


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    artefact = job.request["artefact"]
    with immediate(ws.registry.db):
        sources.insert_publication(
            ws.registry.db, artefact, outputs["repo"], outputs["commit"], outputs["url"]
        )
        jobs.conclude(ws.registry.db, job, {"digest": artefact, **outputs})


def _describe(ws: Workspace, artefact: Adapter | Checkpoint) -> Json:
    """The card's facts (adreg.publish.card.Description)."""
    latest = {s.name: s.value for s in scores.of(ws.registry.db, artefact.digest)}
    return {
        "digest": artefact.digest,
        "base": {
            "name": artefact.base_name or artefact_family(artefact),
            "digest": artefact.base_digest,
        },
        "concepts": [concept.to_json() for concept in artefact.concepts],
        "scores": [{"name": name, "value": value} for name, value in sorted(latest.items())],
        "recipe": _recipe(artefact),
    }


def artefact_family(artefact: Adapter | Checkpoint) -> str:
    """What is said of the base where its name is not known."""
    return artefact.family if isinstance(artefact, Adapter) else artefact.base_name


def _recipe(artefact: Adapter | Checkpoint) -> Json:
    if isinstance(artefact, Checkpoint):
        recipe = artefact.recipe
        keys = ("name", "digest", "weight")
        return {
            "method": recipe["method"],
            "adapters": [{key: entry[key] for key in keys} for entry in recipe["adapters"]],
            "renames": recipe.get("renames", []),
            "toml": recipe_toml(artefact),
        }
    steps = {"steps": artefact.spec["steps"]} if "steps" in artefact.spec else {}
    rank = {"rank": artefact.rank} if artefact.rank else {}
    return {"method": artefact.method or artefact.format, **rank, **steps}
