"""`adreg merge`: adapters become one checkpoint, planned first, verified, kept by content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adreg.bases.find import reference
from adreg.domain import Base, Checkpoint, Concept, Job, JobState, Json, check_name
from adreg.errors import UsageError
from adreg.merge.plan import Plan, plan_merge
from adreg.merge.recipe import AdapterRef, MergeRecipe
from adreg.merge.recipe_checks import DTYPES
from adreg.merge.recipe_defaults import new_recipe
from adreg.registry import checkpoints, jobs, names, scores
from adreg.registry.connection import immediate
from adreg.service.generation.generating import base_ref_of, parse_weighted
from adreg.service.models.adding import check_fits
from adreg.service.pictures import take_in
from adreg.service.workspace import Workspace
from adreg.store.digest import tree_digest
from adreg.store.guard import taking_out
from adreg.store.staging import publish_dir

_LIVE: tuple[JobState, ...] = ("queued", "running")


def make_recipe(
    ws: Workspace,
    refs: Sequence[str],
    method: str,
    base_ref: str | None = None,
    refine_steps: int | None = None,
    settings: Mapping[str, float] | None = None,
    rounds: int = 1,
    keep_prior: float | None = None,
    dtype: str = "fp32",
    shard_size: int | None = None,
) -> tuple[MergeRecipe, Base]:
    """The recipe for adapters named "rex" or "rex:0.8", on the base the first was trained on.

    `dtype` is fp32, fp16 or bf16, `shard_size` in bytes. Raises NotFoundError, UsageError,
    ArtifactError (an adapter's file is missing, or not for the base).
    """
    if dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}", remedy=f"one of {', '.join(DTYPES)}")
    chosen = [parse_weighted(ws, ref) for ref in refs]
    base = ws.base(base_ref or base_ref_of(ws, [adapter for adapter, _ in chosen]))
    for adapter, _ in chosen:
        check_fits(adapter, base)
    references = [
        AdapterRef(adapter.name or adapter.digest[:12], adapter.digest, weight, adapter.concepts)
        for adapter, weight in chosen
    ]
    recipe = new_recipe(
        base,
        references,
        method,
        refine_steps=refine_steps,
        settings=settings,
        rounds=rounds,
        keep_prior=keep_prior,
        dtype=DTYPES[dtype],
        shard_size=shard_size,
    )
    return recipe, base


def plan(ws: Workspace, recipe: MergeRecipe, base: Base) -> Plan:
    """What the merge will do, from headers alone; every adapter is held against the base.

    Raises ArtifactError naming file, key and both shapes where one is for another base.
    """
    return plan_merge(base, _files(ws, recipe), recipe)


def request_merge(ws: Workspace, recipe: MergeRecipe, base: Base, name: str | None) -> Job:
    """Queues the one merge job of a recipe, after its plan was made and its name found free.

    A checkpoint without a name is for who takes it away again (`drop_unnamed`). Raises what `plan`
    raises, ConflictError where the name is taken.
    """
    plan(ws, recipe, base)
    key = recipe.digest()
    made = made_by(ws, key)
    if name is not None:
        names.check_free(ws.registry.db, check_name(name), made.digest if made else None)
        if made is not None:
            # The recipe has been carried out already: a further name for what there is.
            give_name(ws, name, made.digest)
    request = {
        "recipe": recipe.to_json(),
        "base": reference(base),
        "base_digest": base.digest,
        "name": name,
    }
    revive: tuple[JobState, ...] = jobs.ENDED_BADLY
    if made is None or made.state != "present":
        revive = (*revive, "done")
    return jobs.enqueue(ws.registry.db, "merge", key, request, revive=revive)


def resolve(ws: Workspace, request: Json) -> Json:
    base = ws.base_of(request["base_digest"], request["base"])
    adapters = [ws.registry.adapter(entry["digest"]) for entry in request["recipe"]["adapters"]]
    for adapter in adapters:
        check_fits(adapter, base)
    weights = {entry["digest"]: entry["weight"] for entry in request["recipe"]["adapters"]}
    return {
        "base": str(base.path),
        "base_name": base.name,
        "recipe": request["recipe"],
        "adapters": [
            {
                "name": adapter.name,
                "digest": adapter.digest,
                "path": str(adapter.path),
                "weight": weights[adapter.digest],
            }
            for adapter in adapters
        ],
        # Nobody will look up a checkpoint without a name, and what wants it makes pictures itself.
        "previews": request.get("name") is not None,
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Moves the verified folder and its previews into the store and writes their rows."""
    folder = staging / outputs["checkpoint"]
    digest = tree_digest(folder)
    path = publish_dir(folder, ws.registry.store.checkpoint_path(digest))
    recipe, request = job.request["recipe"], job.request
    checkpoint = Checkpoint(
        digest=digest,
        path=path,
        method=recipe["method"],
        adapters=tuple(entry["name"] for entry in recipe["adapters"]),
        base_digest=request["base_digest"],
        base_name=recipe["base"]["name"],
        concepts=tuple(Concept(**concept) for concept in outputs["concepts"]),
        recipe={**recipe, "renames": outputs["report"].get("renames", [])},
    )
    pictures = take_in(ws, digest, staging, outputs["previews"])
    result = {"digest": digest, "name": request["name"], "report": outputs["report"]}
    with immediate(ws.registry.db):
        checkpoints.insert(ws.registry.db, checkpoint)
        if request["name"] is not None:
            names.point(ws.registry.db, request["name"], "checkpoint", digest)
        for picture in pictures:
            scores.insert_preview(ws.registry.db, picture)
        jobs.conclude(ws.registry.db, job, result)


def carried_out(ws: Workspace, recipe: MergeRecipe) -> Job | None:
    """The job that has merged this recipe, whether its checkpoint is still there or not."""
    job = jobs.find(ws.registry.db, "merge", recipe.digest())
    return job if job is not None and job.state == "done" else None


def last_merge(ws: Workspace, base: Base, method: str) -> float | None:
    """Seconds that the latest merge by a method into this base took; None where there was none."""
    alike = [
        job.result["report"]["seconds"]
        for job in jobs.done(ws.registry.db, "merge")
        if job.result is not None
        and job.request["base_digest"] == base.digest
        and job.result["report"]["method"] == method
    ]
    return sum(alike[-1].values()) if alike else None


def give_name(ws: Workspace, name: str, digest: str) -> None:
    """A further name for a checkpoint; its job may have been queued under another, or none.

    Raises ConflictError where the name is taken.
    """
    names.point(ws.registry.db, name, "checkpoint", digest)


def drop_unnamed(ws: Workspace, digest: str) -> None:
    """Takes a checkpoint out of registry and store where it has no name and no job wants it.

    The same recipe makes it again. Its row goes first: none may point at a folder that is gone.
    """
    # Alone with the store: the same merge may be about to write its row again.
    with taking_out(ws.registry.store.root) as trash:
        with immediate(ws.registry.db):
            live = [job for job in jobs.listing(ws.registry.db) if job.state in _LIVE]
            wanted = any(digest in job.request.values() for job in live)
            dropped = not wanted and checkpoints.remove_unnamed(ws.registry.db, digest)
        if dropped:
            trash.take(ws.registry.store.checkpoint_path(digest))


def _files(ws: Workspace, recipe: MergeRecipe) -> list[tuple[str, Path]]:
    store = ws.registry.store
    return [(ref.name, store.adapter_path(ref.digest)) for ref in recipe.adapters]


def made_by(ws: Workspace, key: str) -> Checkpoint | None:
    """What the merge job of that key, a recipe's digest, has made."""
    job = jobs.find(ws.registry.db, "merge", key)
    if job is None or job.state != "done" or job.result is None:
        return None
    return checkpoints.by_digest(ws.registry.db, ws.registry.store, job.result["digest"])
