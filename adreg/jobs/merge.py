"""The merge job: adapter files and a recipe in, a verified checkpoint folder out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from adreg.bases.find import find_base
from adreg.bases.load import load_pipeline
from adreg.bases.parts import parts_of
from adreg.diffusion.sample import sample, usual_guidance
from adreg.domain import Base, Json, Progress
from adreg.jobs.made_with import made_with
from adreg.jobs.peak import peak_memory
from adreg.merge.execute import merge
from adreg.merge.recipe import from_json

MODEL = "artefact/model"
SCRATCH = "layers"
"""Solved layers: what a merge that is tried again goes on from."""
QUICK = 50_000_000
"""Parameters of a UNet that draws in seconds anywhere, as pocket's does: Stable Diffusion's have 17
times as many."""
_PREVIEW_SEED = 0


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Merge into `staging`/artefact/model.

    Inputs: base (reference), base_name, adapters [{name, digest, path, weight}], recipe
    (MergeRecipe.to_json(); it decides, weights included), device, previews (false: none). Outputs:
    checkpoint (folder, relative to staging), report (with `made_with`), concepts, previews (one
    picture of each concept, or none, and then `no_previews` in the report says why).
    """
    base = replace(find_base(inputs["base"]), name=inputs["base_name"])
    files = {adapter["digest"]: Path(adapter["path"]) for adapter in inputs["adapters"]}
    recipe = from_json(inputs["recipe"])
    adapters = [(ref.name, files[ref.digest]) for ref in recipe.adapters]
    out = staging / MODEL
    shutil.rmtree(out, ignore_errors=True)  # what an attempt that was killed left behind
    scratch = staging / SCRATCH
    report = merge(base, adapters, recipe, out, inputs["device"], progress, scratch)
    report |= peak_memory(inputs["device"])
    why_not = _no_previews(base, inputs)
    shown = [] if why_not else report["concepts"]
    return {
        "checkpoint": MODEL,
        "report": {**report, "no_previews": why_not, "made_with": made_with(inputs["device"])},
        "concepts": report["concepts"],
        "previews": _previews(staging, shown, inputs["device"], progress) if shown else [],
    }


def _no_previews(base: Base, inputs: Json) -> str | None:
    if not inputs.get("previews", True):
        return "none were asked for"
    quick = parts_of(base.path)["unet"].parameters <= QUICK
    if quick or torch.device(inputs["device"]).type == "cuda":
        return None
    return "a picture takes minutes without a GPU; adreg generate draws them"


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
