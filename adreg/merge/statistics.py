"""All a merge keeps of the layer inputs: two sums per layer, filled while models run.

Memory depends neither on how many tokens were seen nor on how many adapters there are:
per input one Gram matrix of the adapter at hand and one sum, per layer one target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from adreg.errors import UsageError
from adreg.formats.factors import Delta, Factors
from adreg.merge.layers import element_bytes, input_of
from adreg.merge.methods import ssr


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


Shaper = Callable[[Tensor], Tensor]
Solve = Callable[[Tensor, Tensor], Tensor]


class LayerSums:
    """S = sum_i w_i G_ii of every input and R = sum_i w_i dW_i G_ii of every module.

    `solve` is the method, (S, R) -> dW; `shaped` what it makes of each G_ii before that counts.
    """

    def __init__(self, modules: Iterable[str], solve: Solve, shaped: Shaper | None = None) -> None:
        self.modules = sorted(modules)
        self._solve, self._shaped = solve, shaped
        self.gram: dict[str, Tensor] = {}
        self.target: dict[str, Tensor] = {}

    def add(self, grams: Grams, deltas: Mapping[str, Delta], weight: float) -> None:
        """Count one adapter in; its `grams` are emptied, for they are not needed again.

        A module the adapter does not touch has delta 0, but its inputs count: what the other
        adapters do there must not disturb this one.
        """
        if self._shaped is not None:
            grams.sums = {source: self._shaped(gram) for source, gram in grams.sums.items()}
        for module in self.modules:
            if (delta := deltas.get(module)) is not None:
                gram = grams.sums[input_of(module)]
                _add(self.target, module, weight * delta.times(gram))
        for source in sorted(grams.sums):
            _add(self.gram, source, weight * grams.sums.pop(source))

    def solve(self, module: str) -> Tensor:
        """dW (out x in) of one module, whose sums are let go."""
        return self._solve(*self.pop(module))

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


class LayerCores:
    """Of every module the factors of the adapters that change it and A G_k A^T (R x R) of each,
    A being all their down factors; of the adapters that leave it alone the sum of these."""

    def __init__(
        self, modules: Iterable[str], adapted: Sequence[Mapping[str, Delta]], ridge: float
    ) -> None:
        self._ridge = ridge
        self._down: dict[str, Tensor] = {}
        for module in modules:
            found = [deltas[module] for deltas in adapted if module in deltas]
            self._down[module] = torch.cat([_low_rank(module, delta).down for delta in found])
        self._factors: dict[str, list[Factors]] = {module: [] for module in self._down}
        self._cores: dict[str, list[Tensor]] = {module: [] for module in self._down}
        self._others: dict[str, Tensor] = {}

    def add(self, grams: Grams, deltas: Mapping[str, Delta], weight: float) -> None:
        """Count one adapter in; its `grams` are emptied."""
        for module, down in self._down.items():
            gram = grams.sums[input_of(module)]
            rows = down.to(gram)
            core = rows @ gram @ rows.T
            if module in deltas:
                own = _low_rank(module, deltas[module])
                self._factors[module].append(Factors(own.up * weight, own.down))
                self._cores[module].append(core)
            else:
                _add(self._others, module, core)
        grams.sums.clear()

    def solve(self, module: str) -> Tensor:
        """dW (out x in) of one module, whose cores are let go."""
        factors, cores = self._factors.pop(module), self._cores.pop(module)
        on = cores[0].device
        here = [Factors(f.up.to(on), f.down.to(on)) for f in factors]
        return ssr.merged_delta(here, cores, self._ridge, self._others.pop(module, None))


def _low_rank(module: str, delta: Delta) -> Factors:
    if isinstance(delta, Factors):
        return delta
    raise UsageError(
        f"ssr mixes low-rank factors, and {module} has a whole delta", remedy="use another --method"
    )


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
