"""Bases under names: what a reference means, and what happens where files change or go away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from adreg.bases import single
from adreg.bases.find import find_base
from adreg.domain import Base, Job
from adreg.errors import ArtifactError, ConflictError, NotFoundError, UsageError
from adreg.service.models.base_views import base_view, checked_files
from adreg.service.models.bases import add_base, converted_base, plan_addition, request_conversion
from adreg.service.running.supervisor import run_now
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from tests import tiny
from tests.hub_server import HubServer, the_only_hub
from tests.single import single_pipeline, write_single


@pytest.fixture
def ws(tmp_path: Path) -> Workspace:
    return Workspace.open(Settings(home=tmp_path / "home"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.pocket_folder(tmp_path_factory.mktemp("bases") / "Small Base")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "Small Base"))


def add(ws: Workspace, ref: str | Path, name: str | None = None) -> tuple[Base, bool]:
    return add_base(ws, plan_addition(ws, str(ref), name=name))


def test_a_folder_is_found_by_its_name_from_then_on(ws: Workspace, folder: Path) -> None:
    base, new = add(ws, folder)
    assert (base.name, base.path, new) == ("small-base", folder, True)
    assert ws.base("SMALL-base") == base
    assert ws.base(str(folder)) == base
    assert ws.base_of(base.digest, "whatever") == base
    assert base.digest == find_base(str(folder)).digest


def test_the_same_again_is_no_second_base(ws: Workspace, folder: Path) -> None:
    first, _ = add(ws, folder, "one")
    assert add(ws, folder) == (first, False)
    assert add(ws, folder, "one") == (first, False)
    second, new = add(ws, folder, "two")
    assert (second.name, second.digest, new) == ("two", first.digest, False)
    assert ws.base(str(folder)).name == "one"


def test_a_name_goes_before_a_folder_of_that_name(
    ws: Workspace, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(ws, folder, "other")
    tiny.pocket_folder(tmp_path / "other", seed=1)
    monkeypatch.chdir(tmp_path)
    assert ws.base("other").path == folder
    assert ws.base("./other").path == tmp_path / "other"
    with pytest.raises(ConflictError, match="'other' is taken"):
        add(ws, "./other", "Other")


def test_pocket_is_itself(ws: Workspace, folder: Path) -> None:
    with pytest.raises(ConflictError, match="built-in"):
        plan_addition(ws, str(folder), name="Pocket")
    with pytest.raises(UsageError, match="already"):
        plan_addition(ws, "pocket")
    with pytest.raises(ConflictError, match="built-in"):
        add(ws, ws.base("pocket").path)
    assert base_view(ws, "pocket")["kind"] == "built-in"


def test_what_is_no_base_says_what_to_do(ws: Workspace, folder: Path) -> None:
    add(ws, folder)
    for ref, remedy in (
        ("smal-base", "'small-base'"),
        ("them/sd15", "adreg base add them/sd15"),
        ("sd15.safetensors", "adreg base add sd15.safetensors"),
        ("quite different", "adreg base list"),
    ):
        with pytest.raises(NotFoundError) as caught:
            ws.base(ref)
        assert remedy in str(caught.value.remedy)
    with pytest.raises(UsageError, match="predicts|prediction"):
        plan_addition(ws, str(folder), prediction_type="epsilon")
    with pytest.raises(UsageError, match="'v'"):
        plan_addition(ws, str(folder), prediction_type="v")


def test_a_base_that_changed_is_not_used_any_more(ws: Workspace, folder: Path) -> None:
    add(ws, folder)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.00085", "0.00086"))
    with pytest.raises(ArtifactError, match="has changed") as caught:
        ws.base("small-base")
    assert "adreg base check small-base" in str(caught.value.remedy)
    report = checked_files(ws, "small-base")
    bad = [file for file in report["files"] if file["state"] != "ok"]
    assert [file["file"] for file in bad] == ["scheduler/scheduler_config.json"]
    assert not report["ok"]


def test_a_folder_that_is_gone_is_listed_as_missing(ws: Workspace, folder: Path) -> None:
    add(ws, folder)
    assert base_view(ws, "small-base")["state"] == "present"
    shutil.rmtree(folder)
    assert base_view(ws, "small-base")["state"] == "missing"
    assert not checked_files(ws, "small-base")["ok"]


@pytest.fixture
def hub(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with the_only_hub(tmp_path, monkeypatch) as server:
        files = {p.relative_to(saved).as_posix(): p.read_bytes() for p in saved.rglob("*.*")}
        extra = {
            "small.safetensors": b"a single file",
            "README.md": b"# small",
            "unet/diffusion_pytorch_model.bin": b"a pickle",
            "unet/diffusion_pytorch_model.fp16.safetensors": b"a variant",
        }
        server.host("them/small", files | extra)
        yield server


def test_a_commit_of_the_hub_is_pinned(ws: Workspace, hub: HubServer, saved: Path) -> None:
    addition = plan_addition(ws, "them/small")
    commit = hub.repos["them/small"].head.oid
    assert (addition.kind, addition.name, addition.revision) == ("hub", "small", commit)
    expected = {p.relative_to(saved).as_posix(): p.stat().st_size for p in saved.rglob("*.*")}
    assert dict.fromkeys(addition.files) == dict.fromkeys(sorted(expected))
    assert addition.downloaded == sum(expected.values())
    base, new = add_base(ws, addition)
    assert new
    assert base.digest == find_base(str(saved)).digest
    hub.host("them/small", {"README.md": b"all gone"})
    asked = len(hub.requests)
    assert ws.base("small") == base
    assert ws.base("them/small") == base
    assert ws.base(f"them/small@{commit}") == base
    assert len(hub.requests) == asked
    view = base_view(ws, "small")
    assert (view["source"], view["revision"], view["state"]) == ("them/small", commit, "present")
    assert checked_files(ws, "small")["ok"]


def test_what_is_gone_from_the_cache_is_fetched_again(
    ws: Workspace, hub: HubServer, tmp_path: Path
) -> None:
    base, _ = add(ws, "them/small")
    shutil.rmtree(tmp_path / "cache")
    assert base_view(ws, "small")["state"] == "missing"
    assert ws.base("small") == base


def test_a_repository_that_is_no_pipeline(ws: Workspace, hub: HubServer) -> None:
    hub.host("them/lora", {"model_index.json": b"{}", "unet/config.json": b"{}"})
    with pytest.raises(ArtifactError, match="only pickles or variants"):
        plan_addition(ws, "them/lora")
    hub.host("them/text", {"vae/config.json": b"{}"})
    with pytest.raises(ArtifactError, match="no model_index"):
        plan_addition(ws, "them/text")


def convert(ws: Workspace, file: Path, name: str | None = None) -> tuple[Base, Job]:
    addition = plan_addition(ws, str(file), name=name)
    job = request_conversion(ws, addition)
    run_now(ws, job)
    return converted_base(ws, addition, job), job


@pytest.mark.timeout(900)
def test_a_single_file_is_converted_once(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = single_pipeline()
    pipe.save_pretrained(tmp_path / "config")
    monkeypatch.setitem(single.CONFIGS, 32, tmp_path / "config")
    file = write_single(tmp_path / "My Model.safetensors", pipe)
    base, job = convert(ws, file)
    assert (base.name, base.prediction_type) == ("my-model", "epsilon")
    assert base.path == ws.registry.store.base_path(job.key)
    expected = find_base(str(tmp_path / "config"))
    assert base.components["unet"] == expected.components["unet"]
    assert base.components["vae"] == expected.components["vae"]
    file.unlink()
    assert ws.base("my-model") == base
    assert checked_files(ws, "my-model")["ok"]
    write_single(file, pipe)
    again, same = convert(ws, file, "second")
    assert (again, same.id, same.attempt) == (replace(base, name="second"), job.id, 1)
    other = write_single(tmp_path / "other.safetensors", single_pipeline(1))
    with pytest.raises(ConflictError, match="'second' is taken"):
        request_conversion(ws, plan_addition(ws, str(other), name="second"))
