"""Dense deltas on a live pipeline: a layer's weight is W plus the deltas that are on.

W itself stays where it was, untouched, and is the layer's own weight again, bit for bit, once the
deltas are taken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from adreg.diffusion.modules import base_layer, components, get_module, module_key, weight_matrix


class DenseDeltas(nn.Module):
    """W to W + sum_i w_i D_i (out x in, each in fp32), in W's dtype; `weights` holds the w_i.

    A delta without a weight rests, and with `on` false all do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deltas = nn.ParameterDict()
        self.weights: dict[str, float] = {}
        self.on = True

    def forward(self, weight: Tensor) -> Tensor:
        if not (self.on and self.weights):
            return weight
        total = weight
        for slot, share in self.weights.items():
            total = total + share * self.deltas[slot].view_as(weight)
        return total.to(weight.dtype)


def add_delta(pipe: Any, module: str, slot: str, values: Tensor) -> nn.Parameter:
    """Puts a delta (out x in) on a module with weight 1, asking for no gradient; returns it."""
    layer = base_layer(get_module(pipe, module))
    held = _deltas(layer)
    if held is None:
        held = DenseDeltas()
        parametrize.register_parametrization(layer, "weight", held)
    device = weight_matrix(layer).device
    delta = nn.Parameter(values.to(device, torch.float32), requires_grad=False)
    held.deltas[slot] = delta
    held.weights[slot] = 1.0
    return delta


def dense_layers(pipe: Any) -> Iterator[tuple[str, DenseDeltas]]:
    """(module key, deltas) of every layer that has some."""
    for component, model in components(pipe):
        for path, layer in model.named_modules():
            if (held := _deltas(layer)) is not None:
                yield module_key(component, path.removesuffix(".base_layer")), held


def take_off(pipe: Any) -> None:
    """Takes every delta off; the layers' weights are the very tensors they were."""
    for _, model in components(pipe):
        for layer in list(model.modules()):
            if _deltas(layer) is not None:
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def _deltas(layer: nn.Module) -> DenseDeltas | None:
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    held = layer.get_submodule("parametrizations.weight.0")
    return held if isinstance(held, DenseDeltas) else None
