"""The prompts a measurement samples: of the class, of other things, and of the concept itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

from adreg.domain import LINE_METHODS, NAMELESS_METHODS, Concept

_SCENES = ("", " in the snow", " on the beach", " on the street", " on grass", " in a room")
_OPENINGS = ("a photo of ", "a picture of ", "")
_THINGS = ("cat", "car", "house", "dog", "tree", "teapot", "fish", "mug", "duck", "backpack")


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

    Without a class word all are of other things.
    """
    words = list(dict.fromkeys(concept.class_word for concept in concepts if concept.class_word))
    of_class = [
        (f"{opening}{with_article(word)}{scene}", word)
        for opening, scene, word in product(_OPENINGS, _SCENES, words)
    ]
    things = [thing for thing in _THINGS if thing not in words]
    of_others = [
        f"{_OPENINGS[0]}{with_article(thing)}{_SCENES[(index + turn) % len(_SCENES)]}"
        for turn in range(len(_SCENES))
        for index, thing in enumerate(things)
    ]
    share = min(len(of_class), (prompts + 1) // 2)
    asks = [Ask(text, 0, "class", text, word=word) for text, word in of_class[:share]]
    asks += [Ask(text, 0, "other", text) for text in of_others[: prompts - share]]
    return _with_seeds(asks, seeds, first_seed)


def concept_asks(
    concepts: Sequence[Concept], prompts: int, seeds: int, first_seed: int, method: str | None
) -> list[Ask]:
    """Prompts with the trigger, concepts in turn; `text` says the same without it."""
    known = [concept for concept in concepts if concept.trigger]
    pairs = list(product(_SCENES, known))[:prompts]
    asks = [_concept_ask(concept, scene, method) for scene, concept in pairs]
    return _with_seeds(asks, seeds, first_seed)


def repeated_asks(
    concepts: Sequence[Concept], samples: int, first_seed: int, method: str | None
) -> list[Ask]:
    """One prompt of each class, then one of each concept, every one with `samples` seeds."""
    words = dict.fromkeys(concept.class_word for concept in concepts if concept.class_word)
    plain = [(plain_prompt(word), word) for word in words]
    asks = [Ask(text, 0, "class", text, word=word) for text, word in plain]
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


def _concept_ask(concept: Concept, scene: str, method: str | None) -> Ask:
    word = concept.class_word
    if word and concept.kind == "style":
        text = f"{with_article(word)}{scene}"
    else:
        text = plain_prompt(word, scene) if word else f"a photo{scene}"
    prompt = concept_prompt(concept, scene, method)
    return Ask(prompt, 0, "concept", text, concept.trigger, word)


def plain_prompt(word: str, scene: str = "") -> str:
    """What asks for the class: "a photo of a dog in the snow"."""
    return f"a photo of {with_article(word)}{scene}"


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
