"""The words of adreg as frozen records; nothing here touches disk, database or torch."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from adreg.errors import UsageError

Json = dict[str, Any]
SubjectKind = Literal["object", "person", "style"]
JobKind = Literal[
    "train",
    "score",
    "score_checkpoint",
    "forgetting",
    "identify",
    "generate",
    "sample",
    "compare",
    "merge",
    "interference",
    "publish",
    "pull",
    "convert",
    "export",
]
JobState = Literal["queued", "running", "done", "failed", "cancelled"]

# Methods that continue a line. They train tokens without the class noun, so prompts ask without it.
LINE_METHODS = ("c-lora", "sequential", "ewc")
# Textual Inversion's token takes the place of the noun.
NAMELESS_METHODS = (*LINE_METHODS, "textual-inversion")
# What can teach one adapter several concepts at once: all but those that go on a line.
JOINT_METHODS = (
    "lora",
    "cat",
    "orthogonal",
    "textual-inversion",
    "two-stage",
    "dreambooth",
    "custom-diffusion",
)

_SLUG = re.compile(r"[^a-z0-9]+")
# A version, as in rex@2, is told apart by "@", which no name has otherwise.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(@[1-9]\d{0,5})?")


class Progress(Protocol):
    """How long work says where it is; `values` are figures worth showing (losses, rates)."""

    def __call__(self, stage: str, step: int, total: int, **values: float) -> None: ...


def silent(stage: str, step: int, total: int, **values: float) -> None:
    """A Progress that tells nobody."""


@dataclass(frozen=True)
class Base:
    """A diffusion model adapters are trained on.

    `modules` maps every 2-D weight an adapter could change, as "unet.<path>" or
    "text_encoder.text_model.<path>", to its (out, in) shape; 1x1 convolutions count as 2-D.
    """

    name: str
    path: Path
    family: str
    digest: str
    components: Mapping[str, str]
    prediction_type: str
    modules: Mapping[str, tuple[int, int]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Concept:
    """What an adapter teaches: a trigger token such as "<rex>" and its class word."""

    trigger: str
    class_word: str
    kind: SubjectKind = "object"

    def to_json(self) -> Json:
        """As job files, recipes and cards write it; `Concept(**...)` reads it back."""
        return {"trigger": self.trigger, "class_word": self.class_word, "kind": self.kind}


@dataclass(frozen=True)
class Adapter:
    """What was learnt for one or more concepts on one base."""

    digest: str
    path: Path
    format: str
    base_digest: str | None
    base_name: str | None
    family: str
    concepts: tuple[Concept, ...]
    method: str | None
    rank: int
    modules: int
    state: str = "present"
    name: str | None = None
    tags: tuple[str, ...] = ()
    line: str | None = None
    continued_from: str | None = None
    source: str | None = None
    spec: Json = field(default_factory=dict)
    created: str = ""

    @property
    def triggers(self) -> list[str]:
        return [concept.trigger for concept in self.concepts]


@dataclass(frozen=True)
class Checkpoint:
    """A complete model with adapters merged in."""

    digest: str
    path: Path
    method: str
    adapters: tuple[str, ...]
    base_digest: str
    base_name: str
    concepts: tuple[Concept, ...]
    recipe: Json
    name: str | None = None
    state: str = "present"
    created: str = ""


@dataclass(frozen=True)
class Region:
    """A box of a picture and the prompt of what is in it.

    `box` is x0, y0, x1, y1 in shares of width and height, from the top left.
    """

    box: tuple[float, float, float, float]
    prompt: str


@dataclass(frozen=True)
class Subject:
    """A stored copy of a folder of images of one thing."""

    digest: str
    name: str
    class_word: str
    kind: SubjectKind
    path: Path
    images: tuple[str, ...]
    source: str
    set_aside: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A named, versioned measurement (`kps/1`) with all its inputs recorded."""

    name: str
    value: float
    artefact: str
    base: str
    scorer: str
    inputs: Json
    details: Json
    created: str = ""

    @property
    def interval(self) -> list[float] | None:
        """The 95 % bootstrap interval [low, high], where there is one."""
        return self.details.get("interval")


@dataclass(frozen=True)
class Preview:
    """A picture made with an artefact, kept with what made it."""

    artefact: str
    blob: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Job:
    """One unit of work; `attempt` fences stale workers out, `failures` is the retry budget."""

    id: int
    kind: JobKind
    key: str
    state: JobState
    attempt: int
    failures: int
    request: Json
    error: Json | None = None
    result: Json | None = None
    worker: str | None = None
    lease_until: float = 0.0
    created: str = ""
    updated: str = ""


def slug(text: str) -> str:
    """Lower case letters, without their accents, and digits joined by hyphens.

    Raises UsageError where nothing is left.
    """
    parts = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(part for part in parts if not unicodedata.combining(part))
    cleaned = _SLUG.sub("-", plain.casefold()).strip("-")
    if not cleaned:
        raise UsageError(
            f"{text!r} leaves no letters or digits for a name", remedy="pass --name NAME"
        )
    return cleaned


def readable_seconds(seconds: float) -> str:
    """ "45 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def readable_size(count: int) -> str:
    """A number of bytes as people read it: "512 B", "1.2 GB" (powers of 1000)."""
    unit, size = "B", float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def size_in_bytes(text: str, option: str) -> int:
    """What a size as people write it means: "2GB", "500 MB", "4096" (powers of 1000).

    Raises UsageError naming the option for anything else, and for less than a byte.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmg]?)b?", text.strip().lower())
    factor: int = 1000 ** " kmg".index(found[2] or " ") if found else 0
    count = int(float(found[1]) * factor) if found else 0
    if count < 1:
        raise UsageError(f"{option} {text}: no size", remedy=f"write it like {option} 2GB")
    return count


def with_article(words: str) -> str:
    """'a dog', 'an orange mug', 'a <rex> dog'."""
    return f"{article_of(words)} {words}"


def article_of(words: str) -> str:
    """'a' or 'an', by the first letter."""
    return "an" if words[0].lower() in "aeiou" else "a"


def trigger_for(name: str) -> str:
    """The trigger token `<slug>` of a concept's name."""
    return f"<{slug(name)}>"


def version_of(name: str, number: int) -> str:
    """The name of a version: "rex" is the first, "rex@2" the second."""
    return name if number == 1 else f"{name}@{number}"


def without_version(name: str) -> str:
    """What all versions of an adapter or a checkpoint are called: "rex" of "rex@2"."""
    return name.partition("@")[0]


def is_plain(text: str) -> bool:
    """Whether a text says something, on one line that a database and a terminal can take."""
    odd = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)
    return bool(text.strip()) and not odd


def check_name(name: str) -> str:
    """The name itself, where it is fit to be shown, typed and put into a path.

    Raises UsageError for anything but letters, digits, '.', '_' and '-', or a version of such.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no usable name",
            remedy="use letters, digits, '.', '_' and '-', at most 96 of them",
        )
    return name
