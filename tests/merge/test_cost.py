"""The arithmetic of a merge from shapes alone, against what layers really do when run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adreg.bases.load import load_pipeline
from adreg.diffusion.modules import attention_modules, cross_kv, get_module
from adreg.diffusion.tokens import encode
from adreg.domain import Base
from adreg.merge.cost import (
    flops_a_second,
    refine_flops,
    stage_flops,
    text_flops,
    tokens_of,
    unet_flops,
)
from adreg.merge.layers import UNET, input_of
from adreg.merge.recipe import Refinement
from tests.merge.cases import adapter, recipe_for


def counted(model: nn.Module, run: Any) -> int:
    """Multiplications and additions of matrices, convolutions and attention while `run` runs."""
    total = 0
    queries: list[Tensor] = []

    def count(layer: nn.Module, _: Any, out: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        places = out.numel() // out.shape[1 if isinstance(layer, nn.Conv2d) else -1]
        total += 2 * weight.numel() * places

    def attend(_: nn.Module, inputs: Any, out: Tensor) -> None:
        queries.append(out)

    def seen(_: nn.Module, inputs: Any, out: Tensor) -> None:
        nonlocal total
        total += 4 * queries.pop().shape[1] * out.shape[1] * out.shape[2]

    for path, layer in model.named_modules():
        if path.endswith(("attn1.to_q", "attn2.to_q")):
            layer.register_forward_hook(attend)
        elif path.endswith(("attn1.to_k", "attn2.to_k")):
            layer.register_forward_hook(seen)
    handles = [
        layer.register_forward_hook(count)
        for layer in model.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    with torch.no_grad():
        run()
    for handle in handles:
        handle.remove()
    return total


@pytest.mark.parametrize("layout", ["base", "sd15"])
def test_a_pass_of_the_unet(layout: str, request: pytest.FixtureRequest) -> None:
    base: Base = request.getfixturevalue(layout)
    pipe = load_pipeline(base.path)
    side, width = pipe.unet.config.sample_size, pipe.unet.config.cross_attention_dim
    text = torch.zeros(1, 77, width)
    done = counted(pipe.unet, lambda: pipe.unet(torch.zeros(1, 4, side, side), 1, text))
    # Only the convolutions that scale up or down are counted at another level than they run at.
    assert unet_flops(base) == pytest.approx(done, rel=0.25)


def test_a_prompt(base: Base) -> None:
    pipe = load_pipeline(base.path)
    done = counted(pipe.text_encoder, lambda: encode(pipe, ["a dog"]))
    assert text_flops(base) == done


def test_tokens_are_those_that_enter_the_layers(base: Base) -> None:
    pipe, modules = load_pipeline(base.path), attention_modules(base.modules)
    seen: dict[str, tuple[int, int]] = {}
    for module in modules:

        def note(_: Any, inputs: tuple[Tensor, ...], module: str = module) -> None:
            seen[input_of(module)] = (inputs[0].shape[1], inputs[0].shape[2])

        get_module(pipe, module).register_forward_pre_hook(note)
    side = pipe.unet.config.sample_size
    text = torch.zeros(1, 77, pipe.unet.config.cross_attention_dim)
    with torch.no_grad():
        pipe.unet(torch.zeros(1, 4, side, side), 1, text)
    assert tokens_of(base, modules) == seen


def test_sampling_costs_what_its_passes_do(base: Base, tmp_path: Path) -> None:
    case = adapter(tmp_path, base, "rex", cross_kv(base.modules)[:1])
    recipe, kv = recipe_for(base, [case]), cross_kv(base.modules)
    unet = sorted(set(attention_modules(base.modules)) - set(kv))
    cost = stage_flops(base, recipe, UNET, unet, concepts=3)
    passes = 3 * len(recipe.sampling.prompts) * recipe.sampling.steps  # type: ignore[union-attr]
    assert passes * unet_flops(base) < cost < 3 * passes * unet_flops(base)
    how = Refinement(steps=10, batch=2, prompts=("{c}",), images=1, sampling_steps=5)
    assert refine_flops(base, how, adapters=1) == (2 * 5 + 20 + 60) * unet_flops(base)


def test_this_machine_multiplies() -> None:
    assert flops_a_second() > 1e8
