"""Prompts without a trigger that a base knows: what can be kept beside the concepts.

Torch-free. For training (CAT's term beyond the trained prompts) and for merging (`--keep-prior`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product

from adreg.pocket.world import CLASSES

# None of these places is one that scores ask for: a score must not measure what was trained.
_SCENES = (" at night", " in the desert", " in a meadow", " on the water")
_OPENINGS = ("a photo of ", "a picture of ", "")
_COLOURS = ("red", "blue", "green", "yellow", "white")
_COMMON = (
    *("chair", "bicycle", "bird", "boat", "bottle", "flower", "horse", "lamp", "person", "tree"),
    *("cat", "dog", "car", "house", "cake", "clock", "bag", "shoe"),
)


def class_prompts(classes: Sequence[str]) -> tuple[str, ...]:
    """Each class in places and colours; several classes take turns."""
    return tuple(chain(*zip(*map(_of_class, classes), strict=True)))


def other_prompts(classes: Sequence[str], family: str) -> tuple[str, ...]:
    """Things of other classes that a base of this family knows, in places and colours."""
    known = CLASSES if family == "pocket" else _COMMON
    words = " ".join(classes).split()
    things = [thing for thing in known if thing not in words]
    # Five colours and four places: every thing meets each pair of them in another round.
    return tuple(
        _spelled(f"{_OPENINGS[0]}a {_COLOURS[(index + turn) % 5]} {thing}{_SCENES[turn]}")
        for turn in range(len(_SCENES))
        for index, thing in enumerate(things)
    )


def _of_class(word: str) -> tuple[str, ...]:
    placed = [f"{opening}a {word}{scene}" for scene, opening in product(_SCENES, _OPENINGS)]
    coloured = [f"{_OPENINGS[0]}a {colour} {word}" for colour in _COLOURS]
    return tuple(_spelled(prompt) for prompt in (*placed, *coloured))


def _spelled(prompt: str) -> str:
    """ "an orange mug": the article as the next word wants it."""
    words = prompt.split(" ")
    for at, word in enumerate(words[:-1]):
        if word == "a" and words[at + 1][:1].lower() in ("a", "e", "i", "o", "u"):
            words[at] = "an"
    return " ".join(words)
