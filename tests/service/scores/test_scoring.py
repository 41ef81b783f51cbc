"""What a score job is given: scorers by what they hold, photos by the adapter's own past."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adreg.bases.scorers import find_identity_scorer, find_scorer
from adreg.domain import Adapter, Json
from adreg.errors import ArtifactError, UsageError
from adreg.formats.write import write_adapter
from adreg.registry import adapters, jobs
from adreg.service.models.adding import add_adapter
from adreg.service.scores.scoring import request_score, resolve
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests import tiny
from tests.diffusion.weights import random_weights
from tests.hub_server import HubServer, the_only_hub
from tests.score.models import convnext_folder, dinov2_folder

REX, TOM = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a CLIP, a DINOv2 and an adapter file of `<rex>`, which nobody changes."""
    folder = tmp_path_factory.mktemp("made")
    tiny.pocket_folder(folder / "base")
    tiny.scorer_folder(folder / "clip")
    dinov2_folder(folder / "dinov2")
    shapes = tiny.modules_of(tiny.pocket_pipeline())
    keys = [key for key in sorted(shapes) if "attn2" in key]
    token = torch.ones(1, 32)
    write_adapter(folder / "rex.safetensors", random_weights(shapes, keys, {"<rex>": token}), {})
    return folder


@pytest.fixture
def ws(tmp_path: Path, made: Path) -> Workspace:
    settings = Settings(home=tmp_path / "home", base=str(made / "base"), scorer=str(made / "clip"))
    ws = Workspace.open(settings)
    add_adapter(ws, made / "rex.safetensors", trigger="<rex>", class_word="dog")
    return ws


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with the_only_hub(tmp_path, monkeypatch) as server:
        yield server


def train_job(ws: Workspace, subject: str, trigger: str, adapter: str, photos: int) -> list[str]:
    """A train job that ended with that adapter; the paths of its photos in the store."""
    store, db = ws.registry.store, ws.registry.db
    folder = tiny.photos(ws.settings.home / trigger, photos)
    images = {path.name: path for path in sorted(folder.iterdir())}
    store.add_subject(images, lambda copies: subject)
    request = {"subject": subject, "images": list(images), "spec": {"trigger": trigger}}
    queued = jobs.enqueue(db, "train", subject, request)
    job = jobs.claim(db, "worker", 60.0, queued.id)
    assert job is not None
    jobs.conclude(db, job, {"digest": adapter})
    return [str(store.subject_path(subject) / name) for name in images]


def asked(ws: Workspace, identity_scorer: Path | str | None = None) -> Json:
    """The identity part of what the score job of `rex` is given."""
    told = None if identity_scorer is None else str(identity_scorer)
    identity: Json = resolve(ws, request_score(ws, "rex", identity_scorer=told).request)["identity"]
    return identity


def test_the_photos_are_those_the_adapter_was_trained_on(ws: Workspace, made: Path) -> None:
    rex = ws.registry.adapter("rex")
    assert "not in this registry" in asked(ws, made / "dinov2")["skipped"]
    paths = train_job(ws, REX, "<rex>", rex.digest, 3)
    scorer = str((made / "dinov2").resolve())
    assert asked(ws, made / "dinov2") == {"scorer": scorer, "photos": {"<rex>": paths}}
    Path(paths[1]).unlink()
    assert "not in this registry" in asked(ws, made / "dinov2")["skipped"]


def test_a_lines_earlier_concepts_have_their_own_photos(ws: Workspace, made: Path) -> None:
    rex = ws.registry.adapter("rex")
    of_rex = train_job(ws, REX, "<rex>", rex.digest, 2)
    before = replace(rex, digest="c" * 64, concepts=(replace(rex.concepts[0], trigger="<tom>"),))
    adapters.insert(ws.registry.db, before)
    of_tom = train_job(ws, TOM, "<tom>", before.digest, 1)
    line: Adapter = replace(rex, concepts=(*before.concepts, *rex.concepts))
    adapters.set_concepts(ws.registry.db, line)
    assert list(asked(ws, made / "dinov2")["photos"]) == ["<rex>"]
    ws.registry.db.conn.execute(
        "update adapters set continued_from=? where digest=?", [before.digest, rex.digest]
    )
    assert asked(ws, made / "dinov2")["photos"] == {"<tom>": of_tom, "<rex>": of_rex}


def test_without_an_identity_scorer_identity_is_skipped(ws: Workspace, made: Path) -> None:
    assert "--identity-scorer" in asked(ws)["skipped"]
    ours = replace(ws.settings, identity_scorer=str(made / "dinov2"))
    job = request_score(Workspace(ours, ws.registry), "rex")
    assert job.request["identity_scorer"] == str((made / "dinov2").resolve())
    with pytest.raises(UsageError, match="no scorer is set"):
        request_score(Workspace(replace(ws.settings, scorer=""), ws.registry), "rex")


def test_a_job_is_one_for_what_its_scorers_hold(ws: Workspace, made: Path, tmp_path: Path) -> None:
    first = request_score(ws, "rex", identity_scorer=str(made / "dinov2"))
    same = dinov2_folder(tmp_path / "same")
    assert request_score(ws, "rex", identity_scorer=str(same)).id == first.id
    other = convnext_folder(tmp_path / "other")
    assert request_score(ws, "rex", identity_scorer=str(other)).id != first.id
    assert request_score(ws, "rex").id != first.id


def test_what_was_learnt_from_and_what_it_is_called_decide_the_job_too(
    ws: Workspace, made: Path
) -> None:
    def again() -> int:
        return request_score(ws, "rex", identity_scorer=str(made / "dinov2")).id

    without = again()
    paths = train_job(ws, REX, "<rex>", ws.registry.adapter("rex").digest, 2)
    complete = again()
    assert complete != without
    aside = Path(paths[0]).rename(Path(paths[0]).with_suffix(".aside"))
    assert again() == without
    aside.rename(paths[0])
    assert again() == complete
    add_adapter(ws, made / "rex.safetensors", trigger="<rex>", class_word="cat")
    assert again() not in (without, complete)


def test_a_scorer_that_changes_before_the_job_runs_is_refused(
    ws: Workspace, tmp_path: Path
) -> None:
    scorer = tiny.scorer_folder(tmp_path / "clip")
    job = request_score(ws, "rex", scorer=str(scorer))
    tiny.scorer_folder(scorer, seed=1)
    with pytest.raises(ArtifactError, match="changed since the job was queued"):
        resolve(ws, job.request)


def test_scorers_of_the_hub_are_kept_by_their_commit(
    ws: Workspace, made: Path, hub: HubServer
) -> None:
    commits = {}
    for name in ("clip", "dinov2"):
        files = {path.name: path.read_bytes() for path in (made / name).iterdir()}
        commits[name] = hub.host(f"them/{name}", {**files, "pytorch_model.bin": b"a pickle"})
    train_job(ws, REX, "<rex>", ws.registry.adapter("rex").digest, 1)
    job = request_score(ws, "rex", scorer="them/clip", identity_scorer="them/dinov2@main")
    assert job.request["scorer"] == f"them/clip@{commits['clip']}"
    assert job.request["identity_scorer"] == f"them/dinov2@{commits['dinov2']}"
    assert job.request["scorer_digest"] == find_scorer(str(made / "clip")).digest
    local = request_score(ws, "rex", identity_scorer=str(made / "dinov2"))
    assert local.id == job.id

    hub.host("them/clip", {"config.json": b"{}"})
    questions = len(hub.requests)
    inputs = resolve(ws, job.request)
    assert len(hub.requests) == questions
    assert find_scorer(inputs["scorer"]).digest == job.request["scorer_digest"]
    found = find_identity_scorer(inputs["identity"]["scorer"])
    assert found.digest == job.request["identity_scorer_digest"]
    assert not (found.path / "pytorch_model.bin").exists()
