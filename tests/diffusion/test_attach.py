from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adreg.diffusion.attach import attach, detach_all, disabled, patched_modules, set_weights
from adreg.diffusion.modules import get_module, weight_matrix
from adreg.diffusion.tokens import encode
from adreg.errors import ArtifactError, ConflictError
from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights
from tests import tiny
from tests.diffusion.weights import random_weights

LATENTS = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))


def output(pipe: Any, prompt: str = "a photo of a dog") -> Tensor:
    with torch.no_grad():
        text = encode(pipe, [prompt, prompt])
        result: Tensor = pipe.unet(LATENTS, torch.tensor([500, 20]), text).sample
    return result


def merged(weights: AdapterWeights, weight: float) -> Any:
    """The same base with the deltas added to its weights: what attaching must equal."""
    pipe = tiny.pocket_pipeline()
    for key, factor in weights.factors.items():
        layer = get_module(pipe, key)
        layer.weight.data += weight * factor.delta().view_as(layer.weight)
    return pipe


@pytest.fixture
def pipe() -> Any:
    return tiny.pocket_pipeline()


@pytest.fixture
def weights(pipe: Any) -> AdapterWeights:
    """Ranks 2 and 3, in the UNet (a 1x1 convolution among them) and the text encoder."""
    modules = tiny.modules_of(pipe)
    keys = [key for key in sorted(modules) if "attn" in key]
    keys += [key for key, layer in _named(pipe, modules) if isinstance(layer, torch.nn.Conv2d)]
    return random_weights(modules, keys, size=0.1)


def _named(pipe: Any, modules: dict[str, tuple[int, int]]) -> list[tuple[str, torch.nn.Module]]:
    return [(key, get_module(pipe, key)) for key in sorted(modules)]


def test_attached_equals_deltas_added_to_the_weights(pipe: Any, weights: AdapterWeights) -> None:
    kinds = {type(get_module(pipe, key)) for key in weights.factors}
    assert kinds == {torch.nn.Linear, torch.nn.Conv2d}
    base = output(pipe)
    attach(pipe, "rex@2.0", weights, weight=0.7)
    expected = output(merged(weights, 0.7))
    assert (expected - base).abs().max() > 1e-2
    torch.testing.assert_close(output(pipe), expected, atol=1e-4, rtol=1e-4)


def test_only_and_all_modules_of_the_file_are_patched(pipe: Any, weights: AdapterWeights) -> None:
    attach(pipe, "rex", weights)
    assert patched_modules(pipe, "rex") == sorted(weights.factors)


def test_nothing_asks_for_a_gradient(pipe: Any, weights: AdapterWeights) -> None:
    attach(pipe, "rex", weights)
    attach(pipe, "tom", weights)
    set_weights(pipe, {"rex": 0.5})
    with disabled(pipe):
        pass
    for part in (pipe.unet, pipe.text_encoder):
        assert not any(p.requires_grad for p in part.parameters())


def test_two_adapters_add_up_and_weights_choose(pipe: Any) -> None:
    modules = tiny.modules_of(pipe)
    keys = [key for key in sorted(modules) if "attn" in key]
    one = random_weights(modules, keys[:20], seed=1, size=0.1)
    two = random_weights(modules, keys[10:], seed=2, size=0.1)
    attach(pipe, "one", one)
    attach(pipe, "two", two, weight=0.5)
    both = merged(one, 1.0)
    for key, factor in two.factors.items():
        weight_matrix(get_module(both, key)).add_(0.5 * factor.delta())
    torch.testing.assert_close(output(pipe), output(both), atol=1e-4, rtol=1e-4)

    set_weights(pipe, {"two": 2.0})
    torch.testing.assert_close(output(pipe), output(merged(two, 2.0)), atol=1e-4, rtol=1e-4)


def test_disabled_and_detached_are_the_base_bit_for_bit(pipe: Any, weights: AdapterWeights) -> None:
    base = output(pipe)
    attach(pipe, "rex", weights)
    adapted = output(pipe)
    with disabled(pipe):
        assert torch.equal(output(pipe), base)
    assert torch.equal(output(pipe), adapted)
    detach_all(pipe)
    assert torch.equal(output(pipe), base)
    attach(pipe, "rex", weights)
    assert torch.equal(output(pipe), adapted)


def test_disabled_keeps_what_was_trainable_and_the_weights(
    pipe: Any, weights: AdapterWeights
) -> None:
    attach(pipe, "rex", weights, weight=0.3)
    chosen = [p for name, p in pipe.unet.named_parameters() if "lora_A" in name][3]
    chosen.requires_grad_(True)
    adapted = output(pipe)
    with disabled(pipe):
        pass
    wanting = [p for p in pipe.unet.parameters() if p.requires_grad]
    assert len(wanting) == 1
    assert wanting[0] is chosen
    assert torch.equal(output(pipe), adapted)


def test_tokens_come_along(pipe: Any, weights: AdapterWeights) -> None:
    before = output(pipe, "a photo of <rex>")
    token = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    attach(pipe, "rex", AdapterWeights({}, {"<rex>": token}, {}))
    assert not torch.equal(output(pipe, "a photo of <rex>"), before)
    with pytest.raises(ConflictError, match="<rex>"):
        attach(pipe, "other", AdapterWeights({}, {"<rex>": token}, {}))


def test_wrong_shape_is_refused_and_leaves_the_base(pipe: Any) -> None:
    base = output(pipe)
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    bad = AdapterWeights({key: Factors(torch.zeros(16, 2), torch.zeros(2, 99))}, {}, {})
    with pytest.raises(ArtifactError, match=r"to_q has a delta of \(16, 99\)"):
        attach(pipe, "bad", bad)
    assert torch.equal(output(pipe), base)
