"""What a model card tells a registry: read from a stranger's README, so believed with care.

adreg's own cards (`adreg.publish.card`) have what counts in tables; of any other only the YAML is
read. Nothing in here can fail a pull: what cannot be read is simply not told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adreg.domain import Concept, Json, is_plain

if TYPE_CHECKING:
    from markdown_it.token import Token

    from adreg.publish.card import Kind

# Galleries make cards long, but nothing that is read here stands that far down in megabytes.
LONGEST_CARD = 1 << 20
_LONGEST = 100
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Trainers' scripts put the whole prompt there: "a photo of sks dog".
_OPENING = re.compile(
    r"^(an? |the )?(photo|photograph|picture|image|painting|drawing|illustration|portrait) of"
    r" (an? |the )?(?=\S)",
    re.IGNORECASE,
)
_DIGEST_ROWS: dict[str, Kind] = {
    "Adapter digest": "adapter",
    "Checkpoint digest": "checkpoint",
}


@dataclass(frozen=True)
class Told:
    """What a card says; None and () where it does not.

    `own` is a card that adreg wrote: of others `kind` and `digest` are never told. The digest of
    a LoRA that a checkpoint was cut to is not told either. `base` is the base's name or Hub id,
    `base_on_hub` its id where it has one.
    """

    own: bool = False
    kind: Kind | None = None
    name: str | None = None
    digest: str | None = None
    base: str | None = None
    base_on_hub: str | None = None
    base_digest: str | None = None
    method: str | None = None
    concepts: tuple[Concept, ...] = ()

    def to_json(self) -> Json:
        return {**vars(self), "concepts": [concept.to_json() for concept in self.concepts]}


def told_from_json(content: Json) -> Told:
    """What `Told.to_json` wrote."""
    return Told(**{**content, "concepts": tuple(Concept(**c) for c in content["concepts"])})


def read_card(path: Path) -> Told:
    """What the README in a file tells; nothing where it is too long, no UTF-8, or broken YAML."""
    from huggingface_hub import metadata_load  # here: every supervisor imports this module

    if path.stat().st_size > LONGEST_CARD:
        return Told()
    try:
        # YAML of a stranger: the library reads it with safe_load, which raises what it likes
        facts = metadata_load(path) or {}
        text = path.read_text("utf-8-sig")
    except Exception:
        return Told()
    tags, base = facts.get("tags"), facts.get("base_model")
    base = _plain(base[0] if isinstance(base, list) and base else base)
    if isinstance(tags, list) and "adreg" in tags:
        return _of_adreg(text, base)
    trigger = _OPENING.sub("", _plain(facts.get("instance_prompt")) or "")
    concepts = (Concept(trigger, ""),) if trigger else ()
    return Told(base=base, base_on_hub=base, concepts=concepts)


def _of_adreg(text: str, base_on_hub: str | None) -> Told:
    title, sections = _read(text)
    facts = {row[0]: row[1] for row in sections.get("Recipe", ()) if len(row) == 2}
    label = next((label for label in _DIGEST_ROWS if _digest(facts.get(label))), None)
    rows = (row for row in sections.get("Trigger words", ()) if len(row) == 2)
    return Told(
        own=True,
        kind=_DIGEST_ROWS[label] if label else None,
        name=_plain(title),
        digest=facts[label] if label else None,
        base=_plain(facts.get("Base")),
        base_on_hub=base_on_hub,
        base_digest=_digest(facts.get("Base digest")),
        method=_plain(facts.get("Method")),
        concepts=tuple(Concept(t, c) for t, c in rows if _plain(t) and (_plain(c) or not c)),
    )


def _read(text: str) -> tuple[str | None, dict[str, list[list[str]]]]:
    """The title, and by section the rows of its tables, as a reader of the page sees them."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    title, section, sections = None, "", dict[str, list[list[str]]]()
    for before, token in pairwise(tokens):
        if before.type == "heading_open" and before.tag == "h1" and title is None:
            title = _seen(token)
        elif before.type == "heading_open" and before.tag == "h2":
            section = _seen(token)
        elif before.type == "tr_open":
            sections.setdefault(section, []).append([])
        if before.type == "td_open":
            sections[section][-1].append(_seen(token))
    return title, sections


def _seen(token: Token) -> str:
    return "".join(_texts(token.children or ()))


def _texts(parts: Sequence[Token]) -> Iterator[str]:
    for part in parts:
        yield part.content


def _plain(value: Any) -> str | None:
    """A short text on one line, that a terminal can take; None for anything else."""
    fit = isinstance(value, str) and len(value) <= _LONGEST and is_plain(value)
    return " ".join(value.split()) if fit and value.isprintable() else None


def _digest(value: str | None) -> str | None:
    return value if value and _DIGEST.fullmatch(value) else None
