"""Exports by the job they are: from a registered checkpoint to files of a user's own."""

from __future__ import annotations

import json
import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from adreg.bases.find import find_base
from adreg.diffusion.modules import attention_modules
from adreg.domain import Checkpoint, Concept, Json
from adreg.errors import AdregError, ArtifactError, ConflictError, ExternalError, UsageError
from adreg.jobs import export as job
from adreg.merge.execute import merge
from adreg.merge.export.spec import export_spec
from adreg.registry import checkpoints, jobs, names
from adreg.service.merges import exporting
from adreg.service.models.adding import add_adapter
from adreg.service.running.supervisor import run_now
from adreg.service.workspace import Workspace
from adreg.settings import Settings
from adreg.store.digest import tree_digest
from adreg.store.staging import publish_dir
from tests.merge.cases import adapter, recipe_for
from tests.tiny import pocket_folder, sd15_folder

HIDDEN = ".*"


@pytest.fixture(scope="module")
def ws(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A registry with the checkpoint `duo` on a tiny SD 1.5, and `toy` on a tiny pocket."""
    folder = tmp_path_factory.mktemp("exporting")
    ws = Workspace.open(Settings(folder / "home", str(sd15_folder(folder / "base")), device="cpu"))
    register(ws, Path(ws.settings.base), "duo")
    register(ws, pocket_folder(folder / "toy"), "toy")
    return ws


def register(ws: Workspace, folder: Path, name: str) -> None:
    """Merges and records, as the merge job and its service do."""
    base = ws.base(str(folder))
    modules = attention_modules(base.modules)[:4]
    place = ws.settings.home / name
    place.mkdir()
    case = adapter(place, base, "rex", modules, seed=1)
    recipe = recipe_for(base, [case], "concat")
    report = merge(base, [case.named], recipe, place / "model")
    digest = tree_digest(place / "model")
    path = publish_dir(place / "model", ws.registry.store.checkpoint_path(digest))
    concepts = tuple(Concept(**concept) for concept in report["concepts"])
    made = Checkpoint(
        digest, path, "concat", ("rex",), base.digest, base.name, concepts, recipe.to_json()
    )
    checkpoints.insert(ws.registry.db, made)
    names.point(ws.registry.db, name, "checkpoint", digest)


def run(ws: Workspace, out: Path, name: str = "duo", force: bool = False, **options: Any) -> Json:
    """The job here, in this process: what a child would do, and the head after it."""
    queued = exporting.request_export(ws, name, out, export_spec(out, **options), force=force)
    claimed = jobs.claim(ws.registry.db, "test 1 1.0", 60, queued.id)
    assert claimed is not None
    inputs = json.loads(json.dumps(exporting.resolve(ws, claimed.request)))
    outputs = json.loads(json.dumps(job.run(inputs, out.parent, lambda *_, **__: None)))
    exporting.record(ws, claimed, out.parent, outputs)
    result = jobs.get(ws.registry.db, queued.id).result
    assert result is not None
    return result


def test_a_child_process_writes_the_single_file(ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "new" / "duo.safetensors"
    spec = export_spec(out, dtype="fp16")
    plan = exporting.plan(ws, "duo", out, spec)
    assert not out.parent.exists()
    result = run_now(ws, exporting.request_export(ws, "duo", out, spec))
    assert sorted(p.name for p in out.parent.iterdir()) == ["duo-embeddings", "duo.safetensors"]
    assert result["embeddings"] == {"<rex>": "rex"}
    assert [file["path"] for file in result["files"]] == [file.path for file in plan.files]
    assert [file["keys"] for file in result["files"]] == [file.keys for file in plan.files]
    for file, planned in zip(result["files"], plan.files, strict=True):
        tensors = load_file(file["path"])
        held = sum(value.numel() * value.element_size() for value in tensors.values())
        assert planned.bytes == held < file["bytes"] == Path(file["path"]).stat().st_size
        assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert 0 < result["peak_mb"] < 10_000


def test_a_folder_and_what_may_be_replaced(ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "duo"
    run(ws, out)
    loaded = StableDiffusionPipeline.from_pretrained(out, local_files_only=True)
    assert "<rex>" in loaded.tokenizer.get_vocab()
    (out / "unet" / "old.safetensors").touch()
    with pytest.raises(ConflictError, match="there already") as caught:
        run(ws, out)
    assert "--force" in str(caught.value.remedy)
    run(ws, out, force=True, dtype="bf16")
    assert not (out / "unet" / "old.safetensors").exists()
    unet = load_file(out / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in unet.values()} == {torch.bfloat16}
    assert [path.name for path in tmp_path.iterdir()] == ["duo"]


def test_a_folder_of_something_else_is_never_replaced(ws: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").touch()
    (tmp_path / "file").touch()
    (tmp_path / "duo.safetensors").mkdir()
    for name in ("mine", "file", "duo.safetensors"):
        with pytest.raises(ConflictError) as caught:
            run(ws, tmp_path / name, force=True)
        assert caught.value.remedy == "name another place"
    assert (tmp_path / "mine" / "photo.png").exists()


def test_an_export_that_was_killed_is_taken_up_and_leaves_nothing(
    ws: Workspace, tmp_path: Path
) -> None:
    out = tmp_path / "duo"
    killed = exporting.request_export(ws, "duo", out, export_spec(out))
    # A worker of this machine that is gone, and what its child had written by then.
    claimed = jobs.claim(ws.registry.db, f"{socket.gethostname()} {os.getpid()} 1.0", 60, killed.id)
    assert claimed is not None
    (Path(claimed.request["partial"]) / "duo" / "unet").mkdir(parents=True)
    again = exporting.request_export(ws, "duo", out, export_spec(out))
    assert again.id == killed.id
    run_now(ws, again)
    assert [path.name for path in tmp_path.iterdir()] == ["duo"]
    assert exporting.request_export(ws, "duo", out, export_spec(out), force=True).id != killed.id


def test_files_are_replaced_on_demand_and_others_stay(ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "duo-v1.5.safetensors"
    run(ws, out)
    embeddings = tmp_path / "duo-v1.5-embeddings"
    (embeddings / "mine.safetensors").touch()
    out.unlink()
    with pytest.raises(ConflictError, match="embeddings is there already"):
        run(ws, out)
    run(ws, out, force=True, dtype="fp16")
    assert sorted(path.name for path in embeddings.iterdir()) == [
        "mine.safetensors",
        "rex.safetensors",
    ]
    assert load_file(embeddings / "rex.safetensors")["emb_params"].dtype == torch.float16
    assert not list(tmp_path.glob(HIDDEN))


def test_a_lora_goes_back_into_the_registry(ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "rex-r1.safetensors"
    result = run(ws, out, form="lora", rank=1)
    assert result["truncation"]["modules"] == len(result["modules"]) == 4
    assert result["embeddings"] == {}
    assert {cut["rank"] for cut in result["modules"]} == {1}
    added, new = add_adapter(ws, out, name="rex-r1")
    base = ws.base(ws.settings.base)
    assert new
    assert (added.base_digest, added.method, added.rank) == (base.digest, "merge-concat", 1)
    assert added.triggers == ["<rex>"]
    assert added.spec["truncation"] == result["truncation"]


def test_the_pocket_base_is_refused_as_a_single_file(ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "toy.safetensors"
    with pytest.raises(ArtifactError, match="no WebUI loads it") as caught:
        exporting.request_export(ws, "toy", out, export_spec(out))
    assert "--as folder" in str(caught.value.remedy)
    assert run(ws, out, "toy", form="lora")["truncation"]["lost"] < 1e-3


def test_places_that_will_not_do(ws: Workspace, tmp_path: Path) -> None:
    inside = ws.settings.store / "duo.safetensors"
    with pytest.raises(UsageError, match="inside adreg's own home"):
        exporting.check_out(ws, inside, export_spec(inside))
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "duo.safetensors"
    with pytest.raises(ExternalError, match="cannot write"):
        exporting.check_out(ws, below, export_spec(below))


def test_a_disk_with_too_little_room_is_told_before(
    ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    out = tmp_path / "duo.safetensors"
    with pytest.raises(ExternalError, match=r"takes .* the disk has 1.0 kB left") as caught:
        exporting.request_export(ws, "duo", out, export_spec(out))
    assert "--dtype fp16" in str(caught.value.remedy)


@pytest.mark.parametrize("form", ["single", "lora"])
def test_a_store_file_that_cannot_be_read_leaves_nothing(
    form: str, ws: Workspace, tmp_path: Path
) -> None:
    """The request saw a sound checkpoint; by the time of the job a file in it is cut short."""
    out = tmp_path / "duo.safetensors"
    queued = exporting.request_export(ws, "duo", out, export_spec(out, form))
    inputs = exporting.resolve(ws, queued.request)
    broken = Path(shutil.copytree(inputs["checkpoint"]["path"], tmp_path / "broken"))
    unet = broken / "unet" / "diffusion_pytorch_model.safetensors"
    unet.write_bytes(unet.read_bytes()[:-8])
    inputs["checkpoint"]["path"] = str(broken)
    with pytest.raises(AdregError, match="truncated") as caught:
        job.run(inputs, tmp_path, lambda *_, **__: None)
    assert isinstance(caught.value, ArtifactError)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_value_that_is_not_finite_is_named(ws: Workspace, tmp_path: Path) -> None:
    out = tmp_path / "duo"
    queued = exporting.request_export(ws, "duo", out, export_spec(out))
    inputs = exporting.resolve(ws, queued.request)
    broken = Path(shutil.copytree(inputs["checkpoint"]["path"], tmp_path / "broken"))
    vae = broken / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(vae)
    tensors["quant_conv.bias"][0] = torch.nan
    save_file(tensors, vae, {"format": "pt"})
    inputs["checkpoint"]["path"] = str(broken)
    with pytest.raises(ArtifactError, match=r"quant_conv\.bias.*not finite"):
        job.run(inputs, tmp_path, lambda *_, **__: None)
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_a_missing_checkpoint_or_base_is_told(ws: Workspace, tmp_path: Path) -> None:
    duo = ws.registry.checkpoint("duo")
    gone = replace(duo, digest="f" * 64, name=None, base_digest="0" * 64, base_name="nowhere")
    checkpoints.insert(ws.registry.db, gone)
    names.point(ws.registry.db, "gone", "checkpoint", gone.digest)
    out = tmp_path / "gone.safetensors"
    with pytest.raises(ArtifactError, match="gone is missing"):
        exporting.request_export(ws, "gone", out, export_spec(out))
    with pytest.raises(AdregError):
        exporting.request_export(ws, "nobody", out, export_spec(out))
    shutil.copytree(duo.path, ws.registry.store.checkpoint_path(gone.digest))
    with pytest.raises(AdregError, match="nowhere"):
        exporting.request_export(ws, "gone", out, export_spec(out, "lora"))
    assert find_base(ws.settings.base).digest == duo.base_digest
