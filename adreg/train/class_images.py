"""Class images: what the base makes of a subject's class, for prior preservation. Torch-free.

Made once for a base and a class: the same key is the same pictures, whichever subject asks. A run
of several concepts needs those of each of their classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adreg.domain import Json
from adreg.store.digest import sha256_json
from adreg.train.prompts import class_prompts
from adreg.train.spec import TrainSpec

_STEPS = 25
_GUIDANCE = {"pocket": 3.0, "sdxl": 5.0}
_USUAL_GUIDANCE = 7.5


@dataclass(frozen=True)
class ClassImages:
    """`count` pictures of one prompt by the base of that digest, with seeds from `seed` on."""

    base: str
    prompt: str
    count: int
    steps: int
    guidance: float
    seed: int

    def key(self) -> str:
        """SHA-256 of everything that decides the pictures."""
        return sha256_json(asdict(self))

    def names(self) -> list[str]:
        """Their file names, in the order of the seeds."""
        return [f"{number:05}.png" for number in range(self.count)]

    def to_json(self) -> Json:
        """Plain JSON; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ClassImages:
        return cls(**content)


def class_images(spec: TrainSpec, base: str, family: str) -> tuple[ClassImages, ...]:
    """The class images of a run on the base of that digest, those of each class once, in the order
    of the concepts; none where it needs none.
    """
    if not spec.prior_images:
        return ()
    guidance = _GUIDANCE.get(family, _USUAL_GUIDANCE)
    return tuple(
        ClassImages(base, prompt, spec.prior_images, _STEPS, guidance, seed=0)
        for prompt in class_prompts(spec)
    )
