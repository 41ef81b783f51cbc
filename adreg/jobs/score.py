"""The score job: an adapter on its base, measured, with pictures to look at."""

from __future__ import annotations

from pathlib import Path

from adreg.bases.find import find_scorer
from adreg.bases.load import load_pipeline, pick_device
from adreg.diffusion.modules import live_modules
from adreg.domain import Concept, Json, Progress
from adreg.formats.read import read_adapter
from adreg.score.features import Scorer
from adreg.score.measure import Pictures, sample_pictures, scores
from adreg.score.spec import ScoreSpec

_CLASS_PREVIEWS = 3


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """Scores and previews of one adapter.

    inputs: base (path), adapter (path), concepts, scorer (reference), spec, device. Previews are
    the concept's pictures and the first of its class, all with the adapter attached.
    """
    device = pick_device(inputs["device"])
    folder, digest = find_scorer(inputs["scorer"])
    spec = ScoreSpec.from_json(inputs["spec"])
    progress("loading", 0, 1)
    pipe = load_pipeline(Path(inputs["base"]), device=device)
    weights = read_adapter(Path(inputs["adapter"]), live_modules(pipe))
    concepts = [Concept(**entry) for entry in inputs["concepts"]]
    pictures = sample_pictures(pipe, weights, concepts, spec, progress)
    found = scores(pictures, Scorer(folder, device), digest, spec)
    return {"scores": found, "previews": _save_previews(pictures, staging)}


def _save_previews(pictures: Pictures, staging: Path) -> list[Json]:
    of_class = [
        (ask, image)
        for ask, image in zip(pictures.asks, pictures.adapted, strict=True)
        if ask.about == "class"
    ]
    shown = [*zip(pictures.concept_asks, pictures.concept, strict=True)]
    shown += of_class[:_CLASS_PREVIEWS]
    (staging / "artefact").mkdir(exist_ok=True)
    previews = []
    for index, (ask, image) in enumerate(shown):
        file = f"artefact/preview-{index:02}.png"
        image.save(staging / file)
        previews.append({"file": file, "prompt": ask.prompt, "seed": ask.seed})
    return previews
