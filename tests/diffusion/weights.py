"""Random adapters that fit a pipeline, for the tests of this folder and its users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from adreg.formats.factors import Factors
from adreg.formats.read import AdapterWeights


def random_weights(
    modules: Mapping[str, tuple[int, int]],
    keys: Iterable[str],
    tokens: Mapping[str, Tensor] | None = None,
    *,
    rank: int = 2,
    seed: int = 0,
    size: float = 0.5,
) -> AdapterWeights:
    """Factors for `keys`, in order; ranks go `rank`, `rank` + 1, `rank`, ..."""
    draw = torch.Generator().manual_seed(seed)
    factors = {}
    for index, key in enumerate(keys):
        out, inputs = modules[key]
        r = rank + index % 2
        factors[key] = Factors(
            size * torch.randn(out, r, generator=draw), torch.randn(r, inputs, generator=draw)
        )
    return AdapterWeights(factors, dict(tokens or {}), {})
