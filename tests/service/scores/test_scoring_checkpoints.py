from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adreg.domain import Checkpoint, Concept
from adreg.errors import ArtifactError, UsageError
from adreg.registry import checkpoints, jobs, names, scores
from adreg.score.spec import ScoreSpec
from adreg.service.generation.generating import request_pictures
from adreg.service.origins import of_checkpoint
from adreg.service.running.supervisor import run_now
from adreg.service.scores import scoring_checkpoints
from adreg.service.scores.scoring_checkpoints import request_checkpoint_score
from adreg.service.workspace import Workspace
from adreg.store.digest import tree_digest
from tests import tiny
from tests.cli import CliHere

SPEC = ScoreSpec(prompts=2, concept_prompts=2, steps=2, guidance=1.0).to_json()


@pytest.fixture(scope="module")
def ws(pets: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The line of pets, and the checkpoint `duo` of it, in which `<rex>` is `<rex-2>`."""
    home = tmp_path_factory.mktemp("duo") / "home"
    shutil.copytree(pets.settings.home, home)
    ws = Workspace.open(replace(pets.settings, home=home))
    _register(ws)
    return ws


def _register(ws: Workspace) -> None:
    from adreg.diffusion.tokens import add_tokens

    pipe = tiny.pocket_pipeline(seed=2)
    add_tokens(pipe, {trigger: torch.randn(1, 32) for trigger in ("<rex-2>", "<tom>")})
    folder = ws.settings.home / "merged"
    pipe.save_pretrained(folder)
    digest = tree_digest(folder)
    path = ws.registry.store.checkpoint_path(digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(path)
    tom = ws.registry.adapter("tom")
    base = ws.base(ws.settings.base)
    recipe = {
        "adapters": [{"name": "tom", "digest": tom.digest, "weight": 1.0, "concepts": []}],
        "renames": [{"adapter": "tom", "old": "<rex>", "new": "<rex-2>"}],
    }
    made = Checkpoint(
        digest=digest,
        path=path,
        method="concat",
        adapters=("tom",),
        base_digest=base.digest,
        base_name=base.name,
        concepts=(Concept("<rex-2>", "dog"), Concept("<tom>", "cat")),
        recipe=recipe,
    )
    checkpoints.insert(ws.registry.db, made)
    names.point(ws.registry.db, "duo", "checkpoint", digest)


def test_concepts_know_where_they_come_from(ws: Workspace) -> None:
    found = [
        (o.concept.trigger, o.own_trigger, o.name, o.method)
        for o in of_checkpoint(ws, ws.registry.checkpoint("duo"))
    ]
    assert found == [
        ("<rex-2>", "<rex>", "tom", "c-lora"),
        ("<tom>", "<tom>", "tom", "c-lora"),
    ]


def test_what_is_measured_is_kept_with_the_checkpoint(ws: Workspace) -> None:
    duo = ws.registry.checkpoint("duo")
    job = request_checkpoint_score(ws, duo)
    assert request_checkpoint_score(ws, duo).id == job.id
    inputs = scoring_checkpoints.resolve(ws, job.request)
    assert set(inputs["identity"]["photos"]) == {"<rex-2>", "<tom>"}
    assert [len(photos) for photos in inputs["identity"]["photos"].values()] == [2, 3]
    jobs.cancel(ws.registry.db, job.id)

    quick = jobs.enqueue(ws.registry.db, "score_checkpoint", "quick", {**job.request, "spec": SPEC})
    result = run_now(ws, quick)
    measured = {"kps/1", "text-alignment/1", "identity/1", "pres/1", "multi/1"}
    assert set(result["scores"]) == measured
    kept = {score.name: score for score in scores.of(ws.registry.db, duo.digest)}
    assert kept["multi/1"].value == result["scores"]["multi/1"]
    assert kept["multi/1"].inputs["among"] == ["<rex-2>", "<tom>"]
    assert kept["multi/1"].inputs["prompts"][0] == "a photo of a dog and a cat on grass"
    assert len(scores.previews_of(ws.registry.db, duo.digest)) == 2 + 12


def test_regions_go_by_the_checkpoints_own_triggers(ws: Workspace, tmp_path: Path) -> None:
    here = CliHere(ws.settings.home, tmp_path, {"ADREG_BASE": ws.settings.base})
    wanted = ("generate", "a dog and a cat", "--checkpoint", "duo", "-n", "1", "--steps", "2")
    placed = ("--region", "rex-2:0,0,.5,1", "--region", "<tom>:.5,0,1,1:<tom> at night")
    made = here.json(*wanted, *placed, "--out", "duo.png")
    assert [region["prompt"] for region in made["regions"]] == [
        "a photo of <rex-2>",
        "<tom> at night",
    ]
    here.json(*wanted, "--out", "plain.png")
    assert (tmp_path / "duo.png").read_bytes() != (tmp_path / "plain.png").read_bytes()
    assert "concepts here: <rex-2>, <tom>" in here.refused(3, *wanted, "--region", "<rex>:0,0,1,1")
    several = here.refused(2, *wanted, "--region", "tom:0,0,2,1")
    assert "'0,0,2,1' is no box" in several


def test_it_is_held_against_the_base_it_was_merged_on(ws: Workspace, tmp_path: Path) -> None:
    other = str(tiny.pocket_folder(tmp_path / "other", seed=5))
    with pytest.raises(UsageError, match="was merged on"):
        request_checkpoint_score(ws, ws.registry.checkpoint("duo"), base_ref=other)
    job = request_checkpoint_score(ws, ws.registry.checkpoint("duo"))
    jobs.cancel(ws.registry.db, job.id)
    path = ws.registry.checkpoint("duo").path
    path.rename(path.with_name("away"))
    try:
        with pytest.raises(ArtifactError, match="checkpoint duo is missing") as told:
            scoring_checkpoints.resolve(ws, job.request)
        assert told.value.remedy == "adreg merge --again duo restores it"
        with pytest.raises(ArtifactError, match="checkpoint duo is missing"):
            request_pictures(ws, ["a dog"], [0], checkpoint="duo", out=tmp_path / "out")
    finally:
        path.with_name("away").rename(path)
