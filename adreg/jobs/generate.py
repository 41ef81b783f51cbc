"""The generate job: pictures from a base with adapters attached, or from a checkpoint."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from PIL import Image

from adreg.bases.load import load_pipeline, pick_device
from adreg.diffusion.attach import attach
from adreg.diffusion.modules import live_modules
from adreg.diffusion.regions import regions
from adreg.diffusion.sample import USUAL_STEPS, sample, usual_guidance
from adreg.diffusion.sheet import sheet
from adreg.domain import Json, Progress, Region
from adreg.formats.read import read_adapter

SHEET = "artefact/sheet.png"


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """One picture for every prompt with every seed, and all on one sheet: a row a prompt.

    inputs: base or checkpoint (path), adapters ([{name, path, weight}]), prompts, seeds, regions
    ([{box, prompt}], the same in every picture), steps and guidance (null: what suits the base),
    device.
    """
    progress("loading", 0, 1)
    source = Path(inputs["checkpoint"] or inputs["base"])
    pipe = load_pipeline(source, device=pick_device(inputs["device"]))
    modules = live_modules(pipe)
    for entry in inputs["adapters"]:
        weights = read_adapter(Path(entry["path"]), modules)
        attach(pipe, entry["name"], weights, entry["weight"])
    prompts, seeds = inputs["prompts"], inputs["seeds"]
    pairs = list(product(prompts, seeds))
    with regions(pipe, [Region(tuple(r["box"]), r["prompt"]) for r in inputs["regions"]]):
        images = sample(
            pipe,
            [prompt for prompt, _ in pairs],
            [seed for _, seed in pairs],
            steps=inputs["steps"] or USUAL_STEPS,
            guidance=usual_guidance(pipe) if inputs["guidance"] is None else inputs["guidance"],
            progress=progress,
        )
    return _save(images, prompts, seeds, staging)


def _save(images: list[Image.Image], prompts: list[str], seeds: list[int], staging: Path) -> Json:
    (staging / "artefact").mkdir(exist_ok=True)
    files = [f"artefact/{index:03}.png" for index in range(len(images))]
    for file, image in zip(files, images, strict=True):
        image.save(staging / file)
    width = len(seeds)
    rows = [images[start : start + width] for start in range(0, len(images), width)]
    sheet(rows, prompts, [f"seed {seed}" for seed in seeds]).save(staging / SHEET)
    return {"images": files, "sheet": SHEET}
