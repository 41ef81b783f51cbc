from __future__ import annotations

import torch
from torch import Tensor

from adreg.diffusion.attach import attach
from adreg.diffusion.modules import base_layer, get_module
from adreg.diffusion.record import record_inputs
from adreg.diffusion.tokens import encode
from tests import tiny
from tests.diffusion.weights import random_weights


def test_what_is_recorded_is_what_the_layer_multiplies() -> None:
    """W x + b of the recorded x is the bare layer's output, for Linear and 1x1 convolution."""
    pipe = tiny.sd15_pipeline()
    modules = tiny.modules_of(pipe)
    block = "unet.down_blocks.0.attentions.0"
    keys = [f"{block}.proj_in", f"{block}.transformer_blocks.0.attn2.to_k"]
    attach(pipe, "rex", random_weights(modules, keys))
    seen: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    for key in keys:
        base_layer(get_module(pipe, key)).register_forward_hook(
            lambda layer, args, out, key=key: outputs.__setitem__(key, out)
        )
    with torch.no_grad(), record_inputs(pipe, keys, seen.__setitem__):
        pipe.unet(torch.randn(1, 4, 8, 8), 3, encode(pipe, ["a dog"]))
    for key in keys:
        layer = base_layer(get_module(pipe, key))
        by_hand = seen[key] @ layer.weight.flatten(1).T
        by_hand = by_hand if layer.bias is None else by_hand + layer.bias
        out = outputs[key]
        tokens = out.permute(0, 2, 3, 1) if out.dim() == 4 else out
        torch.testing.assert_close(by_hand, tokens.reshape(by_hand.shape), atol=1e-5, rtol=1e-4)


def test_hooks_are_gone_afterwards() -> None:
    pipe = tiny.pocket_pipeline()
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
    calls: list[str] = []
    with record_inputs(pipe, [key], lambda module, x: calls.append(module)):
        encode_and_run(pipe)
    assert calls == [key]
    encode_and_run(pipe)
    assert calls == [key]


def encode_and_run(pipe: object) -> None:
    with torch.no_grad():
        pipe.unet(torch.zeros(1, 4, 16, 16), 3, encode(pipe, ["a dog"]))  # type: ignore[attr-defined]
