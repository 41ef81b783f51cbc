"""The score job: an adapter on its base, measured, with pictures to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from adreg.bases.load import load_pipeline, pick_device
from adreg.bases.scorers import find_identity_scorer, find_scorer
from adreg.diffusion.modules import live_modules
from adreg.domain import Concept, Json, Progress
from adreg.formats.read import read_adapter
from adreg.jobs.previews import save_previews
from adreg.score import identity, preservation
from adreg.score.features import ImageScorer, Scorer
from adreg.score.measure import likeness, scores
from adreg.score.pictures import Pictures, sample_pictures
from adreg.score.spec import ScoreSpec
from adreg.train.images import open_image

_CLASS_PREVIEWS = 3


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Scores and previews of one adapter.

    inputs: base (path), adapter (path), concepts, scorer (folder), spec, device, and identity:
    scorer (folder) and photos (paths by trigger), or why it is `skipped`. Previews are the
    concept's pictures and the first of its class, all with the adapter attached.
    """
    device = pick_device(inputs["device"])
    scorer = find_scorer(inputs["scorer"])
    spec = ScoreSpec.from_json(inputs["spec"])
    progress("loading", 0, 1)
    pipe = load_pipeline(Path(inputs["base"]), device=device)
    weights = read_adapter(Path(inputs["adapter"]), live_modules(pipe))
    concepts = [Concept(**entry) for entry in inputs["concepts"]]
    pictures = sample_pictures(pipe, weights, concepts, spec, progress)
    found = scores(pictures, Scorer(scorer.path, device), scorer.digest, spec)
    alike, why_not = _likeness(inputs["identity"], concepts, pictures, device, spec)
    return {
        "scores": [*found, *alike],
        "skipped": dict.fromkeys((identity.NAME, preservation.NAME), why_not) if why_not else {},
        "previews": _save_previews(pictures, staging),
    }


def _likeness(
    asked: Json,
    concepts: Sequence[Concept],
    pictures: Pictures,
    device: torch.device,
    spec: ScoreSpec,
) -> tuple[list[Json], str | None]:
    """The records of identity/1 and pres/1, or none and why."""
    if "skipped" in asked:
        return [], asked["skipped"]
    shown = {ask.trigger for ask in pictures.concept_asks} & asked["photos"].keys()
    if not shown:
        return [], "no picture shows a concept whose photos are in this registry"
    photos = {
        trigger: [open_image(Path(path)) for path in asked["photos"][trigger]]
        for trigger in sorted(shown)
    }
    scorer = find_identity_scorer(asked["scorer"])
    looking = ImageScorer(scorer.path, device)
    return likeness(pictures, concepts, photos, looking, scorer.digest, spec), None


def _save_previews(pictures: Pictures, staging: Path) -> list[Json]:
    of_class = [
        (ask, image)
        for ask, image in zip(pictures.asks, pictures.adapted, strict=True)
        if ask.about == "class"
    ]
    shown = [*zip(pictures.concept_asks, pictures.concept, strict=True)]
    return save_previews([*shown, *of_class[:_CLASS_PREVIEWS]], staging)
