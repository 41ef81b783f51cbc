"""The publish job as the child process runs it, and its dry run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import ModelCard, constants, snapshot_download
from PIL import Image
from safetensors.numpy import save_file
from safetensors.torch import load_file

from adreg.domain import Json, silent
from adreg.errors import AdregError, ArtifactError, UsageError
from adreg.jobs.publish import run
from adreg.publish.prepare import preview
from tests.hub_server import HubServer
from tests.tiny import pocket_pipeline

KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))
    with HubServer() as server:
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged checkpoint in halves, as it lies in the store: <rex> in its tokenizer and text
    encoder."""
    folder = tmp_path_factory.mktemp("model") / "trio"
    pipe = pocket_pipeline()
    pipe.load_textual_inversion(torch.ones(32), token="<rex>")
    pipe.to(torch.float16).save_pretrained(folder)
    (folder / "adreg_recipe.json").write_text('{"method": "concat"}')
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter for that model's base: one module and two tokens, one of them two vectors."""
    path = tmp_path_factory.mktemp("adapter") / "adapter.safetensors"
    layer = pocket_pipeline().unet.get_submodule(KEY.removeprefix("unet."))
    random = np.random.default_rng(0)
    tensors = {
        f"{KEY}.lora_A.weight": random.normal(size=(2, layer.in_features)),
        f"{KEY}.lora_B.weight": random.normal(size=(layer.out_features, 2)),
        "adreg_lora_tokens.<tom>": random.normal(size=(1, 32)),
        "adreg_lora_tokens.<mug>": random.normal(size=(2, 32)),
    }
    save_file({key: value.astype(np.float32) for key, value in tensors.items()}, path)
    return path


def inputs(hub: HubServer, path: Path, tmp_path: Path, **changes: object) -> Json:
    picture = tmp_path / "preview.png"
    Image.new("RGB", (8, 8), (0, 90, 200)).save(picture)
    trigger = {"trigger": "<rex>", "class_word": "dog", "kind": "object"}
    facts: Json = {
        "kind": "checkpoint",
        "format": "lora" if changes.get("kind") == "adapter" else "diffusers",
        "path": str(path),
        "lora": None,
        "name": "trio",
        "repo": "me/trio",
        "private": True,
        "replace": False,
        "endpoint": hub.url,
        "description": {
            "base": {"name": "pocket", "digest": "b" * 64, "license": "apache-2.0"},
            "prompt": "a photo of a <rex> dog",
            "concepts": [trigger],
            "recipe": {"method": "concat", "adapters": [], "renames": []},
        },
        "previews": [{"path": str(picture), "prompt": "a photo of <rex> dog"}],
    }
    return {**facts, **changes}


def fetched(hub: HubServer, repo: str, tmp_path: Path) -> Path:
    return Path(
        snapshot_download(repo, endpoint=hub.url, token=hub.token, cache_dir=tmp_path / "cache")
    )


def test_a_published_checkpoint_loads_in_plain_diffusers(
    hub: HubServer, model: Path, tmp_path: Path
) -> None:
    done = run(inputs(hub, model, tmp_path), tmp_path, silent)
    assert done["changed"]
    assert done["visibility"] == "private"
    assert done["left_out"] == []
    assert done["commit"] == hub.repos["me/trio"].head.oid
    assert hub.repos["me/trio"].tags == {"v1": done["commit"]}
    assert (done["version"], done["truncation"], done["notices"]) == ("v1", None, [])
    assert len(hub.repos["me/trio"].commits) == 2
    folder = fetched(hub, "me/trio", tmp_path)
    there = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    here = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    for part in ("unet", "vae", "text_encoder"):
        expected = getattr(here, part).state_dict()
        for key, value in getattr(there, part).state_dict().items():
            assert torch.equal(value, expected[key]), key
    assert "<rex>" in there.tokenizer.get_vocab()
    card = ModelCard.load(folder / "README.md")
    assert card.data.widget[0]["output"]["url"] == "images/0.png"
    with Image.open(folder / "images/0.png") as image:
        assert image.getpixel((0, 0)) == (0, 90, 200)


def test_a_second_run_does_nothing(hub: HubServer, model: Path, tmp_path: Path) -> None:
    first = run(inputs(hub, model, tmp_path), tmp_path, silent)
    second = run(inputs(hub, model, tmp_path), tmp_path, silent)
    assert second == first | {"changed": False}
    assert len(hub.repos["me/trio"].commits) == 2


def test_a_published_adapter_loads_in_plain_diffusers(
    hub: HubServer, bundle: Path, tmp_path: Path
) -> None:
    done = run(inputs(hub, bundle, tmp_path, kind="adapter"), tmp_path, silent)
    assert done["files"] == [
        "README.md",
        "embeddings/mug.safetensors",
        "embeddings/tom.safetensors",
        "images/0.png",
        "pytorch_lora_weights.safetensors",
    ]
    folder = fetched(hub, "me/trio", tmp_path)
    pipe = pocket_pipeline()
    pipe.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
    patched = [name for name, _ in pipe.unet.named_parameters() if "lora_A" in name]
    assert [name.split(".lora_A")[0] for name in patched] == [KEY.removeprefix("unet.")]
    for name in ("mug", "tom"):
        pipe.load_textual_inversion(folder, weight_name=f"embeddings/{name}.safetensors")
    sent = load_file(bundle)
    rows = pipe.text_encoder.get_input_embeddings().weight
    for tokens, trigger in ((["<tom>"], "<tom>"), (["<mug>", "<mug>_1"], "<mug>")):
        ids = pipe.tokenizer.convert_tokens_to_ids(tokens)
        assert torch.equal(rows[ids], sent[f"adreg_lora_tokens.{trigger}"])


def test_the_snippets_work_as_written(
    hub: HubServer, model: Path, bundle: Path, tmp_path: Path
) -> None:
    """Each card's program, run by itself against the Hub the card was published to."""
    run(inputs(hub, model, tmp_path), tmp_path, silent)
    on_hub = {"base": {"name": "me/trio"}, "concepts": []}
    adapter = inputs(
        hub, bundle, tmp_path, kind="adapter", repo="me/mug", description=on_hub, previews=[]
    )
    run(adapter, tmp_path, silent)
    programs = {}
    for name in ("trio", "mug"):
        card = hub.repos[f"me/{name}"].head.files["README.md"].content.decode()
        programs[name] = card.split("```py\n")[1].split("```")[0]
        (tmp_path / name).mkdir()
    script = "import os\n" + "".join(
        f"os.chdir({str(tmp_path / name)!r})\nexec({program!r}, {{}})\n"
        for name, program in programs.items()
    )
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    subprocess.run([sys.executable, "-c", script], env=os.environ | home, check=True)
    for name in programs:
        with Image.open(tmp_path / name / "image.png") as image:
            assert image.size == (64, 64)


def test_a_dry_run_says_what_would_be_sent_and_asks_nobody(
    hub: HubServer, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / "notes.md").write_text("mine")
    monkeypatch.delenv("HF_TOKEN")
    asked = inputs(hub, model, tmp_path)
    said = preview(asked)
    assert hub.requests == []
    assert said["visibility"] == "private"
    assert said["left_out"] == ["notes.md"]
    assert said["url"] == f"{hub.url}/me/trio"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    done = run(asked, tmp_path, silent)
    (model / "notes.md").unlink()
    there = hub.repos["me/trio"].head.files
    assert [file["path"] for file in said["files"]] == done["files"]
    assert said["bytes"] == done["bytes"] == sum(file["size"] for file in said["files"])
    states = {finding["check"]: finding["state"] for finding in said["preflight"]}
    assert states == {
        "licence": "ok",
        "size": "ok",
        "login": "failed",
        "scope": "unknown",
        "repository": "unknown",
    }
    assert {f["path"]: f["size"] for f in said["files"]} == {
        path: len(blob.content) for path, blob in there.items() if path != ".gitattributes"
    }
    assert said["card"].encode() == there["README.md"].content


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"repo": "trio"}, UsageError),
        ({"description": {}}, UsageError),
        ({"endpoint": "hub"}, UsageError),
        ({"path": "/nowhere"}, AdregError),
        ({"previews": [{"path": "/nowhere.png", "prompt": "x"}]}, AdregError),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    hub: HubServer, model: Path, tmp_path: Path, changes: Json, error: type[AdregError]
) -> None:
    asked = {**inputs(hub, model, tmp_path), **changes}
    for way in (lambda: run(asked, tmp_path, silent), lambda: preview(asked)):
        with pytest.raises(error):
            way()
    assert hub.requests == []


def test_a_link_in_the_folder_stops_it_all(hub: HubServer, model: Path, tmp_path: Path) -> None:
    link = model / "unet" / "secret.json"
    link.symlink_to("/etc/hostname")
    with pytest.raises(ArtifactError, match=r"secret\.json"):
        run(inputs(hub, model, tmp_path), tmp_path, silent)
    link.unlink()
    assert hub.requests == []


def test_progress_is_told(hub: HubServer, model: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(stage: str, step: int, total: int, **values: float) -> None:
        told.append((stage, step, total))

    run(inputs(hub, model, tmp_path), tmp_path, progress)
    assert told == [
        ("checking", 0, 3),
        ("creating", 1, 3),
        ("uploading", 2, 3),
        ("uploading", 3, 3),
    ]
