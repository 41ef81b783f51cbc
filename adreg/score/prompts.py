"""The prompts a measurement samples: of the class, of other things, and of the concept itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from adreg.domain import LINE_METHODS, NAMELESS_METHODS, Concept, with_article

_SCENES = ("", " in the snow", " on the beach", " on the street", " on grass", " in a room")
_OPENINGS = ("a photo of ", "a picture of ", "")
_THINGS = ("cat", "car", "house", "dog", "tree", "teapot", "fish", "mug", "duck", "backpack")
_OTHER_NOISE = 1_000_000


@dataclass(frozen=True)
class Ask:
    """One image asked for: the prompt, its seed, and what the picture should show, in words.

    `about` is "class", "other" or "concept"; `trigger` is the concept's, `word` the class's.
    """

    prompt: str
    seed: int
    about: str
    text: str
    trigger: str = ""
    word: str = ""


def ordinary_asks(
    concepts: Sequence[Concept], prompts: int, seeds: int, first_seed: int
) -> list[Ask]:
    """Prompts without a trigger: half of the concepts' classes, half of other things.

    Without a class word all are of other things. Every class has as many as the others, so there
    may be more than `prompts` where that is no multiple of the classes.
    """
    classes = one_of_each_class(concepts)
    of_class = {
        _class_prompt(concept, opening, scene): concept.class_word
        for opening, scene, concept in product(_OPENINGS, _SCENES, classes)
    }
    things = [thing for thing in _THINGS if thing not in of_class.values()]
    of_others = [
        f"{_OPENINGS[0]}{with_article(thing)}{_SCENES[(index + turn) % len(_SCENES)]}"
        for turn in range(len(_SCENES))
        for index, thing in enumerate(things)
    ]
    share = _even_share((prompts + 1) // 2, len(classes))
    asks = [Ask(text, 0, "class", text, word=of_class[text]) for text in [*of_class][:share]]
    others = max(prompts - len(asks), prompts // 2)
    asks += [Ask(text, 0, "other", text) for text in of_others[:others]]
    return _with_seeds(asks, seeds, first_seed)


def concept_asks(
    concepts: Sequence[Concept], prompts: int, seeds: int, first_seed: int, method: str | None
) -> list[Ask]:
    """Prompts with the trigger, concepts in turn; `text` says the same without it.

    Every concept has as many as the others, so there may be more than `prompts`.
    """
    known = [concept for concept in concepts if concept.trigger]
    pairs = list(product(_SCENES, known))[: _even_share(prompts, len(known))]
    asks = [_concept_ask(concept, scene, method) for scene, concept in pairs]
    return _with_seeds(asks, seeds, first_seed)


def repeated_asks(
    concepts: Sequence[Concept], samples: int, first_seed: int, method: str | None
) -> list[Ask]:
    """One prompt of each class, then one of each concept, every one with `samples` seeds."""
    plain = {plain_prompt(concept): concept.class_word for concept in one_of_each_class(concepts)}
    asks = [Ask(text, 0, "class", text, word=word) for text, word in plain.items()]
    asks += [_concept_ask(concept, "", method) for concept in concepts if concept.trigger]
    return _with_seeds(asks, samples, first_seed)


def concept_prompt(concept: Concept, scene: str, method: str | None) -> str:
    """What asks for a concept, as training did: "a photo of a <rex> dog in the snow".

    Without its class word where the method trains without; "... in the style of <ink>" for a
    style.
    """
    style = concept.kind == "style" and method not in LINE_METHODS
    if style and concept.class_word:
        return f"{with_article(concept.class_word)}{scene} in the style of {concept.trigger}"
    return f"a photo of {called(concept, method)}{scene}"


def called(concept: Concept, method: str | None) -> str:
    """How a prompt names a concept that is a thing: "a <rex> dog", or "<rex>" alone."""
    if not concept.class_word or method in NAMELESS_METHODS:
        return concept.trigger
    return with_article(f"{concept.trigger} {concept.class_word}")


def plain_prompt(concept: Concept, scene: str = "") -> str:
    """What asks for the concept's class: "a photo of a dog in the snow", "a drawing in the snow"
    where that is a style's; "a photo in the snow" without a class word."""
    return _class_prompt(concept, _OPENINGS[0], scene) if concept.class_word else f"a photo{scene}"


def one_of_each_class(concepts: Sequence[Concept]) -> list[Concept]:
    """The first concept of each class."""
    found: dict[str, Concept] = {}
    for concept in concepts:
        if concept.class_word:
            found.setdefault(concept.class_word, concept)
    return list(found.values())


def _concept_ask(concept: Concept, scene: str, method: str | None) -> Ask:
    prompt, text = concept_prompt(concept, scene, method), plain_prompt(concept, scene)
    return Ask(prompt, 0, "concept", text, concept.trigger, concept.class_word)


def _class_prompt(concept: Concept, opening: str, scene: str) -> str:
    # A style's class is a kind of picture, and there is no photo of one.
    words = with_article(concept.class_word)
    return f"{words}{scene}" if concept.kind == "style" else f"{opening}{words}{scene}"


def _even_share(wanted: int, among: int) -> int:
    """`wanted`, or the next multiple of `among`."""
    return math.ceil(wanted / among) * among if among else 0


def other_noise(asks: Sequence[Ask]) -> list[Ask]:
    """The same prompts with other seeds."""
    return [replace(ask, seed=ask.seed + _OTHER_NOISE) for ask in asks]


def _with_seeds(asks: list[Ask], seeds: int, first: int) -> list[Ask]:
    """Every prompt with seeds of its own, so that the noises differ between prompts too."""
    return [
        replace(ask, seed=first + index * seeds + turn)
        for index, ask in enumerate(asks)
        for turn in range(seeds)
    ]
