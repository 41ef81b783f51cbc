"""What a training run is to do, as a frozen record: everything that decides the result is here.

Torch-free, so that a command can check, print and digest a spec before any work starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from adreg.domain import Json, SubjectKind
from adreg.errors import UsageError
from adreg.store.digest import sha256_json

Method = Literal["lora", "cat", "c-lora"]
VERSION = 1


@dataclass(frozen=True)
class TrainSpec:
    """A training run, completely stated. Raises UsageError naming the field that is wrong.

    `learning_rate` is the low-rank factors', `token_learning_rate` the trigger embedding's.
    `cat_weight` is CAT's c and `penalty_weight` C-LoRA's lambda; other methods leave them at 0.
    `checkpoint_every` steps the state is saved: it decides nothing and is not part of the digest.
    """

    method: Method
    trigger: str
    class_word: str
    kind: SubjectKind
    steps: int
    rank: int
    batch: int
    learning_rate: float
    token_learning_rate: float
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    cat_weight: float = 0.0
    penalty_weight: float = 0.0
    seed: int = 0
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        for name, allowed in (("method", get_args(Method)), ("kind", get_args(SubjectKind))):
            if getattr(self, name) not in allowed:
                raise _wrong(name, getattr(self, name), f"choose one of {', '.join(allowed)}")
        _check_words(self)
        for name, (kind, low, high) in _BOUNDS.items():
            _check_number(name, getattr(self, name), kind, low, high)
        _check_weights(self)

    def essence(self) -> Json:
        """All that decides the result, as plain JSON: what a manifest records."""
        content = self.to_json()
        del content["checkpoint_every"]
        return content

    def digest(self) -> str:
        """SHA-256 of the essence: the same folder, base and digest are the same training run."""
        return sha256_json(self.essence())

    def to_json(self) -> Json:
        """Plain JSON; `from_json` gives an equal spec back."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TrainSpec:
        """A spec from its JSON. Raises UsageError naming an unknown, missing or wrong field."""
        if content.get("version") != VERSION:
            raise _wrong("version", content.get("version"), f"this adreg writes {VERSION}")
        given = {key: value for key, value in content.items() if key != "version"}
        _check_fields(given)
        if missing := [f.name for f in fields(cls) if f.name not in given]:
            raise UsageError(f"training spec: {missing[0]} is missing", remedy="give it a value")
        return cls(**given)


_BOUNDS: dict[str, tuple[type, float, float]] = {
    "steps": (int, 1, 1_000_000),
    "rank": (int, 1, 1024),
    "batch": (int, 1, 1024),
    "learning_rate": (float, 1e-9, 1.0),
    "token_learning_rate": (float, 0.0, 1.0),
    "weight_decay": (float, 0.0, 1.0),
    "max_grad_norm": (float, 1e-6, 1e6),
    "cat_weight": (float, 0.0, 1e6),
    "penalty_weight": (float, 0.0, 1e15),
    "seed": (int, 0, 2**63 - 1),
    "checkpoint_every": (int, 1, 1_000_000),
}

# CAT's released code: SD1.5, rank 1, 1e-4, 900 steps of one 512 px image, weight 1. C-LoRA's
# reported settings: rank 16, 5e-4, lambda 1e8. The pocket base's were measured on it.
_SD: dict[Method, Json] = {
    "lora": {"steps": 900, "rank": 4, "batch": 1, "learning_rate": 1e-4},
    "cat": {"steps": 900, "rank": 4, "batch": 1, "learning_rate": 1e-4, "cat_weight": 1.0},
    "c-lora": {
        "steps": 900,
        "rank": 16,
        "batch": 1,
        "learning_rate": 5e-4,
        "penalty_weight": 1e8,
    },
}
_POCKET: dict[Method, Json] = {
    "lora": {"steps": 300, "rank": 4, "batch": 4, "learning_rate": 2e-3},
    "cat": {"steps": 250, "rank": 4, "batch": 4, "learning_rate": 3e-3, "cat_weight": 2.0},
    "c-lora": {
        "steps": 300,
        "rank": 4,
        "batch": 4,
        "learning_rate": 2e-3,
        "penalty_weight": 1e3,
    },
}
_TOKEN_RATES = {"pocket": 1e-2}
_USUAL_TOKEN_RATE = 5e-4


def make_spec(
    method: str,
    family: str,
    *,
    trigger: str,
    class_word: str,
    kind: SubjectKind = "object",
    **settings: Any,
) -> TrainSpec:
    """The defaults of a method on a base family, `settings` over them.

    Raises UsageError naming the field that is unknown or wrong.
    """
    table: Mapping[str, Json] = _POCKET if family == "pocket" else _SD  # type: ignore[assignment]
    if method not in table:
        raise _wrong("method", method, f"choose one of {', '.join(table)}")
    _check_fields(settings)
    return TrainSpec(
        **{
            "method": method,
            "trigger": trigger,
            "class_word": class_word,
            "kind": kind,
            "token_learning_rate": _TOKEN_RATES.get(family, _USUAL_TOKEN_RATE),
            **table[method],
            **settings,
        }
    )


def _check_fields(given: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(TrainSpec)]
    for name in given:
        if name not in known:
            raise UsageError(
                f"training spec: no field {name!r}", remedy=f"fields are {', '.join(known)}"
            )


def _check_words(spec: TrainSpec) -> None:
    trigger = spec.trigger
    if not (isinstance(trigger, str) and len(trigger) > 2 and trigger[0] + trigger[-1] == "<>"):
        raise _wrong("trigger", trigger, "write it as <name>")
    if any(letter.isspace() for letter in trigger):
        raise _wrong("trigger", trigger, "write it without spaces")
    word = spec.class_word
    if not isinstance(word, str) or not word.strip() or len(word) > 60:
        raise _wrong("class_word", word, "say what the subject is: --class dog")


def _check_number(name: str, value: Any, kind: type, low: float, high: float) -> None:
    fits = isinstance(value, int) if kind is int else isinstance(value, (int, float))
    if isinstance(value, bool) or not fits or not math.isfinite(value):
        raise _wrong(name, value, "give a whole number" if kind is int else "give a number")
    if not low <= value <= high:
        raise _wrong(name, value, f"give a value from {low:g} to {high:g}")


def _check_weights(spec: TrainSpec) -> None:
    """A weight that the method would not read is a mistake, not a no-op."""
    for name, owner in (("cat_weight", "cat"), ("penalty_weight", "c-lora")):
        if getattr(spec, name) and spec.method != owner:
            raise _wrong(name, getattr(spec, name), f"it is for method {owner}")


def _wrong(name: str, value: Any, remedy: str) -> UsageError:
    return UsageError(f"training spec: {name} cannot be {value!r}", remedy=remedy)
