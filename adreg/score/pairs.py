"""What multi/1 asks for: two concepts side by side, each in its half of the picture. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adreg.domain import Concept, Region, with_article
from adreg.score.prompts import called, concept_prompt

Box = tuple[float, float, float, float]
# A concept as prompts name it, and the method that trained it.
Named = tuple[Concept, str | None]

PAIR_PICTURES = 12
SIDES: tuple[Box, Box] = ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0))
_SCENES = (" on grass", " on the beach", " in the snow", " in a room")


@dataclass(frozen=True)
class PairAsk:
    """One picture asked for: the whole prompt, its seed, and of the left and of the right half the
    concept's trigger and the prompt of its region."""

    prompt: str
    seed: int
    triggers: tuple[str, str]
    regions: tuple[Region, Region]


def pair_asks(concepts: Sequence[Named], pictures: int, first_seed: int = 0) -> list[PairAsk]:
    """At least `pictures`: every ordered pair of two concepts in turn, neighbours first, then those
    two apart, and so on; then again in another scene. Every picture has a seed of its own.

    Each concept is as often on the left as on the right and as often there as any other, so there
    may be more than `pictures`. Styles and concepts without a trigger are no things to place:
    with fewer than two others there is nothing to ask for.
    """
    things = [named for named in concepts if named[0].trigger and named[0].kind != "style"]
    count = len(things)
    if count < 2:
        return []
    pairs = [
        (things[index], things[(index + apart) % count])
        for apart in range(1, count)
        for index in range(count)
    ]
    total = -(-pictures // count) * count
    return [
        _ask(*pairs[number % len(pairs)], _SCENES[number // len(pairs) % len(_SCENES)], seed)
        for number, seed in enumerate(range(first_seed, first_seed + total))
    ]


def _ask(left: Named, right: Named, scene: str, seed: int) -> PairAsk:
    # The classes alone: who is where, the regions say.
    things = [
        with_article(concept.class_word) if concept.class_word else called(concept, method)
        for concept, method in (left, right)
    ]
    placed = tuple(
        Region(box, concept_prompt(concept, scene, method))
        for box, (concept, method) in zip(SIDES, (left, right), strict=True)
    )
    prompt = f"a photo of {things[0]} and {things[1]}{scene}"
    return PairAsk(prompt, seed, (left[0].trigger, right[0].trigger), (placed[0], placed[1]))
