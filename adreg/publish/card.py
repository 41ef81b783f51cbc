"""The model card: YAML for the Hub's search and gallery, then what a reader needs to use it.

The YAML is huggingface_hub's (ModelCardData), so no text can break out of it. In the body every
piece of text that came from outside (names, class words, prompts) is made one printable line and
escaped. No dates and no paths: the same facts give the same card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from huggingface_hub import ModelCard, ModelCardData

from adreg.errors import UsageError
from adreg.publish.format import Format
from adreg.publish.loading import literal, load_adapter, load_checkpoint
from adreg.publish.markdown import block, code, one_line, plain, section, table

Kind = Literal["checkpoint", "adapter"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_GUIDANCE = {"pocket": 3.0}


class BaseFacts(TypedDict, total=False):
    """The base: its name ("pocket", a folder's name or a Hub id) and what is known of it.

    `hub` is the Hub's id of what was added under another name, `revision` its commit; the license
    is written as cards write it.
    """

    name: str
    digest: str
    hub: str
    revision: str
    license: str
    license_name: str
    license_link: str


class ConceptFacts(TypedDict):
    trigger: str
    class_word: str
    kind: str


class ScoreFacts(TypedDict):
    """A score and its 95 % interval, [low, high], where it has one."""

    name: str
    value: float
    interval: list[float] | None


class AdapterFacts(TypedDict):
    name: str
    digest: str
    weight: float


class RenameFacts(TypedDict):
    """A trigger that two adapters shared, and what it is called in this checkpoint."""

    adapter: str
    old: str
    new: str


class AncestorFacts(TypedDict):
    """An adapter that this one goes on from, or that was merged; the line it is of, if any."""

    name: str
    digest: str
    method: str
    line: str | None
    after: str | None


class RecipeFacts(TypedDict, total=False):
    """How it was made; a merge has adapters, renames and its complete `toml`, a training has rank
    and steps."""

    method: str
    rank: int
    steps: int
    adapters: list[AdapterFacts]
    renames: list[RenameFacts]
    toml: str


class Description(TypedDict, total=False):
    """The facts of a card, as the registry has them. Only `base` is required.

    `prompt` calls every concept the way it was trained to be called.
    """

    digest: str
    prompt: str
    base: BaseFacts
    concepts: list[ConceptFacts]
    scores: list[ScoreFacts]
    recipe: RecipeFacts
    lineage: list[AncestorFacts]


@dataclass(frozen=True)
class Card:
    """All that a card is rendered from.

    `format` is what the repository holds: a LoRA, a diffusers folder, or both. `previews` are
    (path in the repository, prompt), `embeddings` (trigger, path in the repository): of a LoRA
    the token embeddings travel in files of their own. `lora` says whether there are factors
    beside them.
    """

    kind: Kind
    format: Format
    name: str
    repo: str
    description: Description
    previews: Sequence[tuple[str, str]] = ()
    embeddings: Sequence[tuple[str, str]] = field(default=())
    lora: bool = True

    @property
    def base(self) -> str:
        """The base's name. Raises UsageError where the description has none."""
        name = self.description.get("base", {}).get("name")
        if not name:
            raise UsageError(f"the description of {self.name!r} does not name a base")
        return one_line(name)

    @property
    def base_on_hub(self) -> str | None:
        """The base's id on the Hub, where it has one."""
        known = self.description.get("base", {}).get("hub") or self.base
        return known if _HUB_ID.fullmatch(known) else None

    @property
    def relation(self) -> str:
        """What the Hub calls the relation to the base: a merge is one of several adapters."""
        if self.format == "lora":
            return "adapter"
        merged = self.description.get("recipe", {}).get("adapters", [])
        return "merge" if len(merged) > 1 else "finetune"

    @property
    def concepts(self) -> list[ConceptFacts]:
        return self.description.get("concepts", [])

    @property
    def prompt(self) -> str:
        """What asks for every concept; plainly for a photo where none is known."""
        return one_line(self.description.get("prompt", "")) or "a photo"


def render(card: Card) -> str:
    """README.md as text. Raises UsageError where the description does not name the base."""
    parts = [
        f"# {plain(card.name)}",
        _summary(card),
        "<Gallery />",
        _triggers(card.concepts),
        f"## Use it\n\n{block(snippet(card), 'py')}",
        _second_snippet(card),
        _scores(card.description.get("scores", [])),
        _recipe(card),
        _lineage(card.description.get("lineage", [])),
        "Made with adreg.",
    ]
    body = "\n\n".join(part for part in parts if part)
    yaml = _data(card).to_yaml(line_break="\n")
    return str(ModelCard(f"---\n{yaml}\n---\n\n{body}\n"))


def snippet(card: Card) -> str:
    """Python that loads the repository with plain diffusers and makes one image."""
    return _program(card, load_checkpoint(card.repo) if card.format != "lora" else _on_base(card))


def _second_snippet(card: Card) -> str:
    if card.format != "both":
        return ""
    return f"Or the LoRA alone, on its base:\n\n{block(_program(card, _on_base(card)), 'py')}"


def _on_base(card: Card) -> list[str]:
    return load_adapter(
        card.repo,
        card.base,
        card.base_on_hub,
        card.description.get("base", {}).get("revision"),
        lora=card.lora,
        embeddings=[path for _, path in card.embeddings],
    )


def _program(card: Card, loading: list[str]) -> str:
    guidance = _GUIDANCE.get(card.base, 7.5)
    made = f"image = pipe({literal(card.prompt)}, guidance_scale={guidance}).images[0]"
    return "\n".join([*loading, made, 'image.save("image.png")'])


def _data(card: Card) -> ModelCardData:
    base, on_hub = card.description.get("base", {}), card.base_on_hub
    widget = [{"text": one_line(text), "output": {"url": path}} for path, text in card.previews]
    return ModelCardData(
        license=base.get("license"),
        license_name=base.get("license_name"),
        license_link=base.get("license_link"),
        library_name="diffusers",
        pipeline_tag="text-to-image",
        base_model=on_hub,
        base_model_relation=card.relation if on_hub else None,
        tags=["text-to-image", "diffusers", "stable-diffusion", *_tags(card), "adreg"],
        instance_prompt=card.prompt if card.concepts else None,
        widget=widget or None,
    )


def _tags(card: Card) -> list[str]:
    lora = ["lora", "template:sd-lora"] if card.lora else ["textual_inversion"]
    if card.format == "lora":
        return lora
    return [
        *(["merge"] if card.relation == "merge" else []),
        *(lora if card.format == "both" else []),
    ]


def _summary(card: Card) -> str:
    holds = "LoRA and token embeddings" if card.lora else "token embeddings alone"
    what = "A complete text-to-image model with concept adapters merged in"
    if card.format == "lora":
        what = f"A concept adapter ({holds}) for a text-to-image model"
    if card.format == "both":
        what += f", and what it changed of its base as an adapter ({holds})"
    classes = ", ".join(plain(concept["class_word"]) for concept in card.concepts)
    taught = f" It knows: {classes}." if classes else ""
    return f"{what}, on the base {code(card.base)}.{taught}"


def _triggers(concepts: Iterable[ConceptFacts]) -> str:
    rows = [(code(c["trigger"]), plain(c["class_word"])) for c in concepts]
    return section("Trigger words", ("Trigger", "Class"), rows)


def _scores(scores: Iterable[ScoreFacts]) -> str:
    rows = [(code(s["name"]), f"{s['value']:.4g}", _interval(s["interval"])) for s in scores]
    return section("Scores", ("Score", "Value", "95 % interval"), rows)


def _interval(bounds: Sequence[float] | None) -> str:
    return f"{bounds[0]:.4g} to {bounds[1]:.4g}" if bounds else ""


def _lineage(ancestors: Iterable[AncestorFacts]) -> str:
    rows = [
        (
            plain(a["name"]),
            code(a["method"]),
            plain(a["line"] or ""),
            plain(a["after"] or ""),
            code(a["digest"]),
        )
        for a in ancestors
    ]
    return section("Lineage", ("Adapter", "Made by", "Line", "Goes on from", "Digest"), rows)


def _recipe(card: Card) -> str:
    recipe = card.description.get("recipe", {})
    base, digest = card.description.get("base", {}), card.description.get("digest")
    facts: list[tuple[str, Any]] = [
        ("Method", recipe.get("method")),
        ("Base", card.base),
        ("Base digest", base.get("digest")),
        ("Base revision", base.get("revision")),
        ("Rank", recipe.get("rank")),
        ("Steps", recipe.get("steps")),
        (_digest_label(card), digest),
    ]
    rows = [(name, code(value)) for name, value in facts if value is not None]
    adapters = [
        (plain(a["name"]), f"{a['weight']:g}", code(a["digest"]))
        for a in recipe.get("adapters", [])
    ]
    renames = [
        (plain(r["adapter"]), code(r["old"]), code(r["new"])) for r in recipe.get("renames", [])
    ]
    parts = [
        section("Recipe", ("What", "Value"), rows),
        table(("Adapter", "Weight", "Digest"), adapters),
        table(("Adapter", "Its trigger", "Trigger here"), renames),
        _toml(recipe.get("toml", "")),
    ]
    return "\n\n".join(part for part in parts if part)


def _digest_label(card: Card) -> str:
    """A LoRA that a checkpoint was cut to has a digest of its own."""
    cut = card.kind == "checkpoint" and card.format == "lora"
    return "Cut from checkpoint" if cut else f"{card.kind.capitalize()} digest"


def _toml(text: str) -> str:
    """The recipe to be copied into a file."""
    if not text:
        return ""
    lines = "\n".join(map(_printable, text.strip().splitlines()))
    return f"The whole recipe, for `adreg merge --recipe FILE`:\n\n{block(lines, 'toml')}"


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line)
