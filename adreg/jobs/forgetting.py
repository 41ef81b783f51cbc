"""The forgetting job: a line's concepts after each of its tasks, held against their photos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adreg.bases.load import load_pipeline, pick_device
from adreg.bases.scorers import find_identity_scorer, find_scorer
from adreg.diffusion.attach import attach
from adreg.diffusion.modules import live_modules
from adreg.diffusion.sample import sample
from adreg.domain import Json, Progress
from adreg.formats.read import read_adapter
from adreg.score.features import ImageScorer
from adreg.score.identity import identity
from adreg.score.line import forgetting_score, mmd_scores
from adreg.score.spec import ScoreSpec
from adreg.train.images import open_image

# The paths of a task's pictures by trigger, in the order they are asked for.
Pictures = dict[str, list[str]]


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """The scores forgetting/1, a-mmd/1 and, from the second task on, f-mmd/1.

    inputs: base (path), triggers (in the order they were learnt), tasks ([{digest, path, asks}]
    with asks [{trigger, prompt, seed, path}], where `path` is the picture of an earlier job, or
    null), photos (paths by trigger), scorer and identity_scorer (folders), spec, device. Outputs
    hold all `pictures`: [{task, trigger, prompt, seed, path}].
    """
    spec = ScoreSpec.from_json(inputs["spec"])
    device = pick_device(inputs["device"])
    tasks: list[Pictures] = []
    for number, task in enumerate(inputs["tasks"]):
        missing = [ask for ask in task["asks"] if ask["path"] is None]
        if missing:
            folder = staging / f"artefact/{number}"
            _sample(inputs["base"], task, missing, spec, device, folder, progress)
        tasks.append(_by_trigger(task["asks"]))
    progress("looking at pictures", 0, 1)
    how = {
        "tasks": [task["digest"] for task in inputs["tasks"]],
        "prompts": [ask["prompt"] for ask in inputs["tasks"][-1]["asks"]],
        "seeds": [ask["seed"] for ask in inputs["tasks"][-1]["asks"]],
        "steps": spec.steps,
        "guidance": spec.guidance,
    }
    found = _scores(inputs, tasks, spec.seeds, device)
    pictures = [{"task": t["digest"], **ask} for t in inputs["tasks"] for ask in t["asks"]]
    return {"scores": [{**score, "inputs": how} for score in found], "pictures": pictures}


def _sample(
    base: str,
    task: Json,
    asks: Sequence[Json],
    spec: ScoreSpec,
    device: torch.device,
    folder: Path,
    progress: Progress,
) -> None:
    """Gives each of `asks` its path."""
    progress("loading", 0, 1)
    # Anew for each task: a tokenizer cannot forget the tokens of the one before.
    pipe = load_pipeline(Path(base), device=device)
    attach(pipe, "measured", read_adapter(Path(task["path"]), live_modules(pipe)))
    images = sample(
        pipe,
        [ask["prompt"] for ask in asks],
        [ask["seed"] for ask in asks],
        steps=spec.steps,
        guidance=spec.guidance,
        progress=progress,
    )
    folder.mkdir(parents=True)
    for number, (ask, image) in enumerate(zip(asks, images, strict=True)):
        ask["path"] = str(folder / f"{number:03}.png")
        image.save(ask["path"])


def _by_trigger(asks: Sequence[Json]) -> Pictures:
    found: Pictures = {}
    for ask in asks:
        found.setdefault(ask["trigger"], []).append(ask["path"])
    return found


def _scores(
    inputs: Json, tasks: Sequence[Pictures], seeds: int, device: torch.device
) -> list[Json]:
    triggers: list[str] = inputs["triggers"]
    count = len(tasks[-1][triggers[0]])
    # Pictures of one prompt are one unit, whichever concept it asks for.
    units = [index // seeds for index in range(count)]
    known = find_identity_scorer(inputs["identity_scorer"])
    looking = ImageScorer(known.path, device)
    each = np.full((len(triggers), len(tasks), count), np.nan)
    for row, trigger in enumerate(triggers):
        photos = _seen(looking, inputs["photos"][trigger])
        for column, task in enumerate(tasks):
            if trigger in task:
                each[row, column] = identity(_seen(looking, task[trigger]), photos)
    scorer = find_scorer(inputs["scorer"])
    looking = ImageScorer(scorer.path, device)
    new_at = {t: next(task for task in tasks if t in task) for t in triggers}
    return [
        forgetting_score(each, triggers, units, known.digest),
        *mmd_scores(
            [_seen(looking, inputs["photos"][t]) for t in triggers],
            [_seen(looking, new_at[t][t]) for t in triggers if new_at[t] is not tasks[-1]],
            [_seen(looking, tasks[-1][t]) for t in triggers],
            units,
            scorer.digest,
        ),
    ]


def _seen(scorer: ImageScorer, paths: Iterable[str]) -> Tensor:
    return scorer.images(open_image(Path(path)) for path in paths)
