"""Recipes in files: names become adapters and a base of this registry, and back into TOML."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adreg.domain import Adapter, Base, Checkpoint, Concept, Json
from adreg.errors import NotFoundError, UsageError
from adreg.merge.recipe import AdapterRef, MergeRecipe
from adreg.merge.recipe_file import Stated, complete, read_recipe, to_toml
from adreg.registry.bases import base_reference
from adreg.service.generation.generating import base_ref_of
from adreg.service.models.adding import check_fits
from adreg.service.other_kinds import told_apart
from adreg.service.workspace import Workspace


def recipe_of_file(ws: Workspace, file: Path) -> tuple[MergeRecipe, Base]:
    """The recipe in a file, completed by the method's defaults, and its base.

    Adapters and base are found by their digest where that is given, else by name; a name that
    means another by now is refused. Raises UsageError, NotFoundError (both name file and key),
    ArtifactError (an adapter's file is missing, or not for the base).
    """
    stated = read_recipe(file)
    found = [_adapter(ws, stated, number) for number in range(len(stated.adapters))]
    base = _base(ws, stated, found)
    for adapter in found:
        check_fits(adapter, base)
    pairs = zip(stated.adapters, found, strict=True)
    return complete(stated, base, [_reference(entry, adapter) for entry, adapter in pairs]), base


def recipe_toml(checkpoint: Checkpoint) -> str:
    """The complete recipe of a checkpoint as `adreg merge --recipe` reads it."""
    recipe = {key: value for key, value in checkpoint.recipe.items() if key != "renames"}
    return to_toml(recipe, checkpoint.recipe.get("renames", []))


def _adapter(ws: Workspace, stated: Stated, number: int) -> Adapter:
    entry, key = stated.adapters[number], f"adapters[{number}]"
    name, digest = entry["name"], entry.get("digest")
    with _placed(stated, f"{key}.digest" if digest else f"{key}.name"), told_apart(ws, name):
        found = ws.registry.adapter(digest or name)
    try:
        named = ws.registry.adapter(name)
    except NotFoundError:
        return found  # it has another name here, and the digest says which it is
    if named.digest != found.digest:
        raise UsageError(
            f"{stated.where(f'{key}.digest')}: {name!r} is {named.digest[:12]} here,"
            f" not {found.digest[:12]}",
            remedy="leave out the digest to take the adapter of that name",
        )
    return found


def _base(ws: Workspace, stated: Stated, adapters: list[Adapter]) -> Base:
    wanted = stated.base
    if wanted is None:
        return ws.base(base_ref_of(ws, adapters))
    known = base_reference(ws.registry.db, wanted["digest"]) if "digest" in wanted else None
    with _placed(stated, "base.name"):
        base = ws.base(known or wanted["name"])
    if wanted.get("digest", base.digest) != base.digest:
        raise UsageError(
            f"{stated.where('base.digest')}: {wanted['name']!r} is {base.digest[:12]} here,"
            f" not {wanted['digest'][:12]}",
            remedy="leave out the digest to take the base of that name",
        )
    return base


def _reference(entry: Json, adapter: Adapter) -> AdapterRef:
    # With its digest an entry is a complete recipe's, which keeps what adapters were called then.
    kept = entry["name"] if "digest" in entry else adapter.name or adapter.digest[:12]
    given = tuple(Concept(**concept) for concept in entry.get("concepts", ()))
    return AdapterRef(kept, adapter.digest, entry.get("weight", 1.0), given or adapter.concepts)


@contextmanager
def _placed(stated: Stated, key: str) -> Iterator[None]:
    """What is not found is named with its place in the file."""
    try:
        yield
    except NotFoundError as error:
        told = f"{stated.where(key)}: {error.message}"
        raise NotFoundError(told, remedy=error.remedy) from None
