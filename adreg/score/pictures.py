"""What one adapter's scores look at: pictures sampled once, for every score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from adreg.diffusion.attach import attach, detach_all
from adreg.diffusion.sample import sample
from adreg.domain import Concept, Progress
from adreg.formats.read import AdapterWeights
from adreg.score.prompts import Ask, concept_asks, ordinary_asks, other_noise, repeated_asks
from adreg.score.spec import ScoreSpec

_REPEATED_NOISE = 2_000_000


@dataclass(frozen=True)
class Pictures:
    """What was sampled: `base`, `again` (other noise) and `adapted` are paired with `asks`.

    `repeated` are by the adapter, paired with `repeated_asks`: a few pictures of each prompt;
    `repeated_base` by the base, of those that ask for a class.
    """

    asks: list[Ask]
    base: list[Image.Image]
    again: list[Image.Image]
    adapted: list[Image.Image]
    concept_asks: list[Ask]
    concept: list[Image.Image]
    repeated_asks: list[Ask] = field(default_factory=list)
    repeated: list[Image.Image] = field(default_factory=list)
    repeated_base: list[Image.Image] = field(default_factory=list)


def sample_pictures(
    pipe: Any,
    weights: AdapterWeights,
    concepts: Sequence[Concept],
    spec: ScoreSpec,
    progress: Progress,
) -> Pictures:
    """Ordinary prompts with the base, with the base and other noise, and with the adapter;
    concept prompts with the adapter; one prompt often. The pipeline's layers are the base's again
    afterwards.

    Raises what `attach` raises.
    """
    method = weights.manifest.get("method")
    asks = ordinary_asks(concepts, spec.prompts, spec.seeds, spec.seed)
    own = concept_asks(concepts, spec.concept_prompts, spec.seeds, spec.seed, method)
    often = repeated_asks(concepts, spec.samples, spec.seed + _REPEATED_NOISE, method)
    of_class = [ask for ask in often if ask.about == "class"]
    moved = other_noise(asks)
    images = sample_asks(pipe, [*asks, *moved, *of_class], spec, "the base", progress)
    attach(pipe, "measured", weights)
    try:
        made = sample_asks(pipe, [*asks, *own, *often], spec, "the adapter", progress)
    finally:
        detach_all(pipe)
    one, two, three = len(asks), 2 * len(asks), len(asks) + len(own)
    return Pictures(
        asks=asks,
        base=images[:one],
        again=images[one:two],
        adapted=made[:one],
        concept_asks=own,
        concept=made[one:three],
        repeated_asks=often,
        repeated=made[three:],
        repeated_base=images[two:],
    )


def sample_asks(
    pipe: Any, asks: Sequence[Ask], spec: ScoreSpec, what: str, progress: Progress
) -> list[Image.Image]:
    """A picture for each ask; `what` the progress calls it a picture of."""

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
