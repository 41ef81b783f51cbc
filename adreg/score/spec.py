"""How an adapter is measured, as a frozen record. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from adreg.domain import Json
from adreg.errors import UsageError
from adreg.store.digest import sha256_json

VERSION = 1


@dataclass(frozen=True)
class ScoreSpec:
    """`prompts` without and `concept_prompts` with the trigger, each sampled with `seeds` seeds;
    more where several classes or concepts are to have as many as each other.

    `samples` are the pictures of one prompt that div/1 compares; 0 leaves it out.
    Raises UsageError naming the field that is wrong.
    """

    prompts: int = 12
    concept_prompts: int = 6
    seeds: int = 1
    steps: int = 20
    guidance: float = 7.5
    seed: int = 0
    samples: int = 4

    def __post_init__(self) -> None:
        for field in fields(self):
            _check(field.name, getattr(self, field.name))

    def digest(self) -> str:
        return sha256_json(self.to_json())

    def to_json(self) -> Json:
        """Plain JSON; `from_json` gives an equal spec back."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ScoreSpec:
        """A spec from its JSON. Raises UsageError naming an unknown, missing or wrong field."""
        # Jobs that were queued before there was div/1 do not ask for it.
        given = {"samples": 0, **content}
        given.pop("version", None)
        known = [field.name for field in fields(cls)]
        odd = sorted(set(given) ^ set(known))
        if content.get("version") != VERSION or odd:
            raise UsageError(
                f"score spec: wrong version, or unknown or missing fields: {', '.join(odd)}",
                remedy=f"version {VERSION} has {', '.join(known)}",
            )
        return cls(**given)


def score_spec(family: str) -> ScoreSpec:
    """The usual measurement on a base family: half a minute on the pocket base."""
    return ScoreSpec(guidance=3.0) if family == "pocket" else ScoreSpec(steps=25)


_BOUNDS = {
    "prompts": (1, 1000),
    "concept_prompts": (0, 1000),
    "seeds": (1, 1000),
    "steps": (1, 1000),
    "seed": (0, 2**62),
    "samples": (0, 1000),
    "guidance": (0, 100),
}


def _check(name: str, value: Any) -> None:
    low, high = _BOUNDS[name]
    kind = (int, float) if name == "guidance" else int
    fits = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or not low <= value <= high:
        raise UsageError(f"score spec: {name} cannot be {value!r}", remedy=f"give {low} to {high}")
