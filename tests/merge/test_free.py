"""Data-free methods over a whole plan: each module by its own draw, in whatever order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adreg.diffusion.modules import attention_modules
from adreg.domain import Base
from adreg.merge.free import Combined
from adreg.merge.plan import plan_merge
from tests.merge.cases import Case, adapter, recipe_for


@pytest.fixture
def cases(base: Base, tmp_path: Path) -> list[Case]:
    unet = attention_modules(base.modules)
    return [
        adapter(tmp_path, base, "rex", unet, seed=1),
        adapter(tmp_path, base, "tom", unet[:2], seed=2, weight=3.0),
    ]


def combined(base: Base, cases: list[Case], method: str, **settings: float) -> Mapping[str, Tensor]:
    recipe = recipe_for(base, cases, method, **settings)
    plan = plan_merge(base, [case.named for case in cases], recipe)
    return Combined(plan, {c.ref.digest: c.weights.deltas for c in cases})


def test_an_adapter_that_leaves_a_module_alone_counts_in_the_mean(
    base: Base, cases: list[Case]
) -> None:
    merged = combined(base, cases, "linear")
    shared, own = attention_modules(base.modules)[1], attention_modules(base.modules)[-1]
    rex, tom = (case.weights.deltas for case in cases)
    assert torch.allclose(merged[own], rex[own].delta() / 4, atol=1e-6)
    expected = (rex[shared].delta() + 3 * tom[shared].delta()) / 4
    assert torch.allclose(merged[shared], expected, atol=1e-6)


def test_dare_draws_each_module_apart(base: Base, cases: list[Case]) -> None:
    whole = combined(base, cases[:1], "dare")
    dropped = {module: delta == 0 for module, delta in whole.items()}
    first, second = [
        m for m in whole if whole[m].shape == whole[attention_modules(base.modules)[0]].shape
    ][:2]
    assert not torch.equal(dropped[first], dropped[second])
    again = combined(base, cases[:1], "dare")
    assert all(torch.equal(whole[module], again[module]) for module in whole)
    other = combined(base, cases[:1], "dare", seed=1)
    assert not torch.equal(dropped[first], other[first] == 0)


@pytest.mark.parametrize("method", ["concat", "linear", "svd"])
def test_one_adapter_alone_is_itself(base: Base, cases: list[Case], method: str) -> None:
    merged = combined(base, cases[:1], method)
    for module, delta in cases[0].weights.deltas.items():
        assert torch.allclose(merged[module], delta.delta(), atol=1e-6)
