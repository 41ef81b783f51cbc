"""Previews: pictures a job made, taken into the store before their rows are written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from adreg.domain import Json, Preview
from adreg.service.workspace import Workspace


def take_in(ws: Workspace, artefact: str, staging: Path, made: Iterable[Json]) -> list[Preview]:
    """The previews of an artefact from a job's outputs ([{file, prompt, seed}])."""
    return [
        Preview(
            artefact=artefact,
            blob=ws.registry.store.add_blob(staging / picture["file"]),
            prompt=picture["prompt"],
            seed=picture["seed"],
        )
        for picture in made
    ]
