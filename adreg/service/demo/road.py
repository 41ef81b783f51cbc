"""`adreg demo`: the whole road once, from photos in a watched folder to a report.

Everything happens in one folder with a registry of its own; the user's registry stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from adreg.bases.folder import POCKET
from adreg.domain import Adapter, Json, version_of
from adreg.errors import ConflictError
from adreg.merge.recipe import MergeRecipe
from adreg.registry import adapters, names
from adreg.service.demo.facts import gather
from adreg.service.demo.photos import drop_copies, drop_drawn
from adreg.service.demo.plan import CHECKPOINT, Demo
from adreg.service.demo.sheets import overview, subject_sheet
from adreg.service.merges import merging
from adreg.service.report.facts import Facts
from adreg.service.report.page import render
from adreg.service.rules.records import Root
from adreg.service.running.supervisor import run_now
from adreg.service.scores import scoring
from adreg.service.watch import watching
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from adreg.store.staging import disk_errors, writing

PICTURE, REPORT = "demo.png", "report.html"
_SETTLE_SECONDS = 1.0


def run_demo(demo: Demo, settings: Settings, subjects: Path | None) -> Json:
    """Photos, training, scores, merge, pictures, report; the names, paths and figures of it all.

    A bound that is missed is told, not raised. Raises NotFoundError and ArtifactError for a
    folder without subjects, else what the steps raise.
    """
    own = replace(settings, home=demo.home, base=POCKET, settle_seconds=_SETTLE_SECONDS)
    ws = Workspace.open(own)
    folders = _drop(demo, subjects)
    _watch(demo, ws)
    learnt = [_adapter_of(ws, folder) for folder in folders]
    _score(demo, ws, learnt)
    merged = _merge(demo, ws, learnt)
    facts = gather(demo, ws, learnt, merged, drawn=subjects is None)
    sheets, picture, report = _show(demo, facts)
    checkpoint = ws.registry.checkpoint(merged)
    return {
        "report": str(report),
        "picture": str(picture),
        "sheets": [str(sheet) for sheet in sheets],
        "checkpoint": checkpoint.name,
        "path": str(checkpoint.path),
        "adapters": [adapter.name for adapter in learnt],
        "subjects": [subject.to_json() for subject in facts.subjects],
        "verdicts": [verdict.to_json() for verdict in facts.verdicts()],
        "seconds": {name: round(seconds, 1) for name, seconds in demo.seconds.items()},
        "warnings": list(facts.warnings),
        "home": str(demo.home),
    }


def _drop(demo: Demo, subjects: Path | None) -> list[str]:
    """Subject folders into the watched one; their names."""
    incoming, effort = demo.folder / "incoming", demo.effort
    with demo.stage("photos", f"dropped into {demo.watched}"):
        if subjects is not None:
            return drop_copies(incoming, demo.watched, subjects)
        return drop_drawn(incoming, demo.watched, effort.drawn, effort.photos)


def _watch(demo: Demo, ws: Workspace) -> None:
    root = Root(demo.watched, POCKET, ws.settings.method, train=demo.effort.training)
    with demo.stage("training", "watching the folder"):
        broken = watching.watch(ws, root, once=True, say=demo.say, tick=demo.tick)
    if broken:
        raise broken[0]


def _adapter_of(ws: Workspace, folder: str) -> Adapter:
    """The newest adapter that was trained from a folder of that name."""
    found = adapters.listing(ws.registry.db, ws.registry.store)
    return next(adapter for adapter in found if adapter.source == folder)


def _score(demo: Demo, ws: Workspace, learnt: Sequence[Adapter]) -> None:
    base = ws.base(POCKET)
    with demo.stage("scores", f"of {len(learnt)} adapters"):
        for adapter in learnt:
            wanted = scoring.score_request(ws, adapter, base, scoring.default_scorer(ws, base))
            wanted["spec"] = demo.effort.score.to_json()
            run_now(ws, scoring.enqueue(ws, wanted), demo.tick)


def _merge(demo: Demo, ws: Workspace, learnt: Sequence[Adapter]) -> str:
    """The checkpoint's name."""
    parts = [str(adapter.name) for adapter in learnt]
    with demo.stage("merge", " ".join(parts)):
        recipe, base = merging.make_recipe(ws, parts, "loraclr", refine_steps=demo.effort.refine)
        name = _name_for(ws, recipe)
        run_now(ws, merging.request_merge(ws, recipe, base, name), demo.tick)
    return name


def _name_for(ws: Workspace, recipe: MergeRecipe) -> str:
    """demo; demo@2 where an earlier release, or a run on other photos, made another demo."""
    made = merging.made_by(ws, recipe.digest())
    for name in (version_of(CHECKPOINT, number) for number in count(1)):
        with suppress(ConflictError):
            names.check_free(ws.registry.db, name, made.digest if made else None)
            return name
    raise AssertionError("names never end")


def _show(demo: Demo, facts: Facts) -> tuple[list[Path], Path, Path]:
    """The sheet of each subject, the one of all, and the report."""
    folder = demo.folder
    with demo.stage("report", str(folder / REPORT)), disk_errors(folder):
        sheets = []
        for subject in facts.subjects:
            sheets.append(folder / f"{subject.name}.png")
            subject_sheet(subject).save(sheets[-1])
        overview(facts.subjects).save(folder / PICTURE)
        with writing(folder / REPORT) as file:
            file.write(render(facts).encode())
    return sheets, folder / PICTURE, folder / REPORT
