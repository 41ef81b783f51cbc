"""Verification: every way a checkpoint can be wrong is seen, by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import attention_modules, get_module, weight_matrix
from adreg.diffusion.tokens import add_tokens
from adreg.domain import Base
from adreg.errors import ArtifactError
from adreg.merge.stages import add_deltas
from adreg.merge.verify import verify_checkpoint

TOKENS = {"<rex>": torch.ones(2, 32)}


def planned(base: Base, size: float = 0.01) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    modules = attention_modules(base.modules)[:3]
    return {m: size * torch.randn(base.modules[m], generator=draw) for m in modules}


@pytest.fixture(scope="module")
def good(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipe = load_pipeline(base.path)
    add_tokens(pipe, TOKENS)
    add_deltas(pipe, planned(base))
    out = tmp_path_factory.mktemp("verify") / "model"
    pipe.save_pretrained(out)
    return out


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def spoil(folder: Path, key: str, how: float, part: str = "unet") -> None:
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    tensors[key].view(-1)[0] += how
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_good_checkpoint_passes(base: Base, good: Path) -> None:
    found = verify_checkpoint(good, base, planned(base), TOKENS)
    assert found.modules == 3
    assert found.tokens == 1
    assert found.unchanged > 300
    assert 0 < found.worst_error < 1e-6
    assert found.worst_module in planned(base)


def test_a_delta_that_differs_is_named(base: Base, copy: Path) -> None:
    module = max(planned(base))
    spoil(copy, module.removeprefix("unet.") + ".weight", 0.001)
    with pytest.raises(ArtifactError, match=f"{module} differs from the plan"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_a_small_delta_that_is_missing_is_seen(base: Base, good: Path) -> None:
    deltas = planned(base)
    module = max(set(base.modules) - set(deltas))
    deltas[module] = 1e-7 * torch.ones(base.modules[module])
    with pytest.raises(ArtifactError, match=f"{module} differs from the plan"):
        verify_checkpoint(good, base, deltas, TOKENS)


def test_a_change_outside_the_plan_is_named(base: Base, copy: Path) -> None:
    spoil(copy, "conv_in.weight", 1e-6)
    with pytest.raises(ArtifactError, match=r"unet\.conv_in\.weight changed"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_a_changed_vae_is_named(base: Base, copy: Path) -> None:
    spoil(copy, "decoder.conv_in.weight", 1e-6, "vae")
    with pytest.raises(ArtifactError, match=r"vae\.decoder\.conv_in\.weight changed"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_a_changed_embedding_of_the_bases_own_is_named(base: Base, copy: Path) -> None:
    (file,) = (copy / "text_encoder").glob("*.safetensors")
    key = next(key for key in load_file(file) if key.endswith("token_embedding.weight"))
    spoil(copy, key, 1.0, "text_encoder")
    with pytest.raises(ArtifactError, match=r"token_embedding\.weight changed"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_values_that_are_not_finite_are_named(base: Base, copy: Path) -> None:
    module = max(planned(base))
    spoil(copy, module.removeprefix("unet.") + ".weight", float("inf"))
    with pytest.raises(ArtifactError, match="not finite"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda delta: 0 * delta,
        lambda delta: 2 * delta,
        lambda delta: delta.T,
        lambda delta: delta.flip(0),
    ],
    ids=["absent", "doubled", "transposed", "upside down"],
)
def test_a_wrong_delta_is_seen_in_every_dtype(
    dtype: torch.dtype, wrong: Callable[[Tensor], Tensor], base: Base, tmp_path: Path
) -> None:
    # Less than a step of bfloat16: an absent one would pass any bound on the error of a value.
    deltas = planned(base, size=1e-4)
    module = next(m for m in deltas if len({*base.modules[m]}) == 1)
    pipe = load_pipeline(base.path)
    add_tokens(pipe, TOKENS)
    add_deltas(pipe, {**deltas, module: wrong(deltas[module])})
    pipe.to(dtype).save_pretrained(tmp_path / "out")
    with pytest.raises(ArtifactError, match=f"{module} differs from the plan"):
        verify_checkpoint(tmp_path / "out", base, deltas, TOKENS, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_absent_delta_is_seen_where_it_is_less_than_a_step_of_every_number(
    dtype: torch.dtype, base: Base, tmp_path: Path
) -> None:
    pipe, module = load_pipeline(base.path), attention_modules(base.modules)[0]
    add_tokens(pipe, TOKENS)
    delta = 0.4 * torch.finfo(dtype).eps * weight_matrix(get_module(pipe, module)).clone()
    pipe.to(dtype).save_pretrained(tmp_path / "out")
    with pytest.raises(ArtifactError, match=f"{module} differs from the plan"):
        verify_checkpoint(tmp_path / "out", base, {module: delta}, TOKENS, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_rounded_once_and_nothing_else(
    dtype: torch.dtype, base: Base, good: Path, tmp_path: Path
) -> None:
    load_pipeline(good).to(dtype).save_pretrained(tmp_path / "out")
    found = verify_checkpoint(tmp_path / "out", base, planned(base), TOKENS, dtype)
    assert 1e-5 < found.worst_error < torch.finfo(dtype).eps
    key = "decoder.conv_in.weight"
    spoil(tmp_path / "out", key, 0.01, "vae")
    with pytest.raises(ArtifactError, match=r"vae\.decoder\.conv_in\.weight changed"):
        verify_checkpoint(tmp_path / "out", base, planned(base), TOKENS, dtype)


def test_another_dtype_is_named(base: Base, good: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is torch\.float32 and not torch\.float16"):
        verify_checkpoint(good, base, planned(base), TOKENS, torch.float16)


def keys_of(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def test_a_weight_that_is_missing_is_named(base: Base, copy: Path) -> None:
    keys_of(copy / "unet", lambda tensors: tensors.pop("conv_out.bias"))
    with pytest.raises(ArtifactError, match=r"unet has no weights for conv_out\.bias"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_a_weight_too_many_is_named(base: Base, copy: Path) -> None:
    keys_of(copy / "vae", lambda tensors: tensors.update(odd=torch.ones(2)))
    with pytest.raises(ArtifactError, match="odd is no weight of the model"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_a_weight_of_another_shape_is_named(base: Base, copy: Path) -> None:
    keys_of(copy / "unet", lambda tensors: tensors.update({"conv_out.bias": torch.ones(9)}))
    with pytest.raises(ArtifactError, match=r"conv_out\.bias is \[9\]"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_a_file_too_many_is_named(base: Base, copy: Path) -> None:
    save_file({"a": torch.ones(1)}, copy / "unet" / "left.safetensors")
    with pytest.raises(ArtifactError, match=r"left\.safetensors is no file of the checkpoint"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_an_index_that_misleads_is_named(base: Base, good: Path, tmp_path: Path) -> None:
    load_pipeline(good).save_pretrained(tmp_path / "out", max_shard_size="200KB")
    verify_checkpoint(tmp_path / "out", base, planned(base), TOKENS)
    index = tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["conv_in.bias"] = max(content["weight_map"].values())
    index.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="does not say where the weights are"):
        verify_checkpoint(tmp_path / "out", base, planned(base), TOKENS)


def test_another_embedding_is_named(base: Base, good: Path) -> None:
    with pytest.raises(ArtifactError, match="<rex> has another embedding"):
        verify_checkpoint(good, base, planned(base), {"<rex>": torch.zeros(2, 32)})


@pytest.mark.parametrize("missing", [{"<tom>": torch.ones(1, 32)}, {"<rex>": torch.ones(3, 32)}])
def test_a_missing_token_is_named(base: Base, good: Path, missing: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ArtifactError, match=next(iter(missing))):
        verify_checkpoint(good, base, planned(base), missing)


def test_a_folder_diffusers_cannot_read_is_an_artifact_error(base: Base, copy: Path) -> None:
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["diffusers", "Nope"]}))
    with pytest.raises(ArtifactError, match="diffusers cannot load"):
        verify_checkpoint(copy, base, planned(base), TOKENS)


def test_padding_rows_of_an_embedding_table_may_become_tokens(base: Base, tmp_path: Path) -> None:
    padded = load_pipeline(base.path)
    padded.text_encoder.resize_token_embeddings(len(padded.tokenizer) + 5)
    padded.save_pretrained(tmp_path / "padded")
    kin = replace(base, path=tmp_path / "padded")
    pipe = load_pipeline(kin.path)
    add_tokens(pipe, TOKENS)
    add_deltas(pipe, planned(base))
    pipe.save_pretrained(tmp_path / "out")
    assert verify_checkpoint(tmp_path / "out", kin, planned(base), TOKENS).tokens == 1
