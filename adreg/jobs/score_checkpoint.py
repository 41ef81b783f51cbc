"""The score_checkpoint job: a merged checkpoint against its base and the photos of its concepts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from adreg.bases.load import load_pipeline, pick_device
from adreg.bases.scorers import find_identity_scorer, find_scorer
from adreg.domain import Concept, Json, Progress
from adreg.jobs.multi import multi_score
from adreg.jobs.previews import Asked, save_previews
from adreg.score import identity, multi, preservation
from adreg.score.features import ImageScorer, Scorer
from adreg.score.measure import likeness, scores
from adreg.score.pairs import Named
from adreg.score.pictures import Pictures, sample_asks
from adreg.score.prompts import Ask, concept_asks, ordinary_asks, other_noise
from adreg.score.spec import ScoreSpec
from adreg.train.images import open_image

_ALONE = "it takes two concepts, no styles, whose photos are in this registry"


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """kps/1, text-alignment/1, identity/1, pres/1 and multi/1 of a checkpoint, and previews.

    inputs: base and checkpoint (paths), concepts ([{trigger, class_word, kind, method}]), scorer
    (folder), spec, device, and identity: scorer (folder) and photos (paths by trigger), or why it
    is `skipped`. Previews are the pictures that identity/1 and multi/1 look at.
    """
    device, spec = pick_device(inputs["device"]), ScoreSpec.from_json(inputs["spec"])
    named = [_named(entry) for entry in inputs["concepts"]]
    scorer = find_scorer(inputs["scorer"])

    def load(name: str) -> Any:
        progress("loading", 0, 1)
        return load_pipeline(Path(inputs[name]), device=device)

    asks = ordinary_asks([concept for concept, _ in named], spec.prompts, spec.seeds, spec.seed)
    by_base = sample_asks(load("base"), [*asks, *other_noise(asks)], spec, "the base", progress)
    pipe, own, here = load("checkpoint"), _concept_asks(named, spec), len(asks)
    made = sample_asks(pipe, [*asks, *own], spec, "the checkpoint", progress)
    pictures = Pictures(asks, by_base[:here], by_base[here:], made[:here], own, made[here:])
    found = scores(pictures, Scorer(scorer.path, device), scorer.digest, spec)
    shown: list[tuple[Asked, Image.Image]] = [*zip(own, pictures.concept, strict=True)]
    if why := inputs["identity"].get("skipped"):
        skipped = dict.fromkeys((identity.NAME, preservation.NAME, multi.NAME), why)
        return {"scores": found, "skipped": skipped, "previews": save_previews(shown, staging)}
    known = find_identity_scorer(inputs["identity"]["scorer"])
    looking, photos = ImageScorer(known.path, device), _photos(inputs["identity"]["photos"])
    concepts = [concept for concept, _ in named]
    found += likeness(pictures, concepts, photos, looking, known.digest, spec)
    together = multi_score(pipe, named, photos, looking, known.digest, spec, progress)
    if together is not None:
        found.append(together.record)
        shown += zip(together.asks, together.pictures, strict=True)
    return {
        "scores": found,
        "skipped": {} if together else {multi.NAME: _ALONE},
        "previews": save_previews(shown, staging),
    }


def _concept_asks(named: Sequence[Named], spec: ScoreSpec) -> list[Ask]:
    """Of every concept as many prompts, each in the words of the method that trained it."""
    each = math.ceil(spec.concept_prompts / max(1, len(named)))
    found: list[Ask] = []
    for method in dict.fromkeys(method for _, method in named):
        alike = [concept for concept, own in named if own == method]
        first = spec.seed + len(found)
        found += concept_asks(alike, each * len(alike), spec.seeds, first, method)
    return found


def _named(entry: Json) -> Named:
    fields = {key: value for key, value in entry.items() if key != "method"}
    return Concept(**fields), entry["method"]


def _photos(paths: Json) -> dict[str, list[Any]]:
    return {
        trigger: [open_image(Path(path)) for path in of_one] for trigger, of_one in paths.items()
    }
