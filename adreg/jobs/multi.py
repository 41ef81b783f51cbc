"""multi/1 of a pipeline with several concepts: pictures of pairs, made and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from adreg.diffusion.regions import regions
from adreg.diffusion.sample import sample
from adreg.domain import Json, Progress, silent
from adreg.score.features import ImageScorer
from adreg.score.multi import multi
from adreg.score.pairs import PAIR_PICTURES, Named, PairAsk, pair_asks
from adreg.score.spec import ScoreSpec


@dataclass(frozen=True)
class Together:
    """The record of multi/1 and the pictures it is of, each with what asked for it."""

    record: Json
    asks: list[PairAsk]
    pictures: list[Image.Image]


def multi_score(
    pipe: Any,
    concepts: Sequence[Named],
    photos: Mapping[str, Sequence[Image.Image]],
    scorer: ImageScorer,
    digest: str,
    spec: ScoreSpec,
    progress: Progress = silent,
) -> Together | None:
    """multi/1 of what a pipeline draws; None where fewer than two concepts have photos and can be
    placed.

    `concepts` with the method that trained each, by the triggers that `pipe` knows, as the photos
    are; `digest` is the identity scorer's; steps, guidance and first seed are the spec's.
    """
    known = [(concept, method) for concept, method in concepts if concept.trigger in photos]
    asks = pair_asks(known, PAIR_PICTURES, spec.seed)
    if not asks:
        return None
    pictures = sample_pairs(pipe, asks, spec, progress)
    gallery = {trigger: scorer.images(of_one) for trigger, of_one in photos.items()}
    return Together(multi(asks, pictures, gallery, scorer, digest, spec), asks, pictures)


def sample_pairs(
    pipe: Any, asks: Sequence[PairAsk], spec: ScoreSpec, progress: Progress = silent
) -> list[Image.Image]:
    """One picture for each ask, its regions in place."""
    by_regions: dict[Any, list[int]] = {}
    for number, ask in enumerate(asks):
        by_regions.setdefault(ask.regions, []).append(number)
    found: dict[int, Image.Image] = {}
    for placed, numbers in by_regions.items():
        with regions(pipe, placed):
            made = sample(
                pipe,
                [asks[number].prompt for number in numbers],
                [asks[number].seed for number in numbers],
                steps=spec.steps,
                guidance=spec.guidance,
            )
        found.update(zip(numbers, made, strict=True))
        progress("sample pairs", len(found), len(asks))
    return [found[number] for number in range(len(asks))]
