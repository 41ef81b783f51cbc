"""A component's weights in its files, under the names its model has for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adreg.bases.skeleton import load_skeleton, models_of, save_skeleton
from adreg.bases.stored import stored_weights
from adreg.errors import ArtifactError
from adreg.formats import stream
from tests.tiny import sdxl_pipeline

FILES = {"vae": "diffusion_pytorch_model.safetensors", "text_encoder": "model.safetensors"}


class Attention(nn.Module):
    """Named as diffusers names it."""

    def __init__(self) -> None:
        super().__init__()
        self.to_q = nn.Linear(3, 2)
        self.to_out = nn.ModuleList([nn.Linear(2, 3)])


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()


@pytest.fixture
def model() -> Model:
    with torch.device("meta"):
        return Model()


def values() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"to_q.weight": (2, 3), "to_q.bias": (2,)}
    shapes |= {"to_out.0.weight": (3, 2), "to_out.0.bias": (3,)}
    return {f"attention.{k}": torch.randn(s, generator=draw) for k, s in shapes.items()}


def saved(folder: Path, tensors: dict[str, Tensor], component: str = "vae") -> Path:
    save_file(tensors, folder / FILES[component])
    return folder


def respelled(old: str, new: str) -> dict[str, Tensor]:
    return {key.replace(old, new): value for key, value in values().items()}


@pytest.mark.parametrize(
    ("component", "old", "new"),
    [
        ("vae", "", ""),
        ("vae", "to_q", "query"),
        ("vae", "to_out.0", "proj_attn"),
        ("text_encoder", "attention", "text_model.attention"),
    ],
)
def test_every_spelling_is_found(
    component: str, old: str, new: str, model: Model, tmp_path: Path
) -> None:
    found = stored_weights(saved(tmp_path, respelled(old, new), component), component, model)
    assert found.surplus() == []
    for key, value in values().items():
        assert torch.equal(found.read(key), value)
        assert found.spec(key).shape == tuple(value.shape)
        half = found.read(key, torch.float16)
        assert torch.equal(half, value.half())


def test_a_range_of_numbers_is_read_in_slices(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SLICE", 2)
    found = stored_weights(saved(tmp_path, values()), "vae", model)
    key = "attention.to_q.weight"
    pieces = list(found.slices(key, torch.float32, 1, 6))
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert torch.equal(torch.cat(pieces), values()[key].flatten()[1:6])
    table = torch.zeros(4, 3)
    found.read_into(table[:2], key)
    assert torch.equal(table, torch.cat([values()[key], torch.zeros(2, 3)]))


def test_what_the_model_does_not_take_is_told(model: Model, tmp_path: Path) -> None:
    more = {**values(), "position_ids": torch.arange(3)}
    assert stored_weights(saved(tmp_path, more), "vae", model).surplus() == ["position_ids"]


def test_what_is_missing_or_of_another_shape_is_named(model: Model, tmp_path: Path) -> None:
    fewer = {key: value for key, value in values().items() if key != "attention.to_q.bias"}
    with pytest.raises(ArtifactError, match=r"has no weights for attention\.to_q\.bias"):
        stored_weights(saved(tmp_path, fewer), "vae", model)
    wider = {**values(), "attention.to_q.bias": torch.ones(5)}
    with pytest.raises(ArtifactError, match=r"to_q\.bias is \[5\], and the config asks for \[2\]"):
        stored_weights(saved(tmp_path, wider), "vae", model)


def test_a_skeleton_has_everything_but_values(tmp_path: Path) -> None:
    pipe = sdxl_pipeline()
    pipe.save_pretrained(tmp_path / "base")
    skeleton = load_skeleton(tmp_path / "base", torch.float16)
    for name, model in models_of(skeleton):
        shapes = {key: value.shape for key, value in getattr(pipe, name).state_dict().items()}
        assert {key: value.shape for key, value in model.state_dict().items()} == shapes
        assert all(p.is_meta and p.dtype == torch.float16 for p in model.parameters())
    assert skeleton.tokenizer_2.get_vocab() == pipe.tokenizer_2.get_vocab()
    save_skeleton(skeleton, tmp_path / "new")
    written = {file.name for file in (tmp_path / "new").rglob("*") if file.is_file()}
    assert not any(name.endswith(".safetensors") for name in written)
    assert {"model_index.json", "config.json", "scheduler_config.json"} < written


def test_a_folder_of_an_unknown_model_is_refused(tmp_path: Path) -> None:
    sdxl_pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace("UNet2DConditionModel", "Nope"))
    with pytest.raises(ArtifactError, match="diffusers cannot read this folder"):
        load_skeleton(tmp_path)
