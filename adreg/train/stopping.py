"""`--stop-when`: a bound on what is measured while training, at which the run ends. Torch-free."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from adreg.errors import UsageError

IDENTITY, LOSS = "identity", "loss"
_BOUND = re.compile(r"\s*(identity|loss)\s*([<>])\s*([0-9.eE+-]+)\s*")
# Likeness grows while a subject is learnt, and the loss falls.
_SENSE = {IDENTITY: ">", LOSS: "<"}


@dataclass(frozen=True)
class Bound:
    """`identity>0.9`: the mean cosine of samples to the photos; `loss<0.03`: the loss's mean since
    the last look."""

    figure: str
    value: float

    def __str__(self) -> str:
        """The one spelling of a bound: what a spec holds."""
        return f"{self.figure}{_SENSE[self.figure]}{self.value!r}"

    def met(self, figures: Mapping[str, float]) -> str | None:
        """In words, why the run may end ("identity 0.913 > 0.9"); None where it may not."""
        found = figures[self.figure]
        past = found > self.value if self.figure == IDENTITY else found < self.value
        sense = _SENSE[self.figure]
        return f"{self.figure} {found:.4g} {sense} {self.value:g}" if past else None


def read_bound(text: str) -> Bound:
    """The bound that a user wrote. Raises UsageError for anything but the two forms."""
    hit = _BOUND.fullmatch(text)
    value = _number(hit[3]) if hit else math.nan
    if hit is None or _SENSE[hit[1]] != hit[2] or not _can_be_met(hit[1], value):
        raise UsageError(
            f"training spec: stop_when cannot be {text!r}",
            remedy='--stop-when: write "identity>0.9" (below 1) or "loss<0.03" (above 0)',
        )
    return Bound(hit[1], value)


def _can_be_met(figure: str, value: float) -> bool:
    """A cosine is 1 at most, and the loss a sum of squares."""
    return -1 <= value < 1 if figure == IDENTITY else 0 < value < math.inf


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
