"""The stable JSON objects of adreg: what `--json` prints, documented in docs/json.md."""

from __future__ import annotations

from collections.abc import Sequence

from adreg.domain import Adapter, Checkpoint, Concept, Job, Json, Score


def adapter_view(adapter: Adapter, scores: Sequence[Score]) -> Json:
    """An adapter; `scores` maps each score's name to its latest value."""
    return {
        "name": adapter.name,
        "digest": adapter.digest,
        "kind": adapter.concepts[0].kind if adapter.concepts else "object",
        "base": adapter.base_name,
        "base_digest": adapter.base_digest,
        "family": adapter.family,
        "triggers": adapter.triggers,
        "class": _class_of(adapter.concepts),
        "concepts": concepts_view(adapter.concepts),
        "method": adapter.method,
        "rank": adapter.rank,
        "modules": adapter.modules,
        "state": adapter.state,
        "scores": {score.name: score.value for score in scores},
        "tags": list(adapter.tags),
        "line": adapter.line,
        "continued_from": adapter.continued_from,
        "format": adapter.format,
        "source": adapter.source,
        "path": str(adapter.path),
        "created": adapter.created,
    }


def checkpoint_view(checkpoint: Checkpoint) -> Json:
    return {
        "name": checkpoint.name,
        "digest": checkpoint.digest,
        "method": checkpoint.method,
        "adapters": list(checkpoint.adapters),
        "base": checkpoint.base_name,
        "base_digest": checkpoint.base_digest,
        "triggers": [concept.trigger for concept in checkpoint.concepts],
        "concepts": concepts_view(checkpoint.concepts),
        "recipe": checkpoint.recipe,
        "state": checkpoint.state,
        "path": str(checkpoint.path),
        "created": checkpoint.created,
    }


def job_view(job: Job) -> Json:
    return {
        "id": job.id,
        "kind": job.kind,
        "key": job.key,
        "state": job.state,
        "attempt": job.attempt,
        "failures": job.failures,
        "error": job.error,
        "result": job.result,
        "worker": job.worker,
        "lost": _lost(job),
        "created": job.created,
        "updated": job.updated,
    }


def _lost(job: Job) -> bool:
    if job.state != "running":
        return False
    from adreg.service.daemon.status import lost  # here, since most listings need it not

    return lost(job)


def score_view(score: Score) -> Json:
    return {
        "name": score.name,
        "value": score.value,
        "interval": score.interval,
        "artefact": score.artefact,
        "base": score.base,
        "scorer": score.scorer,
        "inputs": score.inputs,
        "details": score.details,
        "created": score.created,
    }


def concepts_view(concepts: Sequence[Concept]) -> list[Json]:
    return [{"trigger": c.trigger, "class": c.class_word, "kind": c.kind} for c in concepts]


def _class_of(concepts: Sequence[Concept]) -> str | None:
    """The class word where there is one concept (or one class); else None."""
    words = sorted({concept.class_word for concept in concepts})
    return words[0] if len(words) == 1 and words[0] else None
