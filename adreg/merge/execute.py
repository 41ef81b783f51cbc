"""A merge from files to a verified checkpoint: plan, solve, write, load back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.tokens import add_tokens
from adreg.domain import Base, Json, Progress, silent
from adreg.errors import UsageError
from adreg.formats.read import AdapterWeights, read_adapter
from adreg.merge.free import Combined
from adreg.merge.plan import Plan, plan_merge
from adreg.merge.recipe import MergeRecipe
from adreg.merge.refine import record, refine
from adreg.merge.scratch import Layers, open_scratch
from adreg.merge.stages import AllDeltas, Deltas, solve_stages
from adreg.merge.verify import verify_checkpoint
from adreg.merge.writer import write_checkpoint

Seconds = dict[str, float]


def merge(
    base: Base,
    adapters: Sequence[tuple[str, Path]],
    recipe: MergeRecipe,
    out: Path,
    device: torch.device | str = "cpu",
    progress: Progress = silent,
    scratch: Path | None = None,
) -> Json:
    """Merge adapter files into a diffusers folder `out`; returns the report.

    `adapters` are (name, file) in the recipe's order. Solved layers are kept below `scratch`, and
    those of the same merge that are there already are taken as they are; without it they are let
    go at the end. The report has the plan's keys, `seconds` by step, `hinge` (by module; with
    loraclr) and `verified`: what verify.Verified has.

    Raises UsageError where recipe, base and adapters do not belong together, ArtifactError for a
    file that changed, does not fit the base or is not finite, and where the written checkpoint
    is not what was planned. Nothing is left in `out` then.
    """
    plan = plan_merge(base, adapters, recipe)
    if out.exists():
        raise UsageError(f"{out} is there already", remedy="merge into a new folder")
    files = dict(_by_digest(recipe, adapters))
    kept = out.with_name(f".{out.name}.layers") if scratch is None else scratch
    try:
        return _execute(plan, base, files, out, open_scratch(kept, plan.digest()), device, progress)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    finally:
        if scratch is None:
            shutil.rmtree(kept, ignore_errors=True)


def _by_digest(
    recipe: MergeRecipe, adapters: Sequence[tuple[str, Path]]
) -> Iterator[tuple[str, Path]]:
    for ref, (_, path) in zip(recipe.adapters, adapters, strict=True):
        yield ref.digest, path


def _execute(
    plan: Plan,
    base: Base,
    files: Mapping[str, Path],
    out: Path,
    scratch: Path,
    device: torch.device | str,
    progress: Progress,
) -> Json:
    seconds: Seconds = {}
    with _timed(seconds, "load"):
        weights = {
            operand.digest: read_adapter(files[operand.digest], base.modules)
            for operand in plan.operands
        }
        tokens = gather_tokens(plan, weights)
        pipe: Any = None
        if plan.recipe.sampling is not None:  # else nothing is to be run
            pipe = load_pipeline(base.path, device=device)
            add_tokens(pipe, tokens)
    deltas: Deltas
    hinge: Json = {}
    with _timed(seconds, "solve"):
        adapted = {digest: adapter.deltas for digest, adapter in weights.items()}
        if plan.recipe.sampling is None:
            deltas = Combined(plan, adapted)
        else:
            deltas = solved = solve_stages(pipe, plan, adapted, scratch, progress)
            hinge = {module: note for module in solved if (note := solved.note(module))}
    if plan.recipe.refine is not None:
        with _timed(seconds, "refine"):
            deltas = _refined(pipe, plan, adapted, deltas, scratch, progress)
    del pipe
    with _timed(seconds, "write"):
        write_checkpoint(base, plan, deltas, tokens, out, progress)
    with _timed(seconds, "verify"):
        dtype = getattr(torch, plan.recipe.dtype)
        verified = verify_checkpoint(out, base, deltas, tokens, dtype, progress)
    return plan.to_json() | {"seconds": seconds, "hinge": hinge, "verified": asdict(verified)}


def _refined(
    pipe: Any,
    plan: Plan,
    adapted: AllDeltas,
    deltas: Deltas,
    scratch: Path,
    progress: Progress,
) -> Layers:
    """The deltas refined, as the plan's recipe says; those of an earlier attempt where it ended."""
    how, kept = plan.recipe.refine, Layers(scratch / "refined")
    assert how is not None
    if len(kept) < len(plan.modules):
        bank = record(pipe, plan, adapted, progress)
        for module, delta in refine(pipe, deltas, bank, how, progress).items():
            kept.put(module, delta)
    return kept


def gather_tokens(plan: Plan, weights: Mapping[str, AdapterWeights]) -> dict[str, Tensor]:
    """The embeddings (n_vectors x d) of all operands under the triggers of the checkpoint."""
    return {
        operand.renamed.get(trigger, trigger): rows
        for operand in plan.operands
        for trigger, rows in weights[operand.digest].tokens.items()
    }


@contextmanager
def _timed(seconds: Seconds, step: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - start, 2)
