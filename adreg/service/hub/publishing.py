"""`adreg publish`: an artefact and what is known of it, as the publish job takes them."""

from __future__ import annotations

import math
from pathlib import Path

from adreg.domain import Adapter, Checkpoint, Job, Json
from adreg.errors import ArtifactError
from adreg.formats.spelling import token_keys
from adreg.merge.export.plan import plan_export
from adreg.merge.export.source import Source, read_source
from adreg.merge.export.spec import ExportSpec
from adreg.publish import prepare
from adreg.publish.client import check_repo
from adreg.publish.files import LORA_FILE, LoraFiles, planned_lora
from adreg.publish.format import check_format
from adreg.registry import jobs, scores, sources
from adreg.registry.connection import immediate
from adreg.service.checkpoints import restored_by
from adreg.service.hub.describing import describe
from adreg.service.merges.exporting import base_of_lora, models_for_job
from adreg.service.workspace import Workspace

_FP32 = 4


def publish_inputs(
    ws: Workspace,
    ref: str,
    repo: str,
    *,
    private: bool,
    form: str | None = None,
    rank: int | None = None,
    replace: bool = False,
) -> Json:
    """Everything a publication needs but the token; for `adreg.publish.prepare` and the job.

    `form` is what `--format` says, `rank` what a checkpoint's LoRA is cut to, `replace` whether
    files there that are not adreg's may be lost. Raises NotFoundError, UsageError (no repository's
    id, what cannot be published so), ArtifactError where the artefact's files are missing, or the
    base that its LoRA lies on.
    """
    artefact = _present(ws, ref)
    check_repo(repo)
    checkpoint = isinstance(artefact, Checkpoint)
    store = ws.registry.store
    asked = check_format(form, rank, ref, checkpoint=checkpoint)
    return {
        "kind": "checkpoint" if checkpoint else "adapter",
        "format": asked,
        "path": str(artefact.path),
        "name": artefact.name or artefact.digest[:12],
        "repo": repo,
        "private": private,
        "replace": replace,
        "endpoint": None,
        "description": describe(ws, artefact),
        "previews": [
            {"path": str(store.blob_path(preview.blob)), "prompt": preview.prompt}
            for preview in scores.previews_of(ws.registry.db, artefact.digest)
        ],
        "lora": _lora(ws, artefact, rank) if asked != "diffusers" else None,
    }


def preview(ws: Workspace, inputs: Json) -> Json:
    """What those inputs would publish (`adreg.publish.prepare.preview`); sends nothing."""
    return prepare.preview(inputs, _planned(ws, inputs) if inputs["lora"] else None)


def card(ws: Workspace, inputs: Json) -> str:
    """The model card that those inputs would publish; asks nobody. Raises what preparing raises."""
    lora = _planned(ws, inputs) if inputs["lora"] else None
    return prepare.prepare(inputs, lora).card


def job_key(artefact: str, repo: str) -> str:
    """What tells the one publication of an artefact's digest to a repository."""
    return f"{artefact} {repo}"


def request_publication(
    ws: Workspace,
    ref: str,
    repo: str,
    *,
    private: bool,
    form: str | None = None,
    rank: int | None = None,
    replace: bool = False,
) -> Job:
    """Queues the publication of an artefact to a repository; done before, it looks again.

    Where it is queued already, it becomes what was asked for last.

    Raises what `publish_inputs` raises.
    """
    publish_inputs(ws, ref, repo, private=private, form=form, rank=rank)
    artefact = ws.registry.artefact(ref)
    request = {
        "artefact": artefact.digest,
        "repo": repo,
        "private": private,
        "format": form,
        "rank": rank,
        "replace": replace,
    }
    return jobs.enqueue(
        ws.registry.db,
        "publish",
        job_key(artefact.digest, repo),
        request,
        revive=(*jobs.ENDED_BADLY, "done", "queued"),
    )


def resolve(ws: Workspace, request: Json) -> Json:
    # By its digest: a name may have been given to another artefact since.
    return publish_inputs(
        ws,
        request["artefact"],
        request["repo"],
        private=request["private"],
        form=request.get("format"),
        rank=request.get("rank"),
        replace=request.get("replace", False),
    )


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    artefact = job.request["artefact"]
    with immediate(ws.registry.db):
        publication = sources.Publication(
            artefact=artefact,
            repo=outputs["repo"],
            commit=outputs["commit"],
            url=outputs["url"],
            version=outputs["version"],
            format=outputs["format"],
        )
        sources.insert_publication(ws.registry.db, publication)
        jobs.conclude(ws.registry.db, job, {"digest": artefact, **outputs})


def _present(ws: Workspace, ref: str) -> Adapter | Checkpoint:
    artefact = ws.registry.artefact(ref)
    if artefact.state != "present":
        raise ArtifactError(
            f"{artefact.path}: {ref} is {artefact.state}",
            remedy=restored_by(ws, artefact)
            if isinstance(artefact, Checkpoint)
            else "add it again",
        )
    return artefact


def _lora(ws: Workspace, artefact: Adapter | Checkpoint, rank: int | None) -> Json | None:
    """What the job cuts a checkpoint's LoRA from; an adapter is one."""
    if isinstance(artefact, Adapter):
        return None
    base = base_of_lora(ws, artefact)
    return {"rank": rank, **models_for_job(artefact, artefact.name, base)}


def _planned(ws: Workspace, inputs: Json) -> LoraFiles:
    """The files of the LoRA that the job would cut, by headers and what differs from the base."""
    checkpoint = ws.registry.checkpoint(inputs["lora"]["checkpoint"]["digest"])
    source = read_source(checkpoint.path, [c.trigger for c in checkpoint.concepts])
    spec = ExportSpec("lora", rank=inputs["lora"]["rank"])
    plan = plan_export(source, spec, Path(LORA_FILE), base_of_lora(ws, checkpoint))
    tokens = _tokens(source)
    return planned_lora(plan.files[0].keys - len(tokens), plan.bytes, tokens)


def _tokens(source: Source) -> dict[str, int]:
    """The keys that the LoRA has for its embeddings, and the bytes of each."""
    widths = [
        math.prod(source.tensors[name][key].tensors[key].shape[1:])
        for name, key in source.tables.items()
    ]
    return {
        key: len(ids) * width * _FP32
        for trigger, ids in source.learned.items()
        for key, width in zip(token_keys(trigger, len(widths)), widths, strict=True)
    }
