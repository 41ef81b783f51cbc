"""Concepts that can be asked for, and where each comes from: chosen adapters, or a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adreg.domain import Adapter, Checkpoint, Concept
from adreg.errors import NotFoundError
from adreg.service.workspace import Workspace


@dataclass(frozen=True)
class Origin:
    """A concept as prompts name it here.

    `name` is its adapter's; `adapter` is None where that is no more in the registry, and
    `own_trigger` what it is called there.
    """

    concept: Concept
    name: str
    adapter: Adapter | None
    own_trigger: str

    @property
    def method(self) -> str | None:
        return None if self.adapter is None else self.adapter.method


def of_adapters(chosen: Sequence[Adapter]) -> list[Origin]:
    """The concepts of adapters that are attached side by side."""
    return [
        Origin(concept, adapter.name or adapter.digest[:12], adapter, concept.trigger)
        for adapter in chosen
        for concept in adapter.concepts
        if concept.trigger
    ]


def of_checkpoint(ws: Workspace, checkpoint: Checkpoint) -> list[Origin]:
    """The concepts of a checkpoint, under the triggers they have in it."""
    recipe = checkpoint.recipe
    renamed = {(m["adapter"], m["old"]): m["new"] for m in recipe.get("renames", [])}
    merged = {concept.trigger: concept for concept in checkpoint.concepts}
    found = []
    for entry in recipe["adapters"]:
        name, adapter = entry["name"], _adapter(ws, entry["digest"])
        own = adapter.concepts if adapter else [Concept(**c) for c in entry["concepts"]]
        for concept in own:
            trigger = renamed.get((name, concept.trigger), concept.trigger)
            if trigger and trigger in merged:
                found.append(Origin(merged[trigger], name, adapter, concept.trigger))
    return found


def _adapter(ws: Workspace, digest: str) -> Adapter | None:
    try:
        return ws.registry.adapter(digest)
    except NotFoundError:
        return None
