"""The compare job: one merged checkpoint's pictures held against what each adapter alone draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from adreg.bases.load import pick_device
from adreg.domain import Json, Progress
from adreg.jobs.sample import read_pairs
from adreg.score.alignment import alignment
from adreg.score.bootstrap import interval
from adreg.score.features import ImageScorer, Scorer
from adreg.score.identity import identity, nearest
from adreg.score.interference import interference
from adreg.score.kps import harmonic, kps
from adreg.score.multi import multi
from adreg.score.spec import ScoreSpec
from adreg.train.images import open_image

MODELS = ("base", "alone", "merged")
Features = Mapping[str, Tensor]


def run(inputs: Json, staging: Path, progress: Progress) -> Json:
    """What is measured of each picture, concept by concept, and kps/1 of the checkpoint.

    inputs: concepts ([{trigger, photos, texts, base, alone, merged}], all but the trigger and the
    texts paths; a row of the last three is one seed and prompt), ordinary ({prompts, base, again,
    merged}), placed ({pairs, pictures, steps, guidance}), scorer and identity_scorer (folders, or
    null), device.

    Outputs: concepts, each with `identity` and `nearest` by model (null without photos; nearest a
    trigger a picture, null with one candidate alone), `alignment` by model, `interference` a
    picture (each null without its scorer); `kps` (null without a scorer), and `multi`: value and
    details of multi/1 (null without photos of two concepts).
    """
    device, concepts = pick_device(inputs["device"]), inputs["concepts"]
    progress("looking", 0, 2)
    seen: list[Json] = [{}] * len(concepts)
    read: list[Json] = [{}] * len(concepts)
    kept = placed = None
    if inputs["identity_scorer"] is not None:
        looking = ImageScorer(Path(inputs["identity_scorer"]), device)
        gallery = _gallery(looking, concepts)
        seen = [_likeness(_features(looking, one), one, gallery) for one in concepts]
        placed = _multi(looking, inputs["placed"], gallery)
    progress("looking", 1, 2)
    if inputs["scorer"] is not None:
        scorer = Scorer(Path(inputs["scorer"]), device)
        read = [_read(scorer, concept) for concept in concepts]
        kept = _kept(scorer, inputs["ordinary"])
    progress("looking", 2, 2)
    blank = dict.fromkeys(("identity", "nearest", "alignment", "interference"))
    return {
        "concepts": [
            {"trigger": concept["trigger"], **blank, **one, **other}
            for concept, one, other in zip(concepts, seen, read, strict=True)
        ],
        "kps": kept,
        "multi": placed,
    }


def _gallery(scorer: ImageScorer, concepts: Sequence[Json]) -> Features:
    """The photos of each concept that has some."""
    with_photos = [concept for concept in concepts if concept["photos"]]
    return {concept["trigger"]: _look(scorer, concept["photos"]) for concept in with_photos}


def _likeness(features: Features, concept: Json, gallery: Features) -> Json:
    found: Json = {"interference": interference(features["merged"], features["alone"])}
    photos = gallery.get(concept["trigger"])
    if photos is not None:
        found["identity"] = {model: identity(features[model], photos) for model in MODELS}
        if len(gallery) > 1:
            found["nearest"] = {model: nearest(features[model], gallery) for model in MODELS}
    return found


def _multi(scorer: ImageScorer, placed: Json, gallery: Features) -> Json | None:
    if not placed["pairs"]:
        return None
    pictures = [open_image(Path(path)) for path in placed["pictures"]]
    spec = ScoreSpec(steps=placed["steps"], guidance=placed["guidance"])
    found = multi(read_pairs(placed["pairs"]), pictures, gallery, scorer, "", spec)
    return {"value": found["value"], **found["details"]}


def _read(scorer: Scorer, concept: Json) -> Json:
    texts, features = scorer.texts(concept["texts"]), _features(scorer, concept)
    return {"alignment": {model: alignment(features[model], texts) for model in MODELS}}


def _kept(scorer: Scorer, ordinary: Json) -> Json:
    """kps/1 of the checkpoint; the interval is kps_rel's."""
    base, again, merged = (_look(scorer, ordinary[name]) for name in ("base", "again", "merged"))
    whole = kps(base, merged, again)
    drawn = interval(ordinary["prompts"], harmonic((base * merged).sum(dim=-1)))
    room = 1 - whole.floor
    spread = [(end - whole.floor) / room for end in drawn] if drawn and room > 0 else None
    told: dict[str, Any] = asdict(whole)
    return {**told, "interval": spread}


def _features(scorer: ImageScorer, concept: Json) -> Features:
    return {model: _look(scorer, concept[model]) for model in MODELS}


def _look(scorer: ImageScorer, paths: Sequence[str]) -> Tensor:
    return scorer.images(open_image(Path(path)) for path in paths)
