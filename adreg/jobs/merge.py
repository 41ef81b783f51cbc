"""The merge job: adapter files and a recipe in, a verified checkpoint folder out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.diffusion.sample import sample, usual_guidance
from adreg.domain import Json, Progress
from adreg.merge.execute import merge
from adreg.merge.recipe import from_json

MODEL = "artefact/model"
_PREVIEW_SEED = 0


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Merge into `staging`/artefact/model.

    Inputs: base (reference), base_name, adapters [{name, digest, path, weight}], recipe
    (MergeRecipe.to_json(); it decides, weights included), device. Outputs: checkpoint (folder,
    relative to staging), report, concepts, previews (one picture of each concept).
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
        "previews": _previews(staging, report["concepts"], inputs["device"], progress),
    }


def _previews(staging: Path, concepts: list[Json], device: str, progress: Progress) -> list[Json]:
    """One picture of each concept, made by the checkpoint as it was written."""
    prompts = [f"a photo of {c['trigger']} {c['class_word']}".strip() for c in concepts]
    pipe = load_pipeline(staging / MODEL, device=torch.device(device))
    seeds = [_PREVIEW_SEED] * len(prompts)
    images = sample(pipe, prompts, seeds, guidance=usual_guidance(pipe), progress=progress)
    previews = []
    for number, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
        file = f"artefact/preview-{number:02}.png"
        image.save(staging / file)
        previews.append({"file": file, "prompt": prompt, "seed": _PREVIEW_SEED})
    return previews
