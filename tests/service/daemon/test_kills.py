"""kill -9 of the daemon and of its children in the middle of a merge and of a publication."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from adreg.domain import Job, Json
from adreg.registry import jobs
from adreg.service.hub.publishing import request_publication
from adreg.service.merges.merging import make_recipe, request_merge
from adreg.service.running.supervisor import run_now
from adreg.service.workspace import Workspace
from adreg.store.guard import INCOMING
from adreg.store.sizes import files_below
from tests.hub_server import HubServer
from tests.service.daemon.test_control import ENDLESS, queue, status
from tests.service.household import copy_of, dangling
from tests.service.processes import Home, until

Victim = Literal["child", "daemon"]

# A loaded machine takes long, and long is not wrong.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "subjects"
    folder.mkdir()
    return folder


@pytest.fixture
def hub(home: Home) -> Iterator[HubServer]:
    """The Hub of this home's daemon."""
    with HubServer() as server:
        for name, value in (("ENDPOINT", server.url), ("TOKEN", server.token)):
            home.environ[f"HF_{name}"] = value
        home.environ["HF_HUB_OFFLINE"] = "0"
        yield server


def kill(home: Home, root: Path, victim: Victim) -> None:
    """Kills it, and sees to it that there is a daemon."""
    running = home.daemon()
    assert running is not None
    (child,) = home.children()
    if victim == "child":
        child.kill()
        return
    running.kill()
    until(lambda: home.daemon() is None, "the daemon's end")
    assert home.run("daemon", "start", root) == 0
    until(lambda: not child.is_running(), "the orphan's end")


def until_done(home: Home, kind: str) -> Job:
    until(lambda: home.jobs(kind)[-1].state in ("done", "failed"), f"the end of the {kind}")
    job = home.jobs(kind)[-1]
    assert (job.state, job.attempt) == ("done", 2), job.error
    return job


def weights_below(folder: Path) -> list[Path]:
    return [file for file, _ in files_below(folder) if file.suffix == ".safetensors"]


def nothing_is_left(ws: Workspace) -> bool:
    places = (ws.settings.staging, ws.registry.store.root / INCOMING)
    return not [left for place in places if place.is_dir() for left in place.iterdir()]


def ask_for_merge(ws: Workspace) -> Job:
    recipe, base = make_recipe(ws, ["rex", "tom"], "loraclr")
    return request_merge(ws, recipe, base, "both")


@pytest.fixture(scope="module")
def undisturbed(furnished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Json:
    ws = copy_of(furnished, tmp_path_factory.mktemp("undisturbed"))
    return run_now(ws, ask_for_merge(ws))


@pytest.mark.parametrize(("victim", "moment"), [("child", "layers"), ("daemon", "artefact/model")])
def test_a_merge_whose_child_or_daemon_is_killed_ends_once_and_with_the_same_checkpoint(
    ws: Workspace, home: Home, root: Path, undisturbed: Json, victim: Victim, moment: str
) -> None:
    job = ask_for_merge(ws)
    staging = ws.settings.staging / str(job.id)
    assert home.run("daemon", "start", root) == 0
    until(lambda: bool(weights_below(staging / moment)), f"weights in {moment}")
    kill(home, root, victim)
    ended = until_done(home, "merge")
    assert ended.result is not None
    assert ended.result["digest"] == undisturbed["digest"]
    assert ended.failures == (victim == "child")
    assert ws.registry.checkpoint("both").digest == undisturbed["digest"]
    until(lambda: nothing_is_left(ws), "the staging folder to be gone")
    assert home.run("daemon", "stop") == 0
    assert dangling(ws) == []
    assert len(list((ws.registry.store.root / "checkpoints").iterdir())) == 2  # duo and both


@pytest.mark.parametrize(("victim", "route"), [("daemon", "commit"), ("child", "tag")])
def test_a_publication_whose_child_or_daemon_is_killed_is_one_commit_with_one_tag(
    ws: Workspace, home: Home, root: Path, hub: HubServer, victim: Victim, route: str
) -> None:
    """Killed when all is uploaded and nothing committed; when the commit is made and not named."""
    request_publication(ws, "duo", "me/duo", private=True)
    hub.fail(route, 500)
    assert home.run("daemon", "start", root) == 0
    until(lambda: hub.count(route) > 0, f"the publication to come to its {route}")
    assert len(hub.repos["me/duo"].commits) == (2 if route == "tag" else 1)  # one made the repo
    kill(home, root, victim)
    hub.fail(route, 500, times=0)
    ended = until_done(home, "publish")
    assert home.run("daemon", "stop") == 0
    repo = hub.repos["me/duo"]
    assert len(repo.commits) == 2
    assert repo.tags == {"v1": repo.head.oid}
    assert "adreg_recipe.json" in repo.head.files
    assert ended.result is not None
    assert (ended.result["commit"], ended.result["version"]) == (repo.head.oid, "v1")
    rows = list(ws.registry.db.conn.execute("select repo, commit_id from publications"))
    assert [tuple(row) for row in rows] == [("me/duo", repo.head.oid)]
    assert nothing_is_left(ws)


def test_a_publication_runs_beside_the_training_that_has_the_only_device(
    ws: Workspace, home: Home, root: Path, hub: HubServer, tmp_path: Path
) -> None:
    training = queue(home, tmp_path / "mug-1", ENDLESS)
    assert home.run("daemon", "start", root) == 0
    home.until_saved(1, training.id)
    hub.delay("commit", 600)
    request_publication(ws, "duo", "me/duo", private=True)
    until(lambda: hub.count("preupload") > 0, "the publication to be at work")
    later = request_publication(ws, "rex", "me/rex", private=True)
    before = home.saved_steps(training.id)
    until(lambda: home.saved_steps(training.id) > before, "the training to go on meanwhile")
    working = status(home)["working_on"]
    told = [(run["kind"], run["device"]) for run in working]  # type: ignore[attr-defined]
    assert told == [("train", "cpu"), ("publish", None)]
    assert jobs.get(ws.registry.db, later.id).state == "queued"  # one at a time
    assert home.run("daemon", "stop", "--now") == 0
