"""`adreg generate`: pictures with chosen adapters attached, or from a checkpoint."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from adreg.bases.find import reference
from adreg.domain import Adapter, Checkpoint, Job, Json
from adreg.errors import UsageError
from adreg.registry import jobs
from adreg.registry.bases import base_reference
from adreg.registry.connection import immediate
from adreg.service.checkpoints import present_checkpoint
from adreg.service.generation.placing import parse_regions
from adreg.service.models.adding import check_fits
from adreg.service.origins import of_adapters, of_checkpoint
from adreg.service.other_kinds import told_apart
from adreg.service.outputs import check_file, check_folder
from adreg.service.workspace import Workspace
from adreg.store.staging import writing

_TOKEN = re.compile(r"<[^<>\s]+>")


def request_pictures(
    ws: Workspace,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    adapters: Sequence[str] = (),
    checkpoint: str | None = None,
    base: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    regions: Sequence[str] = (),
    out: Path,
) -> Job:
    """Queues a picture of every prompt with every seed; a new job every time.

    `out` is a PNG for all of them on one sheet, or a folder for one PNG each. `adapters` are
    names with an optional weight, "rex" or "rex:0.8"; `regions` say what is where, as
    `placing.parse_regions` reads them. Raises UsageError for a trigger in a prompt that nothing
    chosen brings, NotFoundError, ArtifactError (an adapter for another base), ExternalError where
    `out` cannot be written.
    """
    if checkpoint is not None and adapters:
        raise UsageError(
            "--checkpoint and --adapters exclude each other",
            remedy="a checkpoint has its adapters merged in: leave out --adapters",
        )
    out = out.absolute()
    if out.suffix.lower() not in ("", ".png"):
        raise UsageError(
            f"{out}: pictures are written as PNG", remedy="name a .png, or a folder for single ones"
        )
    if out.suffix:
        check_file(out, "PNG")
    else:
        check_folder(out, out)
    chosen = [parse_weighted(ws, ref) for ref in adapters]
    _check_once([adapter for adapter, _ in chosen])
    model = present_checkpoint(ws, checkpoint) if checkpoint else None
    known = of_checkpoint(ws, model) if model else of_adapters([adapter for adapter, _ in chosen])
    placed = parse_regions(regions, known)
    asked = [*prompts, *(region.prompt for region in placed)]
    request: Json = {
        **_source(ws, asked, [adapter for adapter, _ in chosen], model, base),
        "adapters": [{"digest": a.digest, "weight": weight} for a, weight in chosen],
        "prompts": list(prompts),
        "seeds": list(seeds),
        "steps": steps,
        "guidance": guidance,
        "regions": [asdict(region) for region in placed],
        "out": str(out),
    }
    return jobs.enqueue(ws.registry.db, "generate", uuid.uuid4().hex, request, priority=1)


def resolve(ws: Workspace, request: Json) -> Json:
    store = ws.registry.store
    checkpoint = request["checkpoint"]
    return {
        "base": None if request["base"] is None else str(ws.base(request["base"]).path),
        "checkpoint": str(store.checkpoint_path(checkpoint)) if checkpoint else None,
        "adapters": [
            {
                "name": ws.registry.adapter(entry["digest"]).name or entry["digest"][:12],
                "path": str(store.adapter_path(entry["digest"])),
                "weight": entry["weight"],
            }
            for entry in request["adapters"]
        ],
        **{key: request[key] for key in ("prompts", "seeds", "steps", "guidance")},
        # Jobs that were queued before there were regions have none.
        "regions": request.get("regions", []),
    }


def record(ws: Workspace, job: Job, staging: Path, outputs: Json) -> None:
    out = Path(job.request["out"])
    if out.suffix:
        _copy(staging / outputs["sheet"], out)
    else:
        for number, image in enumerate(outputs["images"]):
            _copy(staging / image, out / f"{number:03}.png")
    told = {key: job.request[key] for key in ("seeds", "prompts")}
    result = {"out": str(out), **told, "regions": job.request.get("regions", [])}
    with immediate(ws.registry.db):
        jobs.conclude(ws.registry.db, job, result)


def _copy(made: Path, out: Path) -> None:
    with writing(out) as file:
        file.write(made.read_bytes())


def parse_weighted(ws: Workspace, ref: str) -> tuple[Adapter, float]:
    """The adapter and weight of "rex" (weight 1) or "rex:0.8".

    Raises UsageError, NotFoundError.
    """
    name, colon, text = ref.partition(":")
    with told_apart(ws, name):
        adapter = ws.registry.adapter(name)
    try:
        weight = float(text) if colon else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UsageError(
            f"{ref!r}: the weight after ':' must be a number", remedy=f"write {name}:0.8"
        )
    return adapter, weight


def base_ref_of(ws: Workspace, chosen: Sequence[Adapter]) -> str:
    """What finds the base that the first chosen adapter was trained on, else the default base."""
    for adapter in chosen:
        found = base_reference(ws.registry.db, adapter.base_digest) if adapter.base_digest else None
        if found is not None:
            return found
    return ws.settings.base


def _source(
    ws: Workspace,
    prompts: Sequence[str],
    chosen: Sequence[Adapter],
    model: Checkpoint | None,
    base: str | None,
) -> Json:
    """The checkpoint, or the base that every chosen adapter fits."""
    if model is not None:
        _check_triggers(prompts, [model])
        return {"checkpoint": model.digest, "base": None}
    found = ws.base(base or base_ref_of(ws, chosen))
    for adapter in chosen:
        check_fits(adapter, found)
    _check_triggers(prompts, chosen)
    return {"checkpoint": None, "base": reference(found)}


def _check_once(chosen: Sequence[Adapter]) -> None:
    digests = [adapter.digest for adapter in chosen]
    twice = [one.name or one.digest[:12] for one in chosen if digests.count(one.digest) > 1]
    if twice:
        raise UsageError(
            f"adapter {twice[0]!r} is named twice",
            remedy=f"name it once, with its weight: {twice[0]}:0.8",
        )


def _check_triggers(prompts: Sequence[str], chosen: Sequence[Adapter | Checkpoint]) -> None:
    known = {concept.trigger.casefold() for one in chosen for concept in one.concepts}
    for prompt in prompts:
        for token in _TOKEN.findall(_without([t for t in known if "<" in t], prompt)):
            raise UsageError(
                f"nothing chosen brings the trigger {token}",
                remedy=f"triggers here: {', '.join(sorted(known)) or 'none'}; see --adapters",
            )


def _without(triggers: Sequence[str], prompt: str) -> str:
    # The longest first: "<s0><s1>" may be one trigger, and "<s0>" another.
    for trigger in sorted(triggers, key=len, reverse=True):
        prompt = re.sub(re.escape(trigger), " ", prompt, flags=re.IGNORECASE)
    return prompt
