"""One adapter's pictures, measured: every score as a record of value, inputs and details."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from PIL import Image
from torch import Tensor

from adreg.domain import Concept, Json
from adreg.score import alignment, diversity, identity, kps, preservation
from adreg.score.bootstrap import Statistic, even, interval, mean
from adreg.score.features import ImageScorer, Scorer
from adreg.score.pictures import Pictures
from adreg.score.prompts import Ask
from adreg.score.spec import ScoreSpec

Photos = Mapping[str, Sequence[Image.Image]]


def scores(pictures: Pictures, scorer: Scorer, digest: str, spec: ScoreSpec) -> list[Json]:
    """The scores as records: name, value, scorer's digest, all inputs, details.

    `details["interval"]` is the 95 % bootstrap interval over prompts (over pictures for div/1),
    left out where there is one unit alone. text-alignment/1 and div/1 are left out where the
    adapter has no trigger to ask for.
    """
    found = [_kps(pictures, scorer, digest, spec)]
    if pictures.concept:
        found.append(_alignment(pictures, scorer, digest, spec))
    if spec.samples > 1 and any(ask.about == "concept" for ask in pictures.repeated_asks):
        found.append(_diversity(pictures, scorer, digest, spec))
    return found


def likeness(
    pictures: Pictures,
    concepts: Sequence[Concept],
    photos: Photos,
    scorer: ImageScorer,
    digest: str,
    spec: ScoreSpec,
) -> list[Json]:
    """What is held against photos: identity/1, and pres/1 where there are pictures of the class.

    `photos` maps triggers to photos; pictures of other concepts are left out.
    """
    real = {trigger: scorer.images(of_one) for trigger, of_one in photos.items()}
    found = []
    if any(ask.trigger in photos for ask in pictures.concept_asks):
        found.append(_identity(pictures, real, scorer, digest, spec))
    words = {concept.class_word for concept in concepts if concept.trigger in photos}
    if any(ask.about == "class" and ask.word in words for ask in pictures.asks):
        found.append(_preservation(pictures, concepts, real, scorer, digest, spec))
    return found


def record(
    name: str, value: float, details: Json, digest: str, asks: Sequence[Ask], spec: ScoreSpec
) -> Json:
    """A score as jobs hand it over."""
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


def _kps(pictures: Pictures, scorer: Scorer, digest: str, spec: ScoreSpec) -> Json:
    base, adapted, again = (
        scorer.images(row) for row in (pictures.base, pictures.adapted, pictures.again)
    )
    whole = kps.kps(base, adapted, again)
    details: Json = {
        **_interval(pictures.asks, kps.harmonic((base * adapted).sum(dim=-1))),
        "floor": whole.floor,
        "kps_rel": whole.relative,
        "cosine": whole.cosine,
    }
    for about in ("class", "other"):
        rows = [index for index, ask in enumerate(pictures.asks) if ask.about == about]
        if rows:
            details[about] = asdict(kps.kps(base[rows], adapted[rows], again[rows]))
    return record(kps.NAME, whole.kps, details, digest, pictures.asks, spec)


def _alignment(pictures: Pictures, scorer: Scorer, digest: str, spec: ScoreSpec) -> Json:
    asks = pictures.concept_asks
    texts = [ask.text for ask in asks]
    each = alignment.alignment(scorer.images(pictures.concept), scorer.texts(texts))
    details = {
        **_interval(asks, mean(each)),
        "each": each,
        "by_concept": _by_concept(asks, each),
        "texts": texts,
    }
    return record(alignment.NAME, _mean(each), details, digest, asks, spec)


def _diversity(pictures: Pictures, scorer: Scorer, digest: str, spec: ScoreSpec) -> Json:
    """The concept's own prompt; beside it the class's, by the adapter and by the base."""
    asks, made = pictures.repeated_asks, pictures.repeated
    own = [image for ask, image in zip(asks, made, strict=True) if ask.about == "concept"]
    of_class = [image for ask, image in zip(asks, made, strict=True) if ask.about == "class"]
    statistic = _apart(scorer.images(own), spec.samples)
    weights = even(spec.samples)
    details: Json = _interval(range(spec.samples), statistic)
    if of_class:
        adapted, base = scorer.images(of_class), scorer.images(pictures.repeated_base)
        details["class"] = float(_apart(adapted, spec.samples)(weights)[0])
        details["class_by_base"] = float(_apart(base, spec.samples)(weights)[0])
    return record(diversity.NAME, float(statistic(weights)[0]), details, digest, asks, spec)


def _apart(features: Tensor, samples: int) -> Statistic:
    """From features (prompts * samples x d), the pictures of a prompt one after the other."""
    by_prompt = features.reshape(-1, samples, features.shape[-1])
    return diversity.mean_pairwise(diversity.distances(by_prompt))


def _identity(
    pictures: Pictures,
    real: Mapping[str, Tensor],
    scorer: ImageScorer,
    digest: str,
    spec: ScoreSpec,
) -> Json:
    """Each concept's pictures against the photos of its own subject."""
    rows = [
        (ask, image)
        for ask, image in zip(pictures.concept_asks, pictures.concept, strict=True)
        if ask.trigger in real
    ]
    asks = [ask for ask, _ in rows]
    made = scorer.images(image for _, image in rows)
    each = [identity.identity(made[[row]], real[ask.trigger])[0] for row, ask in enumerate(asks)]
    details = {
        **_interval(asks, mean(each)),
        "each": each,
        "by_concept": _by_concept(asks, each),
        "photos": {trigger: len(features) for trigger, features in real.items()},
        "photos_alike": {trigger: identity.alike(features) for trigger, features in real.items()},
    }
    return record(identity.NAME, _mean(each), details, digest, asks, spec)


def _preservation(
    pictures: Pictures,
    concepts: Sequence[Concept],
    real: Mapping[str, Tensor],
    scorer: ImageScorer,
    digest: str,
    spec: ScoreSpec,
) -> Json:
    """Each class's pictures against the photos of every concept of that class."""
    known = [concept for concept in concepts if concept.trigger in real]
    pairs = [
        (row, concept)
        for row, ask in enumerate(pictures.asks)
        for concept in known
        if ask.about == "class" and ask.word == concept.class_word
    ]
    asks = [pictures.asks[row] for row, _ in pairs]
    adapted, base = scorer.images(pictures.adapted), scorer.images(pictures.base)

    def of(features: Tensor) -> list[float]:
        return [
            preservation.preservation(features[[row]], real[concept.trigger])[0]
            for row, concept in pairs
        ]

    each, by_base = of(adapted), of(base)
    details = {**_interval(asks, mean(each)), "by_base": _mean(by_base), "each": each}
    return record(preservation.NAME, _mean(each), details, digest, asks, spec)


def _interval(rows: Sequence[Ask] | range, statistic: Statistic) -> Json:
    """Rows are pictures: those of one prompt are one unit; or each is a unit of its own."""
    units = [row.prompt if isinstance(row, Ask) else row for row in rows]
    found = interval(units, statistic)
    return {} if found is None else {"interval": found}


def _by_concept(asks: Sequence[Ask], each: Sequence[float]) -> dict[str, float]:
    """Trigger to the mean over its own pictures."""
    found: dict[str, list[float]] = {}
    for ask, value in zip(asks, each, strict=True):
        found.setdefault(ask.trigger, []).append(value)
    return {trigger: _mean(values) for trigger, values in found.items()}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
