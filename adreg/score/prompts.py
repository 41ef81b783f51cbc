"""The prompts a measurement samples: of the class, of other things, and of the concept itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from adreg.domain import Concept

_SCENES = ("", " in the snow", " on the beach", " on the street", " on grass", " in a room")
_OPENINGS = ("a photo of ", "a picture of ", "")
_THINGS = ("cat", "car", "house", "dog", "tree", "teapot", "fish", "mug", "duck", "backpack")


@dataclass(frozen=True)
class Ask:
    """One image asked for: the prompt, its seed, and what the picture should show, in words.

    `about` is "class", "other" or "concept"; `trigger` is the concept's.
    """

    prompt: str
    seed: int
    about: str
    text: str
    trigger: str = ""


def ordinary_asks(
    concepts: Sequence[Concept], prompts: int, seeds: int, first_seed: int
) -> list[Ask]:
    """Prompts without a trigger: half of the concepts' classes, half of other things.

    Without a class word all are of other things.
    """
    words = list(dict.fromkeys(concept.class_word for concept in concepts if concept.class_word))
    of_class = [
        f"{opening}{with_article(word)}{scene}"
        for opening, scene, word in product(_OPENINGS, _SCENES, words)
    ]
    things = [thing for thing in _THINGS if thing not in words]
    of_others = [
        f"{_OPENINGS[0]}{with_article(thing)}{_SCENES[(index + turn) % len(_SCENES)]}"
        for turn in range(len(_SCENES))
        for index, thing in enumerate(things)
    ]
    share = min(len(of_class), (prompts + 1) // 2)
    asks = [Ask(text, 0, "class", text) for text in of_class[:share]]
    asks += [Ask(text, 0, "other", text) for text in of_others[: prompts - share]]
    return _with_seeds(asks, seeds, first_seed)


def concept_asks(
    concepts: Sequence[Concept], prompts: int, seeds: int, first_seed: int, *, named: bool
) -> list[Ask]:
    """Prompts with the trigger, concepts in turn; `text` says the same without it.

    `named` says whether the class word stands beside the trigger, as in training.
    """
    known = [concept for concept in concepts if concept.trigger]
    asks = []
    for scene, concept in list(product(_SCENES, known))[:prompts]:
        shown = f"{concept.trigger} {concept.class_word}" if named else concept.trigger
        subject = with_article(shown) if named and concept.class_word else concept.trigger
        plain = f" of {with_article(concept.class_word)}" if concept.class_word else ""
        prompt, text = f"a photo of {subject}{scene}", f"a photo{plain}{scene}"
        asks.append(Ask(prompt, 0, "concept", text, concept.trigger))
    return _with_seeds(asks, seeds, first_seed)


def with_article(words: str) -> str:
    """'a dog', 'an orange mug', 'a <rex> dog'."""
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def _with_seeds(asks: list[Ask], seeds: int, first: int) -> list[Ask]:
    """Every prompt with seeds of its own, so that the noises differ between prompts too."""
    return [
        replace(ask, seed=first + index * seeds + turn)
        for index, ask in enumerate(asks)
        for turn in range(seeds)
    ]
