"""The sample job: pictures of one model, each of its own prompt and seed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from adreg.bases.load import load_pipeline, pick_device
from adreg.diffusion.attach import attach
from adreg.diffusion.modules import live_modules
from adreg.diffusion.sample import sample
from adreg.domain import Json, Progress, Region
from adreg.formats.read import read_adapter
from adreg.jobs.multi import sample_pairs
from adreg.score.pairs import PairAsk
from adreg.score.spec import ScoreSpec

PICTURES = "artefact/pictures"


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """A PNG for each prompt and seed, then for each pair of concepts, numbered in their order.

    inputs: model (path of a base or checkpoint), adapter (path, or null), asks ([prompt, seed]),
    pairs (as `read_pairs` takes them), steps, guidance, device. Outputs: pictures
    (folder, relative to staging), seconds (of the sampling alone).
    """
    progress("loading", 0, 1)
    pipe = load_pipeline(Path(inputs["model"]), device=pick_device(inputs["device"]))
    if inputs["adapter"] is not None:
        attach(pipe, "sampled", read_adapter(Path(inputs["adapter"]), live_modules(pipe)))
    asks = inputs["asks"]
    began = time.monotonic()
    images = sample(
        pipe,
        [prompt for prompt, _ in asks],
        [seed for _, seed in asks],
        steps=inputs["steps"],
        guidance=inputs["guidance"],
        progress=progress,
    )
    spec = ScoreSpec(steps=inputs["steps"], guidance=inputs["guidance"])
    images += sample_pairs(pipe, read_pairs(inputs["pairs"]), spec, progress)
    seconds = time.monotonic() - began
    out = staging / PICTURES
    out.mkdir(parents=True)
    for number, image in enumerate(images):
        image.save(out / f"{number:04}.png")
    return {"pictures": PICTURES, "seconds": round(seconds, 2)}


def read_pairs(entries: Sequence[Json]) -> list[PairAsk]:
    """Pairs from the JSON of dataclasses.asdict."""
    return [
        PairAsk(
            prompt=entry["prompt"],
            seed=entry["seed"],
            triggers=(entry["triggers"][0], entry["triggers"][1]),
            regions=(_region(entry["regions"][0]), _region(entry["regions"][1])),
        )
        for entry in entries
    ]


def _region(entry: Json) -> Region:
    x0, y0, x1, y1 = entry["box"]
    return Region((x0, y0, x1, y1), entry["prompt"])
