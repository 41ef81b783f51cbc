"""Merging whole weights and bare tokens: the same as merging what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import attention_modules, get_module, unet_matrices, weight_matrix
from adreg.diffusion.tokens import trigger_ids
from adreg.domain import Base
from adreg.formats.digest import adapter_digest
from adreg.formats.factors import Dense
from adreg.formats.read import AdapterWeights
from adreg.formats.write import write_adapter
from adreg.merge.execute import merge
from adreg.merge.methods.concat import merged_delta
from adreg.merge.recipe import AdapterRef
from tests.merge.cases import Case, adapter, recipe_for


def rewritten(case: Case, folder: Path, weights: AdapterWeights) -> Case:
    """Another adapter under the case's name and trigger."""
    path = folder / f"{case.ref.name}-again.safetensors"
    write_adapter(path, weights, {})
    return Case(AdapterRef(case.ref.name, adapter_digest(path), case.ref.weight), path, weights)


def made_dense(case: Case, folder: Path) -> Case:
    """The same deltas, whole instead of low-rank."""
    dense = {key: Dense(factor.delta()) for key, factor in case.weights.factors.items()}
    return rewritten(case, folder, replace(case.weights, factors={}, dense=dense))


def changes(base: Base, cases: Sequence[Case], out: Path, method: str) -> dict[str, Tensor]:
    """What a merge changed of every module, read back from the checkpoint."""
    merge(base, [case.named for case in cases], recipe_for(base, cases, method, ridge=0.1), out)
    new, old = load_pipeline(out), load_pipeline(base.path)
    return {
        module: weight_matrix(get_module(new, module)) - weight_matrix(get_module(old, module))
        for module in base.modules
    }


@pytest.mark.parametrize("method", ["concat", "loraclr"])
def test_dense_deltas_merge_as_their_factors_do(method: str, base: Base, tmp_path: Path) -> None:
    """Of every matrix of the UNet, and of some that the other adapter changes too."""
    whole, unet = unet_matrices(base.modules), attention_modules(base.modules)
    text = [module for module in base.modules if ".self_attn." in module]
    rex = adapter(tmp_path, base, "rex", [*whole, *text], seed=1, size=0.5, weight=0.7)
    tom = adapter(tmp_path, base, "tom", unet[4:], seed=2, size=0.5)
    expected = changes(base, [rex, tom], tmp_path / "low", method)
    found = changes(base, [made_dense(rex, tmp_path), tom], tmp_path / "dense", method)
    assert any(delta.abs().max() > 1e-2 for delta in expected.values())
    for module, delta in expected.items():
        torch.testing.assert_close(found[module], delta, rtol=1e-3, atol=1e-5, msg=module)


@pytest.mark.parametrize("method", ["concat", "loraclr"])
def test_a_bare_token_merges_and_changes_no_weight(method: str, base: Base, tmp_path: Path) -> None:
    rex = adapter(tmp_path, base, "rex", attention_modules(base.modules)[:1], seed=1)
    bare = rewritten(rex, tmp_path, replace(rex.weights, factors={}))
    found = changes(base, [bare], tmp_path / "out", method)
    assert not any(delta.any() for delta in found.values())
    pipe = load_pipeline(tmp_path / "out")
    row = pipe.text_encoder.get_input_embeddings().weight[trigger_ids(pipe, "<rex>")]
    assert torch.equal(row, rex.weights.tokens["<rex>"])


def test_the_sum_of_dense_deltas_is_exact() -> None:
    one, two = (Dense(torch.randn(4, 6)) for _ in range(2))
    expected = 0.25 * one.values.double() - 3.0 * two.values.double()
    assert torch.equal(merged_delta([(one, 0.25), (two, -3.0)]), expected.float())
