"""What a training run is to do, as a frozen record: everything that decides the result is here.

Torch-free, so that a command can check, print and digest a spec before any work starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from adreg.domain import JOINT_METHODS, Concept, Json, SubjectKind, is_plain
from adreg.errors import UsageError
from adreg.store.digest import sha256_json
from adreg.train.defaults import (
    PENALTY_WEIGHTS,
    POCKET,
    POCKET_FULL,
    SAMPLE_EVERY,
    SD,
    SD_FULL,
    TIMESTEP_BIAS,
    TOKEN_RATES,
    USUAL_TOKEN_RATE,
)
from adreg.train.stopping import read_bound

Method = Literal[
    "lora",
    "cat",
    "c-lora",
    "sequential",
    "ewc",
    "orthogonal",
    "textual-inversion",
    "two-stage",
    "dreambooth",
    "custom-diffusion",
]
CatPrompts = Literal["own", "class", "other"]
Penalty = Literal["weights", "features", "null-space"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
VERSION = 1


@dataclass(frozen=True)
class TrainSpec:
    """A training run, completely stated. Raises UsageError naming the field that is wrong.

    `learning_rate` is the low-rank factors', `token_learning_rate` the trigger embedding's.
    `cat_weight` is CAT's c and `penalty_weight` C-LoRA's or EWC's lambda; other methods leave them
    at 0. `cat_prompts` says which prompts CAT's term sees (train/ordinary.py), at every
    `cat_every`-th step; `penalty` is the form of C-LoRA's. `first_column` is where an orthogonal
    adapter's columns of the shared basis begin. With `full`, whole weights learn in place of
    factors: `rank` is 0 then. `embedding_steps` is how many of the two-stage method's steps come
    first, for the embedding alone. `prior_weight` is DreamBooth's lambda, for `prior_images` class
    images of each class.
    `checkpoint_every` steps the state is saved: it decides nothing and is not part of the digest,
    no more than `gradient_checkpointing`, which computes again what else would take memory.

    `accumulate` is in how many parts a step's batch goes through the UNet, one after the other.
    `precision` is the UNet's: "auto" is what suits the device, and fp32 on the CPU.

    `ema` is the decay of the running average of what learns, which is the result (0: off).

    Data: `flip` adds mirrored images, `crops` is how many views are cut of each, `resolution` the
    side in pixels (0: the base's own), `buckets` lets images keep about their shape. Loss:
    `min_snr_gamma` is Min-SNR's gamma (0: off); `noise_offset` shifts the noise of each channel;
    timesteps are drawn with P(t) ~ t^timestep_bias (0: all alike, above it more of the noisy ones).

    `also` are further concepts that the one adapter learns with the first. Every `sample_every`
    steps (0: never) pictures are made; that decides nothing either, but where `stop_when` (a bound,
    train/stopping.py) is looked at then.
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
    # What came later stands from here on, with a default that changes nothing: a run that leaves
    # it there has the digest it always had.
    flip: bool = False
    crops: int = 1
    resolution: int = 0
    buckets: bool = False
    min_snr_gamma: float = 0.0
    noise_offset: float = 0.0
    ema: float = 0.0
    cat_prompts: CatPrompts = "own"
    cat_every: int = 1
    penalty: Penalty = "weights"
    first_column: int = 0
    full: bool = False
    embedding_steps: int = 0
    prior_weight: float = 0.0
    prior_images: int = 0
    accumulate: int = 1
    gradient_checkpointing: bool = False
    precision: Precision = "auto"
    also: tuple[Concept, ...] = ()
    stop_when: str = ""
    sample_every: int = 0
    timestep_bias: float = 0.0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise _wrong(name, getattr(self, name), f"choose one of {', '.join(allowed)}")
        for concept in self.concepts:
            _check_words(concept)
        _check_joint(self)
        _check_stop(self)
        for name, (kind, low, high) in _BOUNDS.items():
            _check_number(name, getattr(self, name), kind, low, high)
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise _wrong(name, getattr(self, name), "give true or false")
        _check_weights(self)
        _check_parts(self)

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """All that is learnt, the first one first."""
        return (Concept(self.trigger, self.class_word, self.kind), *self.also)

    def essence(self) -> Json:
        """All that decides the result, as plain JSON: what a manifest records."""
        left_out = {f.name for f in _LATER if getattr(self, f.name) == f.default}
        left_out |= {"checkpoint_every", "gradient_checkpointing"}
        left_out |= set() if self.stop_when else {"sample_every"}
        return {name: value for name, value in self.to_json().items() if name not in left_out}

    def digest(self) -> str:
        """SHA-256 of the essence: the same folder, base and digest are the same training run."""
        return sha256_json(self.essence())

    def to_json(self) -> Json:
        """Plain JSON; `from_json` gives an equal spec back."""
        also = [concept.to_json() for concept in self.also]
        return {"version": VERSION, **asdict(self), "also": also}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TrainSpec:
        """A spec from its JSON. Raises UsageError naming an unknown, missing or wrong field."""
        if content.get("version") != VERSION:
            raise _wrong("version", content.get("version"), f"this adreg writes {VERSION}")
        given = {key: value for key, value in content.items() if key != "version"}
        _check_fields(given)
        if missing := [f.name for f in _FIRST if f.name not in given]:
            raise UsageError(f"training spec: {missing[0]} is missing", remedy="give it a value")
        also = tuple(Concept(**entry) for entry in given.get("also", ()))
        return cls(**{**given, "also": also})


_NAMES = [field.name for field in fields(TrainSpec)]
_FIRST = fields(TrainSpec)[: _NAMES.index("checkpoint_every") + 1]
_LATER = fields(TrainSpec)[len(_FIRST) :]
_FLAGS = ("flip", "buckets", "full", "gradient_checkpointing")
# The fields that only some methods read, and what they are where nobody reads them.
_OWNERS: dict[str, tuple[str, ...]] = {
    "cat_weight": ("cat", "c-lora"),
    "penalty": ("c-lora",),  # before its weight, which a user may not have given
    "penalty_weight": ("c-lora", "ewc"),
    "cat_prompts": ("cat", "c-lora"),
    "cat_every": ("cat", "c-lora"),
    "first_column": ("orthogonal",),
    "full": ("two-stage", "dreambooth", "custom-diffusion"),
    "embedding_steps": ("two-stage",),
    "prior_weight": ("dreambooth", "custom-diffusion"),
    "prior_images": ("dreambooth", "custom-diffusion"),
    "also": JOINT_METHODS,
}
_UNREAD = {field.name: field.default for field in fields(TrainSpec)}
_OPTIONS = {"class_word": "--class", "min_snr_gamma": "--min-snr"}
_NO_OPTION = ("version", "trigger", "weight_decay", "max_grad_norm", "first_column", "also")
_CHOICES = {
    "method": get_args(Method),
    "kind": get_args(SubjectKind),
    "cat_prompts": get_args(CatPrompts),
    "penalty": get_args(Penalty),
    "precision": get_args(Precision),
}
_BOUNDS: dict[str, tuple[type, float, float]] = {
    "steps": (int, 1, 1_000_000),
    "rank": (int, 0, 1024),
    "batch": (int, 1, 1024),
    "learning_rate": (float, 0.0, 1.0),
    "token_learning_rate": (float, 0.0, 1.0),
    "weight_decay": (float, 0.0, 1.0),
    "max_grad_norm": (float, 1e-6, 1e6),
    "cat_weight": (float, 0.0, 1e6),
    "penalty_weight": (float, 0.0, 1e15),
    "seed": (int, 0, 2**63 - 1),
    "checkpoint_every": (int, 1, 1_000_000),
    "crops": (int, 1, 64),
    "resolution": (int, 0, 4096),
    "min_snr_gamma": (float, 0.0, 1e6),
    "noise_offset": (float, 0.0, 1.0),
    "ema": (float, 0.0, 0.999999),
    "cat_every": (int, 1, 1_000_000),
    "first_column": (int, 0, 2**31),
    "embedding_steps": (int, 0, 1_000_000),
    "prior_weight": (float, 0.0, 1e6),
    "prior_images": (int, 0, 10_000),
    "sample_every": (int, 0, 1_000_000),
    "accumulate": (int, 1, 1024),
    "timestep_bias": (float, 0.0, 10.0),
}


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
    table = POCKET if family == "pocket" else SD
    whole = POCKET_FULL if family == "pocket" else SD_FULL
    if method not in table:
        raise _wrong("method", method, f"choose one of {', '.join(table)}")
    _check_fields(settings)
    return TrainSpec(
        **{
            "method": method,
            "trigger": trigger,
            "class_word": class_word,
            "kind": kind,
            "token_learning_rate": TOKEN_RATES.get(family, USUAL_TOKEN_RATE),
            "timestep_bias": TIMESTEP_BIAS.get(family, 0.0),
            **table[method],
            **_for_each(table[method], 1 + len(settings.get("also", ()))),
            **_penalty_weight(settings),
            **(whole.get(method, {}) if settings.get("full") else {}),
            **_without_prior(settings),
            **_without_cat(settings),
            **settings,
            **_looked_at(settings),
        }
    )


def _for_each(usual: Json, concepts: int) -> Json:
    """As many steps, those of the embedding among them, for each concept as for one alone."""
    counted = ("steps", "embedding_steps")
    return {name: usual[name] * concepts for name in counted if name in usual}


def _penalty_weight(settings: Mapping[str, Any]) -> Json:
    penalty = settings.get("penalty")
    return {"penalty_weight": PENALTY_WEIGHTS[penalty]} if penalty in PENALTY_WEIGHTS else {}


def _without_prior(settings: Mapping[str, Any]) -> Json:
    """No weight wants no class images, and the other way round."""
    off = any(settings.get(name) == 0 for name in ("prior_weight", "prior_images"))
    return {"prior_weight": 0.0, "prior_images": 0} if off else {}


def _without_cat(settings: Mapping[str, Any]) -> Json:
    """No weight wants no rhythm."""
    return {"cat_every": 1} if settings.get("cat_weight") == 0 else {}


def _looked_at(settings: Mapping[str, Any]) -> Json:
    """The bound in its one spelling, and how often it is looked at."""
    if not settings.get("stop_when"):
        return {}
    bound = str(read_bound(settings["stop_when"]))
    return {"stop_when": bound, "sample_every": settings.get("sample_every", SAMPLE_EVERY)}


def _check_fields(given: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(TrainSpec)]
    for name in given:
        if name not in known:
            raise UsageError(
                f"training spec: no field {name!r}", remedy=f"fields are {', '.join(known)}"
            )


def _check_words(concept: Concept) -> None:
    trigger = concept.trigger
    if not (isinstance(trigger, str) and len(trigger) > 2 and trigger[0] + trigger[-1] == "<>"):
        raise _wrong("trigger", trigger, "write it as <name>")
    if any(letter.isspace() for letter in trigger):
        raise _wrong("trigger", trigger, "write it without spaces")
    word = concept.class_word
    if not isinstance(word, str) or not is_plain(word) or len(word) > 60:
        raise _wrong("class_word", word, "say what the subject is, such as dog")


def _check_joint(spec: TrainSpec) -> None:
    triggers = [concept.trigger.casefold() for concept in spec.concepts]
    for number, trigger in enumerate(triggers):
        if trigger in triggers[:number]:
            raise UsageError(
                f"training spec: two concepts have the trigger {trigger}",
                remedy="rename one of the folders, or give it a name in its subject.toml",
            )


def _check_stop(spec: TrainSpec) -> None:
    if not spec.stop_when:
        return
    if spec.stop_when != str(read_bound(spec.stop_when)):
        raise _wrong("stop_when", spec.stop_when, f"write {read_bound(spec.stop_when)}")
    if not spec.sample_every:
        raise _wrong("sample_every", 0, "stop_when is looked at every sample_every steps")


def _check_number(name: str, value: Any, kind: type, low: float, high: float) -> None:
    fits = isinstance(value, int) if kind is int else isinstance(value, (int, float))
    if isinstance(value, bool) or not fits or not math.isfinite(value):
        raise _wrong(name, value, "give a whole number" if kind is int else "give a number")
    if not low <= value <= high:
        raise _wrong(name, value, f"give a value from {low:g} to {high:g}")


def _check_weights(spec: TrainSpec) -> None:
    """A field that the method would not read is a mistake, not a no-op."""
    for name, owners in _OWNERS.items():
        if getattr(spec, name) != _UNREAD[name] and spec.method not in owners:
            raise _wrong(name, getattr(spec, name), f"it is for method {' and '.join(owners)}")
    if spec.penalty == "null-space" and spec.penalty_weight:
        raise _wrong("penalty_weight", spec.penalty_weight, "penalty null-space takes no weight")
    if spec.cat_weight == 0 and (spec.cat_prompts, spec.cat_every) != ("own", 1):
        raise _wrong("cat_weight", 0, "cat_prompts and cat_every need one above 0")


def _check_parts(spec: TrainSpec) -> None:
    """Rank and rates, 0 for what does not learn and no other; two stages are two."""
    low_rank = not spec.full and spec.method not in ("textual-inversion", "custom-diffusion")
    learning = {
        "rank": low_rank,
        "learning_rate": spec.method != "textual-inversion",
        "token_learning_rate": spec.method != "dreambooth",
    }
    for name, learns in learning.items():
        value = getattr(spec, name)
        if not learns and value:
            raise _wrong(
                name, value, f"leave it out: what it is for does not learn with {spec.method}"
            )
        if learns and not value and name != "token_learning_rate":
            raise _wrong(name, value, "give a value above 0")
    if spec.method == "custom-diffusion" and not spec.full:
        raise _wrong("full", False, "custom-diffusion trains whole weights")
    if spec.method == "two-stage" and not 0 < spec.embedding_steps < spec.steps:
        raise _wrong(
            "embedding_steps", spec.embedding_steps, f"give 1 to {spec.steps - 1} of steps"
        )
    if spec.accumulate > spec.batch:
        raise _wrong("accumulate", spec.accumulate, f"give at most the batch, {spec.batch}")
    if bool(spec.prior_weight) != bool(spec.prior_images):
        raise _wrong("prior_images", spec.prior_images, "give both it and prior_weight, or 0 both")


def _wrong(name: str, value: Any, remedy: str) -> UsageError:
    """The remedy begins with the option of `adreg train` that sets the field, where one does."""
    option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
    told = remedy if name in _NO_OPTION else f"{option}: {remedy}"
    return UsageError(f"training spec: {name} cannot be {value!r}", remedy=told)
