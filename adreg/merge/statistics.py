"""All a merge keeps of the layer inputs: two sums per layer, filled while models run.

Memory depends neither on how many tokens were seen nor on how many adapters there are:
per input one Gram matrix of the adapter at hand and one sum, per layer one target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from adreg.formats.factors import Delta
from adreg.merge.layers import element_bytes, input_of


class Grams:
    """G = X X^T (in x in) of every input of `modules`, summed over all that is consumed.

    `watched` holds one module for each input: these are the ones to record.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self._input = {module: input_of(module) for module in sorted(modules)}
        first: dict[str, str] = {}
        for module, source in self._input.items():
            first.setdefault(source, module)
        self.watched = sorted(first.values())
        self.sums: dict[str, Tensor] = {}

    def consume(self, module: str, x: Tensor) -> None:
        """Add inputs `x` (tokens x in) of a watched module."""
        exact = x.detach().to(_device(x), _dtype(x.shape[1]))
        gram = exact.T @ exact
        source = self._input[module]
        if source in self.sums:
            self.sums[source] += gram
        else:
            self.sums[source] = gram


class LayerSums:
    """S = sum_i w_i G_ii of every input and R = sum_i w_i dW_i G_ii of every module."""

    def __init__(self, modules: Iterable[str]) -> None:
        self.modules = sorted(modules)
        self.gram: dict[str, Tensor] = {}
        self.target: dict[str, Tensor] = {}

    def add(self, grams: Grams, deltas: Mapping[str, Delta], weight: float) -> None:
        """Count one adapter in; its `grams` are emptied, for they are not needed again.

        A module the adapter does not touch has delta 0, but its inputs count: what the other
        adapters do there must not disturb this one.
        """
        for module in self.modules:
            if (delta := deltas.get(module)) is not None:
                gram = grams.sums[input_of(module)]
                _add(self.target, module, weight * delta.times(gram))
        for source in sorted(grams.sums):
            _add(self.gram, source, weight * grams.sums.pop(source))

    def pop(self, module: str) -> tuple[Tensor, Tensor]:
        """S and R of one module; R is let go, and S with the last module that reads it."""
        self.modules.remove(module)
        source = input_of(module)
        still_read = any(input_of(other) == source for other in self.modules)
        gram = self.gram[source] if still_read else self.gram.pop(source)
        return gram, self.target.pop(module)

    @property
    def bytes(self) -> int:
        """What the sums occupy now."""
        held = [*self.gram.values(), *self.target.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


def _add(sums: dict[str, Tensor], key: str, term: Tensor) -> None:
    if key in sums:
        sums[key] += term
    else:
        sums[key] = term


def _dtype(width: int) -> torch.dtype:
    return torch.float64 if element_bytes(width) == 8 else torch.float32


def _device(x: Tensor) -> torch.device:
    # Apple's GPUs have no fp64.
    return torch.device("cpu") if x.device.type == "mps" else x.device
