"""A merge from files to a verified checkpoint: plan, solve, write, load back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.tokens import add_tokens
from adreg.domain import Base, Json, Progress, silent
from adreg.errors import UsageError
from adreg.formats.read import AdapterWeights, read_adapter
from adreg.merge.free import combine
from adreg.merge.plan import Plan, plan_merge
from adreg.merge.recipe import MergeRecipe
from adreg.merge.refine import record, refine
from adreg.merge.stages import add_deltas, solve_stages
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
) -> Json:
    """Merge adapter files into a diffusers folder `out`; returns the report.

    `adapters` are (name, file) in the recipe's order. The report has the plan's keys, `seconds`
    by step, and `verified`: what verify.Verified has.

    Raises UsageError where recipe, base and adapters do not belong together, ArtifactError for a
    file that changed, does not fit the base or is not finite, and where the written checkpoint
    is not what was planned. Nothing is left in `out` then.
    """
    plan = plan_merge(base, adapters, recipe)
    if out.exists():
        raise UsageError(f"{out} is there already", remedy="merge into a new folder")
    try:
        return _execute(plan, base, dict(_by_digest(recipe, adapters)), out, device, progress)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


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
    device: torch.device | str,
    progress: Progress,
) -> Json:
    seconds: Seconds = {}
    with _timed(seconds, "load"):
        pipe = load_pipeline(base.path, device=device)
        weights = {
            operand.digest: read_adapter(files[operand.digest], base.modules)
            for operand in plan.operands
        }
        tokens = gather_tokens(plan, weights)
        add_tokens(pipe, tokens)
    with _timed(seconds, "solve"):
        adapted = {digest: adapter.deltas for digest, adapter in weights.items()}
        if plan.recipe.sampling is None:
            deltas = combine(plan, adapted, progress)
        else:
            deltas = solve_stages(pipe, plan, adapted, progress)
    if plan.recipe.refine is not None:
        with _timed(seconds, "refine"):
            bank = record(pipe, plan, adapted, progress)
            deltas = refine(pipe, deltas, bank, plan.recipe.refine, progress)
            del bank
    with _timed(seconds, "write"):
        progress("write", 0, 1)
        add_deltas(pipe, deltas)
        write_checkpoint(pipe, plan, out)
    del pipe, weights, adapted
    with _timed(seconds, "verify"):
        progress("verify", 0, 1)
        verified = verify_checkpoint(out, base, deltas, tokens)
    return plan.to_json() | {"seconds": seconds, "verified": asdict(verified)}


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
