"""The pull job as the child process runs it, from a Hub that something was published to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from adreg.domain import Json, silent
from adreg.errors import ArtifactError
from adreg.formats.digest import adapter_digest
from adreg.formats.probe import probe
from adreg.formats.read import AdapterWeights
from adreg.formats.write import write_adapter
from adreg.jobs.pull import run
from adreg.publish.card import Card, render
from adreg.publish.card_reading import Told
from adreg.publish.fetch import fetch_card
from adreg.publish.files import checkpoint_files, lora_files
from adreg.publish.offered import choose, look
from adreg.store.digest import tree_digest
from tests.formats.samples import MANIFEST, MODULES, TO_K, TO_Q, random_adapter
from tests.hub_server import HubServer, the_only_hub
from tests.tiny import pocket_folder

SDXL_TOKEN = {"<rex>": torch.arange(2048.0).reshape(1, 2048)}
TOKENS = {"<rex>": torch.ones(1, 32), "<a-b>": torch.arange(64.0).reshape(2, 32)}
RECIPE: Json = {
    "recipe": {
        "version": 2,
        "method": "concat",
        "dtype": "float32",
        "base": {"name": "pocket", "digest": "b" * 64},
        "adapters": [{"name": "rex", "digest": "a" * 64, "weight": 1.0}],
    },
    "concepts": [{"trigger": "<rex>", "class_word": "dog", "kind": "object"}],
    "renames": [],
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with the_only_hub(tmp_path, monkeypatch) as server:
        yield server


def put(hub: HubServer, path: Path, digest: str, **changes: bytes) -> None:
    """Publishes as adreg does: the files it sends, and a card that names the digest."""
    adapter = path.is_file()
    uploads = lora_files(path).uploads if adapter else checkpoint_files(path).uploads
    facts = {"digest": digest, "base": {"name": "pocket", "digest": "b" * 64}}
    concepts = [{"trigger": "<rex>", "class_word": "dog", "kind": "object"}]
    recipe = {"method": "textual-inversion"}
    kind = "adapter" if adapter else "checkpoint"
    described = {**facts, "concepts": concepts, "recipe": recipe}
    card = render(
        Card(kind, "lora" if adapter else "diffusers", "rex", "me/rex", described)
    ).encode()  # type: ignore[arg-type]
    files = {
        upload.path: upload.content
        if isinstance(upload.content, bytes)
        else upload.content.read_bytes()
        for upload in uploads
    }
    hub.host("me/rex", {"README.md": card, **files, **changes})


def inputs(file: str | None = None) -> Json:
    offer = look("me/rex")
    told = fetch_card(offer)
    choice = choose(offer, told, file)
    return {
        "repo": offer.repo,
        "commit": offer.commit,
        "kind": choice.kind,
        "files": [file.to_json() for file in choice.files],
        "digest": choice.digest,
        "told": told.to_json(),
    }


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, random_adapter(MODULES, [TO_K, TO_Q], tokens=TOKENS), {})
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = pocket_folder(tmp_path / "checkpoint")
    (folder / "adreg_recipe.json").write_text(json.dumps(RECIPE))
    return folder


def test_a_published_adapter_comes_back_as_it_was(
    hub: HubServer, adapter: Path, tmp_path: Path
) -> None:
    digest = adapter_digest(adapter)
    put(hub, adapter, digest)
    done = run(inputs(), tmp_path, silent)
    assert done == {"path": "artefact/adapter.safetensors", "digest": digest}
    came = probe(tmp_path / done["path"])
    assert [concept.trigger for concept in came.concepts] == ["<rex>"]
    assert set(came.tokens) == set(TOKENS)


@pytest.mark.parametrize("tokens", [TOKENS, {"<rex>": torch.ones(3, 32)}])
def test_embeddings_alone_are_one_adapter_again(
    hub: HubServer, tmp_path: Path, tokens: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "adapter.safetensors"
    manifest = {**MANIFEST, "method": "textual-inversion"}
    write_adapter(path, AdapterWeights({}, tokens, manifest), {})
    put(hub, path, adapter_digest(path))
    assert "pytorch_lora_weights.safetensors" not in hub.repos["me/rex"].head.files
    done = run(inputs(), tmp_path, silent)
    came = probe(tmp_path / done["path"])
    assert done["digest"] == adapter_digest(path)
    assert came.manifest["method"] == "textual-inversion"
    assert [(c.trigger, c.class_word) for c in came.concepts] == [("<rex>", "dog")]


def test_embeddings_of_two_text_encoders_are_put_together(hub: HubServer, tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    weights = AdapterWeights({}, SDXL_TOKEN, MANIFEST, token_widths=(768, 1280))
    write_adapter(path, weights, {})
    put(hub, path, adapter_digest(path))
    done = run(inputs(), tmp_path, silent)
    assert done["digest"] == adapter_digest(path)
    assert probe(tmp_path / done["path"]).family == "sdxl"


def test_embeddings_that_lie_beside_the_factors_come_with_them(
    hub: HubServer, adapter: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.safetensors"
    write_adapter(bare, random_adapter(MODULES, [TO_K, TO_Q]), {})
    put(hub, adapter, adapter_digest(adapter))
    files = {path: blob.content for path, blob in hub.repos["me/rex"].head.files.items()}
    hub.host("me/rex", {**files, "pytorch_lora_weights.safetensors": bare.read_bytes()})
    done = run(inputs(), tmp_path, silent)
    assert done["digest"] == adapter_digest(adapter)
    assert set(probe(tmp_path / done["path"]).tokens) == set(TOKENS)


def test_another_digest_than_the_card_names_is_refused(
    hub: HubServer, adapter: Path, tmp_path: Path
) -> None:
    put(hub, adapter, "e" * 64)
    with pytest.raises(ArtifactError, match=r"me/rex@.* its card says eeeeeeeeeeee"):
        run(inputs(), tmp_path, silent)
    assert not (tmp_path / "download").exists()


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_adapter_is_refused(
    hub: HubServer, tmp_path: Path, content: bytes
) -> None:
    hub.host("me/rex", {"x.safetensors": content})
    with pytest.raises(ArtifactError):
        run(inputs(), tmp_path, silent)


def test_a_published_checkpoint_comes_back_as_it_was(
    hub: HubServer, checkpoint: Path, tmp_path: Path
) -> None:
    digest = tree_digest(checkpoint)
    put(hub, checkpoint, digest, **{"unet/extra.bin": b"pickle", "images/0.png": b"png"})
    done = run(inputs(), tmp_path, silent)
    assert done == {
        "path": "artefact/checkpoint",
        "digest": digest,
        "recipe": RECIPE["recipe"],
        "concepts": RECIPE["concepts"],
        "renames": [],
    }
    assert tree_digest(tmp_path / done["path"]) == digest
    assert not list((tmp_path / done["path"]).rglob("*.bin"))


def test_a_checkpoint_that_lacks_a_file_is_refused(
    hub: HubServer, checkpoint: Path, tmp_path: Path
) -> None:
    put(hub, checkpoint, tree_digest(checkpoint))
    files = {path: blob.content for path, blob in hub.repos["me/rex"].head.files.items()}
    del files["vae/diffusion_pytorch_model.safetensors"]
    hub.host("me/rex", files)
    with pytest.raises(ArtifactError, match="vae"):
        run(inputs(), tmp_path, silent)


@pytest.mark.parametrize(
    "recipe",
    [
        [],
        {},
        {**RECIPE, "recipe": {**RECIPE["recipe"], "version": 99}},
        {**RECIPE, "recipe": {**RECIPE["recipe"], "adapters": [{"name": "\x1b[2J"}]}},
        {**RECIPE, "concepts": [{"trigger": "<rex>", "class_word": "a\x1b[2J", "kind": "object"}]},
        {**RECIPE, "concepts": [{"trigger": 5, "class_word": "dog", "kind": "object"}]},
        {**RECIPE, "concepts": [{"trigger": "<rex>", "class_word": "dog", "kind": "thing"}]},
        {**RECIPE, "renames": [{"adapter": "rex"}]},
        {**RECIPE, "renames": [{"adapter": "rex", "old": "a\nb", "new": "c"}]},
    ],
)
def test_a_recipe_that_adreg_did_not_write_is_refused(
    hub: HubServer, checkpoint: Path, tmp_path: Path, recipe: object
) -> None:
    (checkpoint / "adreg_recipe.json").write_text(json.dumps(recipe))
    put(hub, checkpoint, tree_digest(checkpoint))
    with pytest.raises(ArtifactError, match="recipe"):
        run(inputs(), tmp_path, silent)


def test_a_card_that_was_edited_only_takes_the_check_away(
    hub: HubServer, adapter: Path, tmp_path: Path
) -> None:
    put(hub, adapter, "e" * 64, **{"README.md": b"# mine\n"})
    asked = inputs("pytorch_lora_weights.safetensors")
    assert asked["told"] == Told().to_json()
    assert run(asked, tmp_path, silent)["digest"] == adapter_digest(adapter)
