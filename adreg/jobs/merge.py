"""The merge job: adapter files and a recipe in, a verified checkpoint folder out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from adreg.bases.find import find_base
from adreg.domain import Json, Progress
from adreg.merge.execute import merge
from adreg.merge.recipe import from_json

MODEL = "artefact/model"


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Merge into `staging`/artefact/model.

    Inputs: base (reference), base_name, adapters [{name, digest, path, weight}], recipe
    (MergeRecipe.to_json(); it decides, weights included), device. Outputs: checkpoint (folder,
    relative to staging), report, concepts, previews (none).
    """
    base = replace(find_base(inputs["base"]), name=inputs["base_name"])
    files = {adapter["digest"]: Path(adapter["path"]) for adapter in inputs["adapters"]}
    recipe = from_json(inputs["recipe"])
    adapters = [(ref.name, files[ref.digest]) for ref in recipe.adapters]
    out = staging / MODEL
    shutil.rmtree(out, ignore_errors=True)  # what an attempt that was killed left behind
    report = merge(base, adapters, recipe, out, inputs["device"], progress)
    return {
        "checkpoint": MODEL,
        "report": report,
        "concepts": report["concepts"],
        "previews": [],
    }
