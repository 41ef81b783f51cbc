"""The compare job as the service sees it: one checkpoint's pictures against the adapters' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from adreg.bases.scorers import FoundScorer, find_again
from adreg.domain import Job, Json
from adreg.errors import ArtifactError
from adreg.registry import jobs
from adreg.registry.connection import immediate
from adreg.score.prompts import other_noise
from adreg.service.comparison.plan import ComparePlan, wanted
from adreg.service.generation.sampling import Wanted
from adreg.service.workspace import Workspace
from adreg.store.digest import sha256_json

_VERSION = 1  # of what the compare job measures


def request_compare(ws: Workspace, plan: ComparePlan, digest: str) -> Job:
    """Queues the one job that measures a checkpoint's pictures against the adapters' own."""
    request = _request(ws, plan, digest)
    return jobs.enqueue(ws.registry.db, "compare", _key(request), request, revive=jobs.ENDED_BADLY)


def measured(ws: Workspace, plan: ComparePlan, digest: str) -> bool:
    """Whether that was done before."""
    job = jobs.find(ws.registry.db, "compare", _key(_request(ws, plan, digest)))
    return job is not None and job.state == "done"


def resolve(ws: Workspace, request: Json) -> Json:
    """Raises ArtifactError where a picture is gone."""

    def found(name: str) -> str:
        path = ws.settings.home / name
        if not path.is_file():
            raise ArtifactError(f"no picture {path} any more", remedy="compare again")
        return str(path)

    return {
        "concepts": [
            {k: v if k in ("trigger", "texts") else [*map(found, v)] for k, v in concept.items()}
            for concept in request["concepts"]
        ],
        "ordinary": {
            k: v if k == "prompts" else [*map(found, v)] for k, v in request["ordinary"].items()
        },
        "placed": {
            **request["placed"],
            "pictures": [*map(found, request["placed"]["pictures"])],
        },
        "scorer": _again(request["scorer"], identity=False),
        "identity_scorer": _again(request["identity_scorer"], identity=True),
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    with immediate(ws.registry.db):
        jobs.conclude(ws.registry.db, job, outputs)


def _request(ws: Workspace, plan: ComparePlan, digest: str) -> Json:
    return {
        "version": _VERSION,
        "concepts": _concepts(ws, plan, digest),
        "ordinary": _ordinary(ws, plan, digest),
        "placed": _placed(ws, plan, digest),
        "scorer": _told(plan.scorer),
        "identity_scorer": _told(plan.identity),
    }


def _key(request: Json) -> str:
    """The digest of a measurement's inputs: the names of pictures and photos say what is in them,
    and of a scorer it is the digest that counts."""
    scorers = [s and s["digest"] for s in (request["scorer"], request["identity_scorer"])]
    return sha256_json({**request, "scorer": scorers[0], "identity_scorer": scorers[1]})


def _told(scorer: FoundScorer | None) -> Json | None:
    return None if scorer is None else {"reference": scorer.reference, "digest": scorer.digest}


def _again(told: Json | None, *, identity: bool) -> str | None:
    if told is None:
        return None
    return str(find_again(told["reference"], told["digest"], identity=identity).path)


def _concepts(ws: Workspace, plan: ComparePlan, digest: str) -> list[Json]:
    count = plan.pictures
    base, merged = plan.by_base().files(ws), plan.by_checkpoint(digest).files(ws)

    def of(files: Mapping[Wanted, Path], asks: Sequence[Wanted]) -> list[str]:
        return [_relative(ws, files[ask]) for ask in asks]

    return [
        {
            "trigger": concept.merged.trigger,
            "photos": [_relative(ws, photo) for photo in concept.photos],
            "texts": [prompt for prompt, _ in concept.plain(count)],
            "base": of(base, concept.plain(count)),
            "alone": of(plan.by_adapter(concept.adapter).files(ws), concept.alone(count)),
            "merged": of(merged, concept.together(count)),
        }
        for concept in plan.concepts
    ]


def _ordinary(ws: Workspace, plan: ComparePlan, digest: str) -> Json:
    base, merged = plan.by_base().files(ws), plan.by_checkpoint(digest).files(ws)
    asks, moved = wanted(plan.ordinary), wanted(other_noise(plan.ordinary))
    return {
        "prompts": [prompt for prompt, _ in asks],
        "base": [_relative(ws, base[ask]) for ask in asks],
        "again": [_relative(ws, base[ask]) for ask in moved],
        "merged": [_relative(ws, merged[ask]) for ask in asks],
    }


def _placed(ws: Workspace, plan: ComparePlan, digest: str) -> Json:
    shooting = plan.by_checkpoint(digest)
    return {
        "pairs": [asdict(pair) for pair in shooting.pairs],
        "pictures": [_relative(ws, file) for file in shooting.pair_files(ws)],
        "steps": plan.steps,
        "guidance": plan.guidance,
    }


def _relative(ws: Workspace, path: Path) -> str:
    """Below the home: the name says what decided the picture, wherever the home lies."""
    return str(path.relative_to(ws.settings.home))
