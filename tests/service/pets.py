"""A continual line of two tasks, trained and measured for real on a tiny base."""

from __future__ import annotations

from pathlib import Path

from adreg.domain import Job
from adreg.registry import jobs
from adreg.score.spec import ScoreSpec
from adreg.service.running.supervisor import run_now
from adreg.service.scores.scoring import request_score
from adreg.service.training.forgetting import follow
from adreg.service.training.runs import TrainingWish, request_training
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests import tiny
from tests.score.models import convnext_folder

SPEC = ScoreSpec(concept_prompts=2, steps=2, guidance=1.0).to_json()


def train_pets(folder: Path) -> Workspace:
    """The line `pets` of `<rex>`, then `<tom>`, each of two steps and measured after it."""
    settings = Settings(
        home=folder / "home",
        base=str(tiny.pocket_folder(folder / "base")),
        scorer=str(tiny.scorer_folder(folder / "clip")),
        identity_scorer=str(convnext_folder(folder / "convnext")),
        device="cpu",
    )
    ws = Workspace.open(settings)
    for seed, (name, word) in enumerate((("rex", "dog"), ("tom", "cat"))):
        wish = TrainingWish(
            folder=tiny.photos(folder / name, 2 + seed, seed=seed),
            class_word=word,
            name=name,
            method="c-lora",
            base=settings.base,
            line="pets",
            settings={"steps": 2, "rank": 2},
        )
        run_now(ws, request_training(ws, wish))
        measure(ws, name)
    return ws


def measure(ws: Workspace, name: str) -> Job:
    """The forgetting job of the line up to an adapter, done."""
    job = follow(ws, {**request_score(ws, name).request, "spec": SPEC})
    assert job is not None
    if job.state == "queued":
        run_now(ws, job)
    return jobs.get(ws.registry.db, job.id)
