"""Prompts that CAT's term sees beside the trained ones. Torch-free.

Our own extension of CAT [O]: the paper's term only sees the trained prompts with the trigger taken
out, so only such prompts are preserved.
"""

from __future__ import annotations

from adreg.bases.words import class_prompts, other_prompts
from adreg.train.spec import TrainSpec


def preserved_prompts(spec: TrainSpec, family: str) -> tuple[tuple[str, ...], ...]:
    """The groups of prompts that CAT's term sees in turn with the trained ones, by `cat_prompts`.

    `own`: no further group. `class`: the class in places and colours. `other`: the class, and
    other things that a base of this family knows. No trigger is in any of them.
    """
    if spec.cat_prompts == "own":
        return ()
    words = list(dict.fromkeys(concept.class_word for concept in spec.concepts))
    of_class = class_prompts(words)
    if spec.cat_prompts == "class":
        return (of_class,)
    return (of_class, other_prompts(words, family))
