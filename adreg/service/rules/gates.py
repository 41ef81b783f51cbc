"""Gates: `kps_rel > 0.8`, a bound that a figure of an adapter must meet before it is used."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from adreg.errors import UsageError

# Figure to the score that it stands in.
FIGURES = {
    "kps": "kps",
    "kps_rel": "kps",
    "text-alignment": "text-alignment",
    "identity": "identity",
    "pres": "pres",
    "div": "div",
    "forgetting": "forgetting",
    "a-mmd": "a-mmd",
    "f-mmd": "f-mmd",
}
SCORES = tuple(dict.fromkeys(FIGURES.values()))
OF_PHOTOS = ("identity", "pres", "forgetting", "a-mmd", "f-mmd")  # need an identity scorer
OF_LINES = ("forgetting", "a-mmd", "f-mmd")

_SENSES: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_GATE = re.compile(r"\s*([a-z_-]+)(?:/1)?\s*(>=|<=|>|<)\s*(\S+)\s*")


@dataclass(frozen=True)
class Gate:
    """A bound on a figure; `sense` is one of >, >=, < and <=."""

    figure: str
    sense: str
    bound: float

    def __str__(self) -> str:
        return f"{self.figure} {self.sense} {self.bound:g}"

    @property
    def score(self) -> str:
        """The score that the figure is of."""
        return FIGURES[self.figure]

    def met(self, value: float) -> bool:
        return _SENSES[self.sense](value, self.bound)


def read_gate(text: str) -> Gate:
    """The gate that a user wrote. Raises UsageError for an unknown figure, and for no such form."""
    hit = _GATE.fullmatch(text)
    bound = _number(hit[3]) if hit else math.nan
    if hit is None or not math.isfinite(bound):
        raise UsageError(
            f"cannot be {text!r}", remedy='write a gate like "kps_rel > 0.8": >, >=, < or <='
        )
    return Gate(known(hit[1], FIGURES), hit[2], bound)


def known(name: str, among: dict[str, str] | tuple[str, ...]) -> str:
    """The name itself. Raises UsageError, with the nearest, where it is none of them."""
    if name not in among:
        near = difflib.get_close_matches(name, list(among), n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(among)}"
        raise UsageError(f"cannot be {name!r}", remedy=remedy)
    return name


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
