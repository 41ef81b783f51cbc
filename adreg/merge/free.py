"""Methods that look at deltas alone: module by module, nothing is recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adreg.domain import Progress
from adreg.formats.factors import Delta
from adreg.merge.methods import concat, dare, linear, orthogonal, svd, ties
from adreg.merge.plan import Plan
from adreg.merge.stages import AllDeltas, Deltas

Parts = Sequence[tuple[Delta, float]]


@dataclass(frozen=True)
class Asked:
    """What a method may know beside a module's deltas: its settings, and all weights together."""

    module: str
    settings: Mapping[str, float]
    total: float

    def generator(self) -> torch.Generator:
        """Of the recipe's seed and the module: so layers are drawn apart, in any order."""
        named = f"{int(self.settings['seed'])} {self.module}".encode()
        return torch.Generator().manual_seed(
            int.from_bytes(hashlib.sha256(named).digest()[:8]) >> 1
        )


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


def combine(plan: Plan, adapted: AllDeltas, progress: Progress) -> Deltas:
    """The merged delta (out x in, fp32, CPU) of every module of the plan."""
    merged = FREE[plan.recipe.method]
    total = sum(operand.weight for operand in plan.operands)
    deltas: Deltas = {}
    for index, module in enumerate(plan.modules):
        progress("sum", index, len(plan.modules))
        parts = [
            (adapted[operand.digest][module], operand.weight)
            for operand in plan.operands
            if module in operand.modules
        ]
        deltas[module] = merged(parts, Asked(module, plan.recipe.settings, total))
    return deltas
