"""Publications of registered artefacts on the pocket base, by the job they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from huggingface_hub import ModelCard, constants
from PIL import Image
from safetensors.numpy import load

from adreg.diffusion.modules import attention_modules
from adreg.domain import Checkpoint, Concept, Json, Score
from adreg.errors import ArtifactError, ExternalError, UsageError
from adreg.jobs import publish as job
from adreg.merge.execute import merge
from adreg.registry import adapters, checkpoints, jobs, names, scores, sources
from adreg.registry.connection import immediate
from adreg.service.hub import publishing
from adreg.service.hub.describing import describe
from adreg.service.models.adding import add_adapter
from adreg.service.running.supervisor import run_now
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from adreg.store.digest import tree_digest
from adreg.store.staging import publish_dir
from tests.hub_server import Blob, HubServer
from tests.merge.cases import adapter, recipe_for
from tests.tiny import pocket_folder

LORA = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A registry with `rex`, `tom` and their merge `duo` on the pocket base."""
    folder = tmp_path_factory.mktemp("publishing")
    ws = Workspace.open(Settings(folder / "home", device="cpu"))
    base = ws.base("pocket")
    modules = attention_modules(base.modules)[:4]
    cases = [adapter(folder, base, name, modules, seed=len(name)) for name in ("rex", "tommy")]
    for case in cases:
        add_adapter(ws, case.path)
    recipe = recipe_for(base, cases, "concat")
    report = merge(base, [case.named for case in cases], recipe, folder / "model")
    digest = tree_digest(folder / "model")
    path = publish_dir(folder / "model", ws.registry.store.checkpoint_path(digest))
    made = Checkpoint(
        digest,
        path,
        "concat",
        tuple(case.ref.digest for case in cases),
        base.digest,
        base.name,
        tuple(Concept(**concept) for concept in report["concepts"]),
        recipe.to_json(),
    )
    checkpoints.insert(ws.registry.db, made)
    names.point(ws.registry.db, "duo", "checkpoint", digest)
    return ws


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub of this process and of its children."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def run(ws: Workspace, tmp_path: Path, ref: str, repo: str, **options: Any) -> Json:
    """The job here, in this process: what a child would do, and the head after it."""
    queued = publishing.request_publication(ws, ref, repo, private=True, **options)
    claimed = jobs.claim(ws.registry.db, "test 1 1.0", 60, queued.id)
    assert claimed is not None
    inputs = json.loads(json.dumps(publishing.resolve(ws, claimed.request)))
    outputs = json.loads(json.dumps(job.run(inputs, tmp_path, lambda *_, **__: None)))
    publishing.record(ws, claimed, tmp_path, outputs)
    result = jobs.get(ws.registry.db, queued.id).result
    assert result is not None
    return result


def planned(ws: Workspace, ref: str, repo: str, **options: Any) -> Json:
    inputs = publishing.publish_inputs(ws, ref, repo, private=True, **options)
    return publishing.preview(ws, json.loads(json.dumps(inputs)))


def programs(hub: HubServer, repo: str) -> list[str]:
    card = hub.repos[repo].head.files["README.md"].content.decode()
    return [part.split("\n```")[0] for part in card.split("```py\n")[1:]]


def test_both_as_planned_and_each_program_of_the_card_draws_the_same(
    ws: Workspace, hub: HubServer, tmp_path: Path
) -> None:
    """Run by themselves, with plain diffusers, against the Hub they were published to."""
    plan = planned(ws, "duo", "me/duo", form="both")
    done = run_now(
        ws, publishing.request_publication(ws, "duo", "me/duo", private=True, form="both")
    )
    assert (done["format"], done["version"], done["truncation"]["modules"]) == ("both", "v1", 4)
    assert done["truncation"]["lost"] < 1e-3
    there = hub.repos["me/duo"].head.files
    assert [file["path"] for file in plan["files"]] == done["files"]
    estimated = {file["path"]: file["size"] for file in plan["files"] if file["estimated"]}
    assert set(estimated) == {LORA, "embeddings/rex.safetensors", "embeddings/tommy.safetensors"}
    # Headers come on top; ranks that say nothing are left out.
    assert len(there[LORA].content) < 2 * estimated[LORA] + 10_000
    assert there["README.md"].content.decode() == plan["card"]
    whole, lora = programs(hub, "me/duo")
    assert "load_lora_weights" in lora
    script = "import os\n"
    for name, program in (("whole", whole), ("lora", lora)):
        (tmp_path / name).mkdir()
        seeded = program.replace(").images", ", generator=torch.manual_seed(0)).images")
        script += f"os.chdir({str(tmp_path / name)!r})\nexec({seeded!r}, {{}})\n"
    home = {"HF_HOME": str(tmp_path / "home")}
    subprocess.run([sys.executable, "-c", script], env=os.environ | home, check=True)
    with (
        Image.open(tmp_path / "whole/image.png") as a,
        Image.open(tmp_path / "lora/image.png") as b,
    ):
        assert a.size == b.size == (64, 64)
        assert np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() < 2
        assert np.asarray(a).std() > 1


def test_a_lora_is_cut_to_a_rank_and_once_more_nothing_changes(
    ws: Workspace, hub: HubServer, tmp_path: Path
) -> None:
    first = run(ws, tmp_path, "duo", "me/lora", form="lora", rank=1)
    assert first["files"] == [
        "README.md",
        "embeddings/rex.safetensors",
        "embeddings/tommy.safetensors",
        LORA,
    ]
    head = hub.repos["me/lora"].head
    ranks = {v.shape[0] for k, v in load(head.files[LORA].content).items() if "lora_A" in k}
    assert ranks == {1}
    assert 0.05 < first["truncation"]["lost"] < 1
    again = run(ws, tmp_path, "duo", "me/lora", form="lora", rank=1)
    assert (again["changed"], again["commit"], again["version"]) == (False, head.oid, "v1")
    card = ModelCard(head.files["README.md"].content.decode())
    assert "lora" in (card.data.tags or ())
    assert "Checkpoint digest" not in card.text


@pytest.mark.parametrize(
    ("route", "commits"), [("create", 0), ("lfs_put", 1), ("commit", 1), ("tag", 2)]
)
def test_a_child_that_is_killed_is_followed_by_one_that_makes_nothing_twice(
    ws: Workspace, hub: HubServer, route: str, commits: int
) -> None:
    repo, at_death = f"me/killed-{route.replace('_', '-')}", []

    def kill() -> None:
        at_death.append(len(hub.repos[repo].commits) if repo in hub.repos else 0)
        port, me = int(hub.url.rsplit(":", 1)[1]), os.getpid()
        asking = [c for c in psutil.net_connections("tcp") if c.raddr and c.raddr.port == port]
        for pid in {c.pid for c in asking if c.pid not in (None, me)}:
            psutil.Process(pid).kill()

    hub.meanwhile(route, kill)
    done = run_now(ws, publishing.request_publication(ws, "rex", repo, private=True))
    assert at_death == [commits]
    assert done["version"] == "v1"
    assert hub.repos[repo].tags == {"v1": done["commit"]}
    assert [commit.summary for commit in hub.repos[repo].commits] == [
        "initial commit",
        "rex: published with adreg",
    ]


def test_what_waits_to_be_published_becomes_what_was_asked_for_last(ws: Workspace) -> None:
    first = publishing.request_publication(ws, "duo", "me/asked-twice", private=True)
    last = publishing.request_publication(
        ws, "duo", "me/asked-twice", private=False, form="both", replace=True
    )
    assert (last.id, last.state) == (first.id, "queued")
    inputs = publishing.resolve(ws, jobs.get(ws.registry.db, first.id).request)
    assert (inputs["private"], inputs["format"], inputs["replace"]) == (False, "both", True)
    jobs.cancel(ws.registry.db, first.id)


def test_what_was_asked_for_is_published_whatever_bears_its_name_by_then(ws: Workspace) -> None:
    rex = ws.registry.adapter("rex")
    job = publishing.request_publication(ws, "rex", "me/renamed", private=True)
    with immediate(ws.registry.db):
        ws.registry.db.conn.execute("update names set name='max' where name='rex'")
        names.point(ws.registry.db, "rex", "adapter", ws.registry.adapter("tommy").digest)
    try:
        assert publishing.resolve(ws, job.request)["path"] == str(rex.path)
    finally:
        with immediate(ws.registry.db):
            ws.registry.db.conn.execute("delete from names where name='rex'")
            ws.registry.db.conn.execute("update names set name='rex' where name='max'")
        jobs.cancel(ws.registry.db, job.id)


def test_version_and_format_of_a_publication_are_kept(
    ws: Workspace, hub: HubServer, tmp_path: Path
) -> None:
    run(ws, tmp_path, "rex", "me/kept")
    repo = hub.repos["me/kept"]
    repo.add("by hand", {**repo.head.files, "LICENSE": Blob(b"mine", False)})
    assert run(ws, tmp_path, "rex", "me/kept")["version"] is None
    digest = ws.registry.adapter("rex").digest
    told = next(
        p for p in sources.publications_of(ws.registry.db, digest) if p["repo"] == "me/kept"
    )
    assert (told["version"], told["format"], told["commit"]) == ("v1", "lora", repo.head.oid)


def test_nothing_is_cut_before_the_hub_has_said_yes(
    ws: Workspace, hub: HubServer, tmp_path: Path
) -> None:
    hub.role = "read"
    with pytest.raises(ExternalError, match="may only read"):
        run(ws, tmp_path, "duo", "me/never", form="lora")
    assert not (tmp_path / "artefact").exists()
    assert [route for route, _ in hub.requests] == ["whoami"]


def test_an_adapter_is_a_lora_and_nothing_else(ws: Workspace, hub: HubServer) -> None:
    before = len(jobs.listing(ws.registry.db))
    for form in ("diffusers", "both"):
        with pytest.raises(UsageError, match="rex is an adapter"):
            publishing.request_publication(ws, "rex", "me/rex", private=True, form=form)
    assert len(jobs.listing(ws.registry.db)) == before
    assert planned(ws, "rex", "me/rex")["format"] == "lora"


def test_a_lora_needs_the_very_base_a_folder_does_not(ws: Workspace) -> None:
    duo = ws.registry.checkpoint("duo")
    other = replace(duo, digest="e" * 64, base_digest="f" * 64, base_name="pocket")
    path = ws.registry.store.checkpoint_path(other.digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(duo.path)
    checkpoints.insert(ws.registry.db, other)
    with pytest.raises(ArtifactError, match="not the base any more"):
        publishing.publish_inputs(ws, other.digest, "me/x", private=True, form="lora")
    publishing.publish_inputs(ws, other.digest, "me/x", private=True)


def test_the_card_says_what_the_registry_knows(ws: Workspace) -> None:
    rex = ws.registry.adapter("rex")
    details = {"interval": [0.7, 0.9], "prompts": {}}
    score = Score("kps/1", 0.8, rex.digest, str(rex.base_digest), "pocket", {}, details)
    scores.insert(ws.registry.db, score)
    facts = describe(ws, rex)
    assert facts["scores"] == [{"name": "kps/1", "value": 0.8, "interval": [0.7, 0.9]}]
    assert facts["base"]["license"] == "apache-2.0"
    assert facts["lineage"] == []
    assert facts["prompt"] == "a photo of a <rex> dog"
    assert describe(ws, replace(rex, concepts=()))["prompt"] == "a photo"
    ink = replace(rex, concepts=(Concept("<ink>", "drawing", "style"),))
    assert describe(ws, ink)["prompt"] == "a drawing in the style of <ink>"
    both = replace(rex, concepts=(*rex.concepts, *ink.concepts))
    assert describe(ws, both)["prompt"] == "a photo of a <rex> dog in the style of <ink>"
    assert "0.7 to 0.9" in planned(ws, "rex", "me/rex")["card"]
    told = describe(ws, ws.registry.checkpoint("duo"))["lineage"]
    assert [(a["name"], a["method"], a["line"]) for a in told] == [
        ("rex", "lora", None),
        ("tommy", "lora", None),
    ]


def test_a_lines_adapter_names_those_it_goes_on_from(ws: Workspace) -> None:
    first = ws.registry.adapter("rex")
    for digest, before in (("1" * 64, first.digest), ("2" * 64, "1" * 64)):
        made = replace(first, digest=digest, line="pets", continued_from=before, method="c-lora")
        adapters.insert(ws.registry.db, made)
    last = adapters.by_digest(ws.registry.db, ws.registry.store, "2" * 64)
    assert last is not None
    told = describe(ws, last)["lineage"]
    assert describe(ws, last)["prompt"] == "a photo of <rex>"  # a line trains without the class
    assert [(a["name"], a["method"], a["line"], a["after"]) for a in told] == [
        ("rex", "lora", None, None),
        ("1" * 12, "c-lora", "pets", "rex"),
    ]


def test_the_licence_of_a_base_in_a_folder_is_that_of_its_card(
    hub: HubServer, tmp_path: Path
) -> None:
    folder = pocket_folder(tmp_path / "base")
    ws = Workspace.open(Settings(tmp_path / "home", str(folder), device="cpu"))
    base = ws.base(str(folder))
    case = adapter(tmp_path, base, "rex", attention_modules(base.modules)[:1])
    add_adapter(ws, case.path)
    done = run(ws, tmp_path, "rex", "me/rex")
    assert any("licence" in text for text in done["notices"])
    card = ModelCard(hub.repos["me/rex"].head.files["README.md"].content.decode())
    assert card.data.license is None
    (folder / "README.md").write_text("---\nlicense: openrail++\n---\n")
    done = run(ws, tmp_path, "rex", "me/rex")
    assert (done["version"], done["notices"]) == ("v2", [])
    card = ModelCard(hub.repos["me/rex"].head.files["README.md"].content.decode())
    assert card.data.license == "openrail++"
