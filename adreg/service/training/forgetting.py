"""What a continual line has kept of its concepts: measured in a job, with all its pictures kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adreg.bases.scorers import find_again
from adreg.domain import Adapter, Job, Json, Score
from adreg.errors import ArtifactError
from adreg.registry import adapters, jobs, scores
from adreg.registry.connection import immediate
from adreg.score.prompts import concept_asks
from adreg.score.spec import ScoreSpec
from adreg.service.scores.scoring import TOLD_APART, inputs_key, photos_of
from adreg.service.workspace import Workspace

NAME, A_MMD, F_MMD = "forgetting/1", "a-mmd/1", "f-mmd/1"


def follow(ws: Workspace, scored: Json) -> Job | None:
    """What follows from a score job's request: the one job that measures the line up to that
    adapter, with the same scorers, queued.

    None where the adapter is of no line, or where its likeness cannot be measured: without an
    identity scorer, or without its photos in this registry.
    """
    adapter = ws.registry.adapter(scored["adapter"])
    if adapter.line is None or not scored.get("identity_scorer") or not photos_of(ws, adapter):
        return None
    history = adapters.history(ws.registry.db, ws.registry.store, adapter)
    request = {**scored, "tasks": [task.digest for task in history]}
    key = inputs_key(ws, request, ("tasks", *TOLD_APART))
    return jobs.enqueue(ws.registry.db, "forgetting", key, request, revive=jobs.ENDED_BADLY)


def resolve(ws: Workspace, request: Json) -> Json:
    base = ws.base_of(request["base_digest"], request["base"])
    tasks = [ws.registry.adapter(digest) for digest in request["tasks"]]
    _check_present(tasks)
    photos = photos_of(ws, tasks[-1])
    triggers = [trigger for trigger in tasks[-1].triggers if trigger in photos]
    spec = ScoreSpec.from_json(request["spec"])
    known = _sampled_before(ws, request)
    digest = request["identity_scorer_digest"]
    likeness = find_again(request["identity_scorer"], digest, identity=True)
    return {
        "base": str(base.path),
        "triggers": triggers,
        "photos": photos,
        "tasks": [
            {
                "digest": task.digest,
                "path": str(task.path),
                "asks": [
                    {**ask, "path": known.get((task.digest, ask["prompt"], ask["seed"]))}
                    for ask in _asks(task, triggers, spec)
                ],
            }
            for task in tasks
        ],
        "scorer": str(find_again(request["scorer"], request["scorer_digest"]).path),
        "identity_scorer": str(likeness.path),
        "spec": request["spec"],
    }


def _check_present(tasks: Sequence[Adapter]) -> None:
    gone = [task for task in tasks if task.state != "present"]
    if gone:
        raise ArtifactError(
            f"{gone[0].path}: the adapter's file is {gone[0].state}",
            remedy="add the file again",
        )


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    """Writes the scores of the line's last adapter; the job's result keeps all the pictures."""
    request = job.request
    pictures = [
        {
            **{key: picture[key] for key in ("task", "trigger", "prompt", "seed")},
            "blob": ws.registry.store.add_blob(Path(picture["path"])),
        }
        for picture in outputs["pictures"]
    ]
    with immediate(ws.registry.db):
        for found in outputs["scores"]:
            scores.insert(
                ws.registry.db,
                Score(artefact=request["adapter"], base=request["base_digest"], **found),
            )
        values = {found["name"]: found["value"] for found in outputs["scores"]}
        result = {"digest": request["adapter"], "scores": values, "pictures": pictures}
        jobs.conclude(ws.registry.db, job, result)


def pictures_of(ws: Workspace, adapter: Adapter) -> list[Json]:
    """What the newest measurement of a line up to `adapter` saw: [{task, trigger, prompt, seed,
    blob}]; none where it was not measured."""
    done = jobs.done(ws.registry.db, "forgetting")
    found = [job for job in done if job.request["adapter"] == adapter.digest]
    return (found[-1].result or {})["pictures"] if found else []


def _sampled_before(ws: Workspace, request: Json) -> dict[tuple[str, str, int], str]:
    """Task, prompt and seed to the path of a picture that was sampled in the same way."""
    how = ("base_digest", "spec")
    same = [
        job
        for job in jobs.done(ws.registry.db, "forgetting")
        if all(job.request[name] == request[name] for name in how)
    ]
    found = {}
    for job in same:
        for picture in (job.result or {})["pictures"]:
            path = ws.registry.store.blob_path(picture["blob"])
            if path.is_file():
                found[picture["task"], picture["prompt"], picture["seed"]] = str(path)
    return found


def _asks(task: Adapter, triggers: Sequence[str], spec: ScoreSpec) -> list[Json]:
    """Every concept in the same places with the same noise."""
    known = [concept for concept in task.concepts if concept.trigger in triggers]
    return [
        {"trigger": ask.trigger, "prompt": ask.prompt, "seed": ask.seed}
        for concept in known
        for ask in concept_asks([concept], spec.concept_prompts, spec.seeds, spec.seed, task.method)
    ]
