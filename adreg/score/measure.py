"""One adapter on its base, measured: images are sampled once and serve every score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from PIL import Image

from adreg.diffusion.attach import attach, detach_all
from adreg.diffusion.sample import sample
from adreg.domain import Concept, Json, Progress
from adreg.formats.read import AdapterWeights
from adreg.score import alignment, identity, kps
from adreg.score.features import ImageScorer, Scorer
from adreg.score.prompts import Ask, concept_asks, ordinary_asks
from adreg.score.spec import ScoreSpec

_OTHER_NOISE = 1_000_000


@dataclass(frozen=True)
class Pictures:
    """What was sampled: `base`, `again` (other noise) and `adapted` are paired with `asks`."""

    asks: list[Ask]
    base: list[Image.Image]
    again: list[Image.Image]
    adapted: list[Image.Image]
    concept_asks: list[Ask]
    concept: list[Image.Image]


def sample_pictures(
    pipe: Any,
    weights: AdapterWeights,
    concepts: Sequence[Concept],
    spec: ScoreSpec,
    progress: Progress,
) -> Pictures:
    """Ordinary prompts with the base, with the base and other noise, and with the adapter;
    concept prompts with the adapter. The pipeline's layers are the base's again afterwards.

    Raises what `attach` raises.
    """
    named = weights.manifest.get("method") != "c-lora"
    asks = ordinary_asks(concepts, spec.prompts, spec.seeds, spec.seed)
    own = concept_asks(concepts, spec.concept_prompts, spec.seeds, spec.seed, named=named)
    moved = [replace(ask, seed=ask.seed + _OTHER_NOISE) for ask in asks]
    images = _sample(pipe, [*asks, *moved], spec, "the base", progress)
    attach(pipe, "measured", weights)
    try:
        made = _sample(pipe, [*asks, *own], spec, "the adapter", progress)
    finally:
        detach_all(pipe)
    count = len(asks)
    return Pictures(asks, images[:count], images[count:], made[:count], own, made[count:])


def _sample(
    pipe: Any, asks: Sequence[Ask], spec: ScoreSpec, what: str, progress: Progress
) -> list[Image.Image]:
    def told(stage: str, step: int, total: int, **values: float) -> None:
        progress(f"{stage} {what}", step, total, **values)

    return sample(
        pipe,
        [ask.prompt for ask in asks],
        [ask.seed for ask in asks],
        steps=spec.steps,
        guidance=spec.guidance,
        progress=told,
    )


def scores(pictures: Pictures, scorer: Scorer, digest: str, spec: ScoreSpec) -> list[Json]:
    """The scores as records: name, value, scorer's digest, all inputs, details.

    text-alignment/1 is left out where the adapter has no trigger to ask for.
    """
    found = [_record(kps.NAME, *_kps(pictures, scorer), digest, pictures.asks, spec)]
    if pictures.concept:
        own = pictures.concept_asks
        values = alignment.alignment(
            scorer.images(pictures.concept), scorer.texts([ask.text for ask in own])
        )
        details = {"each": values, "texts": [ask.text for ask in own]}
        mean = sum(values) / len(values)
        found.append(_record(alignment.NAME, mean, details, digest, own, spec))
    return found


def identity_score(
    pictures: Pictures,
    photos: Mapping[str, Sequence[Image.Image]],
    scorer: ImageScorer,
    digest: str,
    spec: ScoreSpec,
) -> Json:
    """The identity/1 record: each concept's pictures against the photos of its own subject.

    `photos` maps triggers, of which there are pictures, to photos; pictures of other concepts
    are left out.
    """
    rows = [
        (ask, image)
        for ask, image in zip(pictures.concept_asks, pictures.concept, strict=True)
        if ask.trigger in photos
    ]
    asks = [ask for ask, _ in rows]
    made = scorer.images(image for _, image in rows)
    real = {trigger: scorer.images(of_one) for trigger, of_one in photos.items()}
    each = [identity.identity(made[[row]], real[ask.trigger])[0] for row, ask in enumerate(asks)]
    details = {
        "each": each,
        "photos": {trigger: len(features) for trigger, features in real.items()},
        "photos_alike": {trigger: identity.alike(features) for trigger, features in real.items()},
    }
    return _record(identity.NAME, sum(each) / len(each), details, digest, asks, spec)


def _kps(pictures: Pictures, scorer: Scorer) -> tuple[float, Json]:
    features = [scorer.images(row) for row in (pictures.base, pictures.adapted, pictures.again)]
    whole = kps.kps(*features)
    details: Json = {
        "floor": whole.floor,
        "kps_rel": whole.relative,
        "cosine": whole.cosine,
    }
    for about in ("class", "other"):
        rows = [index for index, ask in enumerate(pictures.asks) if ask.about == about]
        if rows:
            details[about] = asdict(kps.kps(*(part[rows] for part in features)))
    return whole.kps, details


def _record(
    name: str, value: float, details: Json, digest: str, asks: Sequence[Ask], spec: ScoreSpec
) -> Json:
    return {
        "name": name,
        "value": value,
        "scorer": digest,
        "inputs": {
            "prompts": [ask.prompt for ask in asks],
            "seeds": [ask.seed for ask in asks],
            "steps": spec.steps,
            "guidance": spec.guidance,
        },
        "details": details,
    }
