"""What registry and job table hold, as the policy looks at it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from adreg.domain import JobState
from adreg.registry import adapters, overview, verdicts
from adreg.service.policy.records import Held, Measuring, Merged, Run, Settled, State
from adreg.service.rules.gates import FIGURES
from adreg.service.workspace import Workspace


def read_state(
    ws: Workspace, settled: Iterable[Settled] = (), restless: Iterable[Path] = ()
) -> State:
    """The state now; what the folders are is told by who has looked into them."""
    db = ws.registry.db
    runs = tuple(_run(row) for row in overview.trains(db))
    return State(
        settled=tuple(settled),
        restless=frozenset(restless),
        runs=runs,
        adapters=_adapters(ws, {run.digest: run.folder for run in runs if run.digest}),
        merges=tuple(_merged(ws, row) for row in overview.merges(db)),
        names=overview.names(db),
        published=_published(ws),
        verdicts=verdicts.all_of(db),
    )


def _run(row: Mapping[str, Any]) -> Run:
    folder = Path(row["folder"]) if row["folder"] else None
    return Run(**{**row, "folder": folder})


def _adapters(ws: Workspace, folders: Mapping[str, Path | None]) -> tuple[Held, ...]:
    registry = ws.registry
    figures = overview.figures(registry.db)
    scored, followed = _measuring(ws, "score"), _measuring(ws, "forgetting")
    listed = reversed(adapters.listing(registry.db, registry.store))
    return tuple(
        Held(
            digest=adapter.digest,
            name=adapter.name,
            base=adapter.base_digest or "",
            triggers=tuple(adapter.triggers),
            folder=folders.get(adapter.digest),
            line=adapter.line,
            tags=adapter.tags,
            figures=_by_figure(figures.get(adapter.digest, {})),
            scored=scored.get(adapter.digest),
            followed=followed.get(adapter.digest),
            present=adapter.state == "present",
            order=order,
        )
        for order, adapter in enumerate(listed)
        if adapter.name is not None
    )


def _by_figure(values: Mapping[str, float]) -> dict[str, float]:
    """As gates call them: without the version."""
    found = {name.removesuffix("/1"): value for name, value in values.items()}
    return {name: value for name, value in found.items() if name in FIGURES}


def _measuring(ws: Workspace, kind: str) -> dict[str, Measuring]:
    """Adapter to its latest job of that kind; what it skipped by the score's name."""
    found = {}
    for row in overview.measurements(ws.registry.db):
        if row["kind"] == kind and row["adapter"]:
            skipped = {name.removesuffix("/1"): why for name, why in row["skipped"].items()}
            found[row["adapter"]] = Measuring(row["id"], row["state"], skipped)
    return found


def _merged(ws: Workspace, row: Mapping[str, Any]) -> Merged:
    digest = row["digest"]
    there = digest is not None and ws.registry.store.checkpoint_path(digest).is_dir()
    return Merged(**row, present=there)


def _published(ws: Workspace) -> dict[tuple[str, str], tuple[JobState, int]]:
    rows = overview.publications(ws.registry.db)
    return {(row["artefact"], row["repo"]): (row["state"], row["id"]) for row in rows}
