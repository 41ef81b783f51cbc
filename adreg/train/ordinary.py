"""Prompts without a trigger that a base knows: what CAT's term can keep beside the trained prompts.

Torch-free. Our own extension of CAT [O]: the paper's term only sees the trained prompts with the
trigger taken out, so only such prompts are preserved.
"""

from __future__ import annotations

from itertools import chain, product

from adreg.pocket.world import CLASSES
from adreg.train.spec import TrainSpec

# None of these places is one that scores ask for: a score must not measure what was trained.
_SCENES = (" at night", " in the desert", " in a meadow", " on the water")
_OPENINGS = ("a photo of ", "a picture of ", "")
_COLOURS = ("red", "blue", "green", "yellow", "white")
_COMMON = (
    *("chair", "bicycle", "bird", "boat", "bottle", "flower", "horse", "lamp", "person", "tree"),
    *("cat", "dog", "car", "house", "cake", "clock", "bag", "shoe"),
)


def preserved_prompts(spec: TrainSpec, family: str) -> tuple[tuple[str, ...], ...]:
    """The groups of prompts that CAT's term sees in turn with the trained ones, by `cat_prompts`.

    `own`: no further group. `class`: the class in places and colours. `other`: the class, and
    other things that a base of this family knows. No trigger is in any of them.
    """
    if spec.cat_prompts == "own":
        return ()
    words = dict.fromkeys(concept.class_word for concept in spec.concepts)
    # Several classes take turns.
    of_class = tuple(chain(*zip(*map(_class_prompts, words), strict=True)))
    return (of_class, _other_prompts(spec, family)) if spec.cat_prompts == "other" else (of_class,)


def _class_prompts(word: str) -> tuple[str, ...]:
    placed = [f"{opening}a {word}{scene}" for scene, opening in product(_SCENES, _OPENINGS)]
    coloured = [f"{_OPENINGS[0]}a {colour} {word}" for colour in _COLOURS]
    return tuple(_spelled(prompt) for prompt in (*placed, *coloured))


def _other_prompts(spec: TrainSpec, family: str) -> tuple[str, ...]:
    known = CLASSES if family == "pocket" else _COMMON
    words = " ".join(concept.class_word for concept in spec.concepts).split()
    things = [thing for thing in known if thing not in words]
    # Five colours and four places: every thing meets each pair of them in another round.
    return tuple(
        _spelled(f"{_OPENINGS[0]}a {_COLOURS[(index + turn) % 5]} {thing}{_SCENES[turn]}")
        for turn in range(len(_SCENES))
        for index, thing in enumerate(things)
    )


def _spelled(prompt: str) -> str:
    """ "an orange mug": the article as the next word wants it."""
    words = prompt.split(" ")
    for at, word in enumerate(words[:-1]):
        if word == "a" and words[at + 1][:1].lower() in ("a", "e", "i", "o", "u"):
            words[at] = "an"
    return " ".join(words)
