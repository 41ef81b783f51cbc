"""The interference job: adapters in, who will disturb whom out; no picture is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.tokens import add_tokens
from adreg.domain import Json, Progress
from adreg.formats.read import read_adapter
from adreg.merge.execute import gather_tokens
from adreg.merge.interference import measure
from adreg.merge.plan import plan_merge
from adreg.merge.recipe import from_json


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """What `measure` returns, of the adapters that count in the plan of their sum.

    Inputs: base (reference), base_name, recipe (of their sum), adapters [{name, digest, path}],
    device.
    """
    base = replace(find_base(inputs["base"]), name=inputs["base_name"])
    files = {adapter["digest"]: Path(adapter["path"]) for adapter in inputs["adapters"]}
    recipe = from_json(inputs["recipe"])
    plan = plan_merge(base, [(ref.name, files[ref.digest]) for ref in recipe.adapters], recipe)
    progress("loading", 0, 1)
    weights = {o.digest: read_adapter(files[o.digest], base.modules) for o in plan.operands}
    pipe = load_pipeline(base.path, device=inputs["device"])
    add_tokens(pipe, gather_tokens(plan, weights))
    deltas = [weights[operand.digest].deltas for operand in plan.operands]
    return measure(pipe, plan.operands, deltas, progress)
