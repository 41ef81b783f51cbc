"""Bases and scorers found by name or folder, and told apart by content."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adreg.bases.find import COMPONENTS, SECOND_TEXT, find_base, reference
from adreg.bases.load import load_pipeline
from adreg.bases.parts import components_of, files_of, parts_of
from adreg.bases.remote import BASE_FILES
from adreg.bases.verify import check_files
from adreg.diffusion.modules import live_modules
from adreg.errors import ArtifactError, NotFoundError
from adreg.pocket.paths import BASE_DIR
from tests import tiny


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.sd15_pipeline()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, pipe: Any) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "little"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of a saved base that a test may break."""
    return Path(shutil.copytree(saved, tmp_path / "little"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_modules_are_those_of_the_live_pipeline(saved: Path, pipe: Any) -> None:
    base = find_base(str(saved))
    assert base.modules == tiny.modules_of(pipe)
    assert list(base.modules) == sorted(base.modules)
    attention = [name for name in base.modules if ".attn" in name and name.startswith("unet.")]
    assert len(attention) == 128
    assert (base.name, base.path) == ("little", saved.resolve())
    assert (base.family, base.prediction_type) == ("width-32", "epsilon")
    assert tuple(base.components) == COMPONENTS


def test_text_encoders_of_both_spellings(folder: Path, pipe: Any) -> None:
    before = find_base(str(folder)).modules
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    bare = {key.removeprefix("text_model."): value for key, value in tensors.items()}
    for prefix in ("", "text_model."):
        save_file({prefix + key: value for key, value in bare.items()}, path)
        assert find_base(str(folder)).modules == before


def test_sharded_weights(pipe: Any, folder: Path) -> None:
    before = find_base(str(folder)).modules
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    pipe.unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert find_base(str(folder)).modules == before
    shards[0].unlink()
    with pytest.raises(ArtifactError, match=shards[0].name):
        find_base(str(folder))


@pytest.mark.parametrize("name", ["../../etc/passwd", 3])
def test_a_shard_index_that_points_elsewhere(pipe: Any, folder: Path, name: object) -> None:
    pipe.unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    index = folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    edit(index, lambda value: value["weight_map"].update({"x": name}))
    with pytest.raises(ArtifactError, match="no usable weight_map"):
        find_base(str(folder))


def test_the_digest_is_of_content(saved: Path, folder: Path) -> None:
    base = find_base(str(saved))
    moved = folder.rename(folder.parent / "elsewhere")
    edit(moved / "unet" / "config.json", lambda value: value.update(_diffusers_version="0.1"))
    (moved / "README.md").write_text("notes")
    (moved / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"never loaded")
    assert find_base(str(moved)).digest == base.digest


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_one_changed_weight_changes_one_component(
    saved: Path, folder: Path, component: str
) -> None:
    path = next((folder / component).glob("*.safetensors"))
    tensors = load_file(path)
    key = min(tensors)
    tensors[key] = tensors[key] + 1e-3 * torch.ones_like(tensors[key])
    save_file(tensors, path, {"format": "pt"})
    before, after = find_base(str(saved)), find_base(str(folder))
    changed = [name for name in COMPONENTS if before.components[name] != after.components[name]]
    assert changed == [component]
    assert before.digest != after.digest


def test_scheduler_and_tokenizer_count(saved: Path, folder: Path) -> None:
    config = folder / "scheduler" / "scheduler_config.json"
    edit(config, lambda value: value.update(prediction_type="v_prediction"))
    base = find_base(str(folder))
    assert base.prediction_type == "v_prediction"
    assert base.components["scheduler"] != find_base(str(saved)).components["scheduler"]
    edit(config, lambda value: value.update(prediction_type="sample"))
    with pytest.raises(ArtifactError, match="'sample'"):
        find_base(str(folder))


def test_known_digests_are_taken_as_they_are(saved: Path) -> None:
    found = find_base(str(saved))
    (saved / "unet" / "config.json").write_text("{}")
    again = find_base(str(saved), components=found.components)
    assert again.digest == found.digest
    assert find_base(str(saved)).digest != found.digest


def test_pocket_is_pocket_by_its_folder_too() -> None:
    pocket = find_base("pocket")
    assert find_base(str(pocket.path)) == pocket
    assert reference(pocket) == "pocket"


def test_a_base_of_ones_own_may_be_called_pocket(saved: Path, tmp_path: Path) -> None:
    own = shutil.copytree(saved, tmp_path / "pocket")
    assert reference(find_base(str(own))) == str(own.resolve())


def test_what_is_no_base(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no model_index\.json"):
        find_base(str(tmp_path))
    with pytest.raises(NotFoundError):
        find_base(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_2": ["transformers", "CLIPTokenizer"], "_class_name": "HalfOfXL"},
        {"text_encoder": [None, None], "_class_name": "Refiner"},
        {"unet": None, "_class_name": "FluxPipeline"},
    ],
)
def test_other_pipelines(folder: Path, change: dict[str, Any]) -> None:
    edit(folder / "model_index.json", lambda value: value.update(change))
    with pytest.raises(ArtifactError, match=change["_class_name"]):
        find_base(str(folder))


@pytest.mark.parametrize("content", ["{", "[]"])
@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json"])
def test_broken_json(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ArtifactError, match=name):
        find_base(str(folder))


def test_weights_that_are_pickles(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(ArtifactError, match=r"no diffusion_pytorch_model\.safetensors") as caught:
        find_base(str(folder))
    assert "save_pretrained" in (caught.value.remedy or "")


def test_a_missing_component(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    with pytest.raises(ArtifactError, match="vae is missing"):
        find_base(str(folder))


def test_truncated_weights(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="truncated"):
        find_base(str(folder))


@pytest.mark.skipif(not BASE_DIR.is_dir(), reason="the pocket base is not exported yet")
def test_pocket() -> None:
    base = find_base("pocket")
    assert (base.name, base.family, base.path) == ("pocket", "pocket", BASE_DIR.resolve())
    assert find_base(str(BASE_DIR)).digest == base.digest


@pytest.mark.parametrize("layout", ["sd2", "sdxl"])
def test_other_layouts_are_whole(layout: str, tmp_path: Path) -> None:
    """Every matrix by the name that the live pipeline knows it by; every file counts."""
    pipe = getattr(tiny, f"{layout}_pipeline")()
    pipe.save_pretrained(tmp_path)
    base = find_base(str(tmp_path))
    assert dict(base.modules) == dict(sorted(tiny.modules_of(pipe).items()))
    assert dict(base.modules) == live_modules(load_pipeline(tmp_path))
    assert base.prediction_type == ("v_prediction" if layout == "sd2" else "epsilon")
    more = SECOND_TEXT if layout == "sdxl" else ()
    assert tuple(base.components) == (*COMPONENTS, *more) == tuple(parts_of(tmp_path))
    files = files_of(tmp_path)
    assert components_of(files) == base.components
    assert {checked.state for checked in check_files(tmp_path, files)} == {"ok"}
    of_hub = [f"{part}/{name}" for part, held in files.items() for name in held]
    assert all(any(fnmatch(name, one) for one in BASE_FILES) for name in of_hub)
    shutil.rmtree(tmp_path / [*base.components][-1])
    assert "missing" in {checked.state for checked in check_files(tmp_path, files)}


@pytest.mark.parametrize(("width", "family"), [(1024, "sd2"), (2048, "sdxl")])
def test_families_are_told_by_the_width_of_the_text(
    width: int, family: str, tmp_path: Path
) -> None:
    getattr(tiny, f"{family}_folder")(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({"mid_block.attentions.0.attn2.to_k.weight": torch.zeros(8, width)}, path)
    assert find_base(str(tmp_path)).family == family
