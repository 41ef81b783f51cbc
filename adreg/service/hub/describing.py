"""What a card says of an artefact, as the registry has it (adreg.publish.card.Description)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adreg.bases.folder import POCKET
from adreg.domain import Adapter, Checkpoint, Concept, Json
from adreg.publish.licence import (
    POCKET_LICENSE,
    License,
    license_of_file,
    license_of_folder,
)
from adreg.registry import adapters, bases, scores
from adreg.registry.bases import NamedBase
from adreg.score.prompts import called, concept_prompt
from adreg.service.merges.recipes import recipe_toml
from adreg.service.origins import of_checkpoint
from adreg.service.workspace import Workspace


def describe(ws: Workspace, artefact: Adapter | Checkpoint) -> Json:
    """The card's facts; no paths of this machine, and no dates."""
    latest = {s.name: s for s in scores.of(ws.registry.db, artefact.digest)}
    return {
        "digest": artefact.digest,
        "base": _base(ws, artefact),
        "prompt": _prompt(_trained(ws, artefact)),
        "concepts": [concept.to_json() for concept in artefact.concepts],
        "scores": [
            {"name": name, "value": score.value, "interval": score.interval}
            for name, score in sorted(latest.items())
        ],
        "recipe": _recipe(artefact),
        "lineage": _lineage(ws, artefact),
    }


def _trained(ws: Workspace, artefact: Adapter | Checkpoint) -> list[tuple[Concept, str | None]]:
    """Each concept that has a trigger, and the method that taught it."""
    if isinstance(artefact, Adapter):
        return [(concept, artefact.method) for concept in artefact.concepts if concept.trigger]
    return [(origin.concept, origin.method) for origin in of_checkpoint(ws, artefact)]


def _prompt(trained: Sequence[tuple[Concept, str | None]]) -> str:
    """One prompt for all of them: things side by side, in the styles that were learnt."""
    if len(trained) == 1:
        return concept_prompt(trained[0][0], "", trained[0][1])
    things = [called(c, method) for c, method in trained if c.kind != "style"]
    styles = "".join(f" in the style of {c.trigger}" for c, _ in trained if c.kind == "style")
    return f"a photo of {', '.join(things)}{styles}" if things else f"a photo{styles}"


def _base(ws: Workspace, artefact: Adapter | Checkpoint) -> Json:
    """The base by its name (of a file that names none, what it fits), its id on the Hub where it
    came from there, and its licence as far as it is told here."""
    family = artefact.family if isinstance(artefact, Adapter) else artefact.base_name
    name = artefact.base_name or family
    digest = artefact.base_digest
    named = bases.with_digest(ws.registry.db, digest) if digest else None
    on_hub = {"hub": named.source, "revision": named.revision} if _is_hub(named) and named else {}
    return {"name": name, "digest": digest, **on_hub, **_license(ws, name, digest, named)}


def _is_hub(named: NamedBase | None) -> bool:
    return named is not None and named.kind == "hub"


def _license(ws: Workspace, name: str, digest: str | None, named: NamedBase | None) -> License:
    """A Hub's base tells its licence on the Hub, which is asked when it is published."""
    if name == POCKET:
        return {"license": POCKET_LICENSE}
    if _is_hub(named) or digest is None:
        return {}
    if named is not None and named.kind == "file":
        return license_of_file(Path(named.source))
    known = bases.base_reference(ws.registry.db, digest) if named is None else named.source
    return license_of_folder(Path(known)) if known else {}


def _recipe(artefact: Adapter | Checkpoint) -> Json:
    if isinstance(artefact, Checkpoint):
        recipe = artefact.recipe
        keys = ("name", "digest", "weight")
        return {
            "method": recipe["method"],
            "adapters": [{key: entry[key] for key in keys} for entry in recipe["adapters"]],
            "renames": recipe.get("renames", []),
            "toml": recipe_toml(artefact),
        }
    steps = {"steps": artefact.spec["steps"]} if "steps" in artefact.spec else {}
    rank = {"rank": artefact.rank} if artefact.rank else {}
    return {"method": artefact.method or artefact.format, **rank, **steps}


def _lineage(ws: Workspace, artefact: Adapter | Checkpoint) -> list[Json]:
    """The adapters that were merged, or those of its line that an adapter goes on from."""
    if isinstance(artefact, Checkpoint):
        found = [(a["name"], _adapter(ws, a["digest"])) for a in artefact.recipe["adapters"]]
        return [_ancestor(ws, name, adapter) for name, adapter in found if adapter]
    chain: list[Adapter] = []
    before: Adapter | None = artefact
    while before is not None and before.continued_from is not None:
        before = _adapter(ws, before.continued_from)
        chain += [before] if before else []
    return [_ancestor(ws, _name(adapter), adapter) for adapter in reversed(chain)]


def _ancestor(ws: Workspace, name: str, adapter: Adapter) -> Json:
    after = _adapter(ws, adapter.continued_from) if adapter.continued_from else None
    return {
        "name": name,
        "digest": adapter.digest,
        "method": adapter.method or adapter.format,
        "line": adapter.line,
        "after": _name(after) if after else None,
    }


def _name(adapter: Adapter) -> str:
    return adapter.name or adapter.digest[:12]


def _adapter(ws: Workspace, digest: str) -> Adapter | None:
    return adapters.by_digest(ws.registry.db, ws.registry.store, digest)
