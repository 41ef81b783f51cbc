"""Methods that look at deltas alone: module by module, nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adreg.diffusion.strata import generator_of
from adreg.formats.factors import Delta
from adreg.merge.methods import concat, dare, linear, orthogonal, svd, ties
from adreg.merge.plan import Plan
from adreg.merge.stages import AllDeltas

Parts = Sequence[tuple[Delta, float]]


@dataclass(frozen=True)
class Asked:
    """What a method may know beside a module's deltas: its settings, and all weights together."""

    module: str
    settings: Mapping[str, float]
    total: float

    def generator(self) -> torch.Generator:
        """Of the recipe's seed and the module: so layers are drawn apart, in any order."""
        return generator_of(f"{int(self.settings['seed'])} {self.module}")


FREE: dict[str, Callable[[Parts, Asked], Tensor]] = {
    "concat": lambda parts, asked: concat.merged_delta(parts),
    "linear": lambda parts, asked: linear.merged_delta(parts, asked.total),
    "svd": lambda parts, asked: svd.merged_delta(parts, int(asked.settings["rank"])),
    "ties": lambda parts, asked: ties.merged_delta(parts, asked.settings["density"]),
    "dare": lambda parts, asked: dare.merged_delta(
        parts, asked.generator(), asked.settings["drop"]
    ),
    "orthogonal": lambda parts, asked: orthogonal.merged_delta(parts, asked.settings["factor"]),
}
"""The function of every row of methods/table.py that needs no statistics."""


class Combined(Mapping[str, Tensor]):
    """The merged delta (out x in, fp32, CPU) of every module of a plan, made at each look."""

    def __init__(self, plan: Plan, adapted: AllDeltas) -> None:
        self._plan, self._adapted = plan, adapted
        self._total = sum(operand.weight for operand in plan.operands)
        self._known = frozenset(plan.modules)

    def __getitem__(self, module: str) -> Tensor:
        parts = [
            (self._adapted[operand.digest][module], operand.weight)
            for operand in self._plan.operands
            if module in operand.modules
        ]
        if not parts:
            raise KeyError(module)
        recipe = self._plan.recipe
        return FREE[recipe.method](parts, Asked(module, recipe.settings, self._total))

    def __contains__(self, module: object) -> bool:
        return module in self._known

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan.modules)

    def __len__(self) -> int:
        return len(self._plan.modules)
