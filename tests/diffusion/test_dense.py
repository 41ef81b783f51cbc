"""Dense deltas on a live pipeline: on the weights, and off them bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.diffusion.attach import attach, detach_all, disabled, patched_modules, set_weights
from adreg.diffusion.modules import get_module, weight_matrix
from adreg.errors import ArtifactError
from adreg.formats.factors import Dense
from adreg.formats.read import AdapterWeights
from tests import tiny
from tests.diffusion.test_attach import output
from tests.diffusion.weights import random_weights


@pytest.fixture
def pipe() -> Any:
    return tiny.pocket_pipeline()


def dense_weights(pipe: Any, part: str, seed: int) -> AdapterWeights:
    shapes = tiny.modules_of(pipe)
    draw = torch.Generator().manual_seed(seed)
    keys = [key for key in sorted(shapes) if part in key]
    assert keys
    return AdapterWeights(
        {}, dense={key: Dense(0.1 * torch.randn(shapes[key], generator=draw)) for key in keys}
    )


def added(*terms: tuple[AdapterWeights, float]) -> Tensor:
    """What the base draws with the deltas in its weights."""
    pipe = tiny.pocket_pipeline()
    for weights, share in terms:
        for key, delta in weights.deltas.items():
            weight_matrix(get_module(pipe, key)).add_(share * delta.delta())
    return output(pipe)


def state_of(pipe: Any) -> dict[str, Tensor]:
    return {
        f"{part}.{key}": value.clone()
        for part in ("unet", "text_encoder")
        for key, value in getattr(pipe, part).state_dict().items()
    }


def test_attached_equals_deltas_added_to_the_weights(pipe: Any) -> None:
    """Every matrix of UNet and text encoder, 1x1 convolutions among them."""
    weights = dense_weights(pipe, "", seed=1)
    base = output(pipe)
    attach(pipe, "rex@2", weights, weight=0.5)
    assert patched_modules(pipe, "rex@2") == sorted(weights.dense)
    expected = added((weights, 0.5))
    assert (expected - base).abs().max() > 1e-2
    torch.testing.assert_close(output(pipe), expected, atol=1e-5, rtol=1e-5)


def test_taken_off_all_weights_are_what_they_were(pipe: Any) -> None:
    before, base = state_of(pipe), output(pipe)
    attach(pipe, "rex", dense_weights(pipe, "", seed=1))
    attach(pipe, "tom", dense_weights(pipe, "attn2", seed=2), weight=0.3)
    assert not torch.equal(output(pipe), base)
    assert not any(
        p.requires_grad for part in (pipe.unet, pipe.text_encoder) for p in part.parameters()
    )
    detach_all(pipe)
    after = state_of(pipe)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(output(pipe), base)
    assert type(get_module(pipe, next(iter(tiny.modules_of(pipe))))) is torch.nn.Linear


def test_switched_off_it_is_the_base_bit_for_bit(pipe: Any) -> None:
    base = output(pipe)
    attach(pipe, "rex", dense_weights(pipe, "attn", seed=1))
    adapted = output(pipe)
    with disabled(pipe):
        assert torch.equal(output(pipe), base)
    assert torch.equal(output(pipe), adapted)


def test_weights_choose_among_dense_and_low_rank(pipe: Any) -> None:
    """Three adapters on one layer, in either order of attaching."""
    shapes = tiny.modules_of(pipe)
    one, two = (dense_weights(pipe, "attn2", seed=seed) for seed in (1, 2))
    low = random_weights(shapes, [key for key in sorted(shapes) if "attn2.to_k" in key], size=0.1)
    attach(pipe, "one", one)
    attach(pipe, "low", low, weight=0.5)
    attach(pipe, "two", two, weight=2.0)
    expected = added((one, 1.0), (low, 0.5), (two, 2.0))
    torch.testing.assert_close(output(pipe), expected, atol=1e-4, rtol=1e-4)
    set_weights(pipe, {"two": 0.5})
    torch.testing.assert_close(output(pipe), added((two, 0.5)), atol=1e-4, rtol=1e-4)
    set_weights(pipe, {"low": 1.0})
    torch.testing.assert_close(output(pipe), added((low, 1.0)), atol=1e-4, rtol=1e-4)
    detach_all(pipe)
    torch.testing.assert_close(output(pipe), added(), atol=0, rtol=0)


def test_a_half_precision_weight_gets_the_sum_rounded_once(pipe: Any) -> None:
    pipe.unet.to(torch.bfloat16)
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    own = get_module(pipe, key).weight.clone()
    delta = torch.full(own.shape, 1e-4)
    attach(pipe, "rex", AdapterWeights({}, dense={key: Dense(delta)}), weight=3.0)
    expected = (own.float() + 3.0 * delta).to(torch.bfloat16)
    assert torch.equal(get_module(pipe, key).weight, expected)


def test_another_shape_is_refused_and_leaves_the_base(pipe: Any) -> None:
    base = output(pipe)
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    with pytest.raises(ArtifactError, match=r"to_q has a delta of \(16, 99\)"):
        attach(pipe, "bad", AdapterWeights({}, dense={key: Dense(torch.zeros(16, 99))}))
    assert torch.equal(output(pipe), base)
